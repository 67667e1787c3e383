//! Who answers where: machines without a configuration, told apart by MAC and SMBIOS UUID.
//!
//! Purpose: one look at the network, and the decision about what was seen. A machine in maintenance shows a throw-away
//! certificate to anybody, so nothing it says is believed before its MAC and its UUID are those that PVE gave the VM, and
//! its key is pinned from that look on. Whatever is ambiguous is refused. Must not know: plans, time limits.
//! Start reading at [`Finder::look`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::net::Connector;
use crate::plan::step::Discovery;
use crate::pve::vm::VmRef;
use crate::pve::{Pve, PveError};
use crate::talos::client::TalosError;
use crate::talos::client::maintenance::{Answers, Facts, Maintenance, probe};
use crate::types::Mac;

/// How long one machine may take to say who it is.
pub(super) const WHO: Duration = Duration::from_secs(5);

/// How many addresses are tried at once when a network is scanned.
const SCAN_WIDTH: usize = 64;

/// How long a host may take to accept a connection in a scan; machines are on the same site.
const KNOCK: Duration = Duration::from_millis(800);

/// Talos' port.
const PORT: u16 = 50000;

/// Looks around on the network and through PVE.
pub(super) struct Finder<'a> {
    pub(super) connector: &'a Connector,
    pub(super) pve: &'a Pve,
}

/// The machine that is looked for.
pub(super) struct Who {
    pub(super) vm: VmRef,
    pub(super) mac: Mac,
    /// Lower case.
    pub(super) uuid: String,
}

/// The machine that was looked for.
pub(super) struct Found {
    pub(super) address: IpAddr,
    pub(super) machine: Maintenance,
}

/// Why a look around gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unclear {
    /// Two machines say that they are the one.
    #[error("different machines at {0} have its MAC and its UUID")]
    Several(String),
    /// Another machine has its MAC: on one network that disturbs both.
    #[error("another machine, at {0}, has the same MAC and another SMBIOS UUID")]
    Twin(String),
    /// The network isn't one.
    #[error("'{0}' is not a network")]
    Network(String),
    /// The guest agent is the only way, and PVE doesn't let us ask it.
    #[error("PVE does not say what the guest agent knows")]
    Agent(#[source] PveError),
}

/// What became of a machine since it was found.
pub(super) enum Since {
    /// It shows the key that it had, or it has its configuration, or nobody is there: calls will say.
    Same,
    /// Somebody without a configuration answers with another key: maintenance makes a new one at each boot.
    Rebooted,
}

impl Finder<'_> {
    /// One look in every given way, the next one only where the last found nothing. Those who answered and are not the
    /// machine are added to `strangers`.
    pub(super) async fn look(
        &self,
        who: &Who,
        ways: &[Discovery],
        strangers: &mut BTreeSet<IpAddr>,
    ) -> Result<Option<Found>, Unclear> {
        for way in ways {
            let candidates = match way {
                Discovery::Static(address) => vec![*address],
                Discovery::Agent => self.by_agent(who, ways.len() == 1).await?,
                Discovery::Scan(network) => self.scan(network).await?,
            };
            let mut found: BTreeMap<String, Found> = BTreeMap::new();
            let mut twins = BTreeSet::new();
            for address in candidates {
                let Some((machine, facts)) = self.identify(address).await else { continue };
                let has_mac = facts.links.iter().any(|link| link.mac == who.mac);
                match (has_mac, facts.uuid.as_deref() == Some(who.uuid.as_str())) {
                    // One machine may answer at several addresses; its key tells.
                    (true, true) => drop(found.entry(machine.pin().to_string()).or_insert(Found { address, machine })),
                    (true, false) if facts.uuid.is_some() => drop(twins.insert(address)),
                    _ => drop(strangers.insert(address)),
                }
            }
            if !twins.is_empty() {
                return Err(Unclear::Twin(list(&twins)));
            }
            if found.len() > 1 {
                return Err(Unclear::Several(list(&found.values().map(|found| found.address).collect())));
            }
            if let Some((_, found)) = found.pop_first() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What a machine in maintenance says about itself; none when nobody, or nobody in maintenance, answers.
    pub(super) async fn identify(&self, address: IpAddr) -> Option<(Maintenance, Facts)> {
        match probe(self.connector, &address.to_string(), WHO).await {
            Ok(Answers::Maintenance(machine)) => match machine.facts().await {
                Ok(facts) => Some((machine, facts)),
                Err(error) => {
                    tracing::debug!(%address, %error, "a machine in maintenance doesn't say who it is");
                    None
                }
            },
            Ok(Answers::Configured(_)) | Err(_) => None,
        }
    }

    /// Whether the machine that was found at `address` is still the one with its key.
    pub(super) async fn since(&self, address: IpAddr, machine: &Maintenance) -> Since {
        let changed = matches!(machine.status().await, Err(TalosError::PinChanged { .. }));
        // With its configuration it shows another key as well; then there is nobody to look for.
        if changed && self.identify(address).await.is_some() { Since::Rebooted } else { Since::Same }
    }

    /// The addresses that the guest agent knows of the NIC with the machine's MAC. Addresses that are valid on one link
    /// only can't be dialled from here.
    async fn by_agent(&self, who: &Who, only_way: bool) -> Result<Vec<IpAddr>, Unclear> {
        let interfaces = match self.pve.guest_interfaces(&who.vm).await {
            Ok(interfaces) => interfaces.unwrap_or_default(),
            Err(error) if only_way && matches!(error.meaning(), PveError::Forbidden { .. }) => {
                return Err(Unclear::Agent(error));
            }
            Err(error) => {
                tracing::debug!(vmid = %who.vm.vmid, %error, "the guest agent can't be asked");
                return Ok(Vec::new());
            }
        };
        let own = interfaces.into_iter().filter(|interface| interface.mac == Some(who.mac));
        let everywhere = |address: &IpAddr| match address {
            IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified(),
            IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_unspecified(),
        };
        Ok(own.flat_map(|interface| interface.addresses).filter(everywhere).collect())
    }

    /// The hosts of a network that accept connections on Talos' port.
    async fn scan(&self, network: &str) -> Result<Vec<IpAddr>, Unclear> {
        let network: ipnet::IpNet = network.parse().map_err(|_| Unclear::Network(network.to_owned()))?;
        let mut hosts = network.hosts();
        let mut knocking = FuturesUnordered::new();
        let mut open = Vec::new();
        loop {
            while knocking.len() < SCAN_WIDTH
                && let Some(host) = hosts.next()
            {
                knocking.push(async move {
                    let knocked = tokio::time::timeout(KNOCK, self.connector.tcp(&host.to_string(), PORT)).await;
                    matches!(knocked, Ok(Ok(_))).then_some(host)
                });
            }
            match knocking.next().await {
                Some(found) => open.extend(found),
                None => break,
            }
        }
        open.sort();
        Ok(open)
    }
}

pub(super) fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Server, connector, data};
    use crate::pve::{Auth, Endpoint, Options};
    use crate::talos::client::testing::{Asks, Fake, Script};
    use crate::types::VmId;

    const MAC: &str = "bc:24:11:00:12:01";
    const UUID: &str = "6b9d5c3e-0000-4000-8000-000000001201";

    /// A machine in maintenance as far as it says who it is.
    fn script(mac: &str, uuid: &str) -> Script {
        let link = format!("index: 2\ntype: ether\nkind: \"\"\nhardwareAddr: {mac}\npermanentAddr: {mac}\nmtu: 1500\n");
        let stage = "stage: maintenance\nstatus:\n    ready: true\n    unmetConditions: []\n";
        let none = |kind: &'static str| (kind, "", String::new());
        Script {
            tag: Some("v1.13.9"),
            resources: vec![
                ("LinkStatuses.net.talos.dev", "eth0", link),
                ("SystemInformations.hardware.talos.dev", "systeminformation", format!("uuid: {uuid}\n")),
                none("ExtensionStatuses.runtime.talos.dev"),
                ("Versions.runtime.talos.dev", "version", "version: v1.13.9\nname: Talos\n".to_owned()),
                none("Disks.block.talos.dev"),
                none("SystemDisks.block.talos.dev"),
                ("MachineStatuses.runtime.talos.dev", "machine", stage.to_owned()),
            ],
            ..Script::default()
        }
    }

    async fn at(address: &str, mac: &str, uuid: &str) -> Fake {
        Fake::start_at(&format!("{address}:{PORT}"), Asks::Nothing, script(mac, uuid)).await
    }

    fn who() -> Who {
        Who { vm: VmRef::new("pve1".into(), VmId(1201)), mac: MAC.parse().unwrap(), uuid: UUID.to_owned() }
    }

    /// PVE, which answers everything with this.
    async fn pve(answer: &str) -> Pve {
        let answer = answer.to_owned();
        let server = Server::start(move |_, _| data(&answer)).await;
        let auth = Auth::Token { id: "ci@pve!full".to_owned(), secret: "s".into() };
        let endpoint = Endpoint { address: server.address.clone(), trust: server.pinned() };
        Pve::new(&connector(), Options::new(vec![endpoint], auth)).unwrap()
    }

    /// Where it was found, and who else answered.
    async fn look(pve: &Pve, ways: &[Discovery]) -> Result<(Option<String>, String), String> {
        let connector = connector();
        let mut strangers = BTreeSet::new();
        let found = Finder { connector: &connector, pve }.look(&who(), ways, &mut strangers).await;
        let found = found.map_err(|unclear| unclear.to_string())?;
        Ok((found.map(|found| found.address.to_string()), list(&strangers)))
    }

    fn scan(network: &str) -> Vec<Discovery> {
        vec![Discovery::Scan(network.to_owned())]
    }

    #[tokio::test]
    async fn a_scan_finds_it_among_others() {
        let pve = pve("null").await;
        let _other = at("127.89.1.1", "bc:24:11:00:99:01", "6b9d5c3e-0000-4000-8000-000000009901").await;
        let _it = at("127.89.1.2", MAC, UUID).await;
        let found = look(&pve, &scan("127.89.1.0/29")).await;
        assert_eq!(found, Ok((Some("127.89.1.2".to_owned()), "127.89.1.1".to_owned())));
        assert_eq!(look(&pve, &scan("127.89.1.4/30")).await, Ok((None, String::new())));
    }

    #[tokio::test]
    async fn the_assigned_address_comes_first_and_counts_only_with_mac_and_uuid() {
        let pve = pve("null").await;
        let _it = at("127.89.2.5", MAC, UUID).await;
        let _other = at("127.89.2.6", "bc:24:11:00:99:01", UUID).await;
        let fixed = |address: &str| Discovery::Static(address.parse().unwrap());
        assert_eq!(look(&pve, &[fixed("127.89.2.5")]).await, Ok((Some("127.89.2.5".to_owned()), String::new())));
        assert_eq!(look(&pve, &[fixed("127.89.2.6")]).await, Ok((None, "127.89.2.6".to_owned())));
        let both = [fixed("127.89.2.6"), Discovery::Scan("127.89.2.4/30".to_owned())];
        assert_eq!(look(&pve, &both).await, Ok((Some("127.89.2.5".to_owned()), "127.89.2.6".to_owned())));
    }

    #[tokio::test]
    async fn what_is_ambiguous_is_refused() {
        let pve = pve("null").await;
        let _one = at("127.89.3.1", MAC, UUID).await;
        let two = at("127.89.3.2", MAC, UUID).await;
        let unclear = look(&pve, &scan("127.89.3.0/29")).await.unwrap_err();
        assert_eq!(unclear, "different machines at 127.89.3.1, 127.89.3.2 have its MAC and its UUID");
        two.stop().await;
        let _twin = at("127.89.3.3", MAC, "6b9d5c3e-0000-4000-8000-000000009901").await;
        let unclear = look(&pve, &scan("127.89.3.0/29")).await.unwrap_err();
        assert_eq!(unclear, "another machine, at 127.89.3.3, has the same MAC and another SMBIOS UUID");
    }

    #[tokio::test]
    async fn the_guest_agent_says_where_to_look_and_is_not_believed() {
        let answer = |mac: &str| {
            format!(
                r#"{{"result":[{{"name":"lo","hardware-address":"00:00:00:00:00:00","ip-addresses":[{{"ip-address":"127.0.0.1"}}]}},
                {{"name":"eth0","hardware-address":"{mac}","ip-addresses":[{{"ip-address":"fe80::1"}},{{"ip-address":"127.89.4.9"}}]}}]}}"#
            )
        };
        let it = at("127.89.4.9", MAC, UUID).await;
        let found = look(&pve(&answer(MAC)).await, &[Discovery::Agent]).await;
        assert_eq!(found, Ok((Some("127.89.4.9".to_owned()), String::new())));
        let found = look(&pve(&answer("bc:24:11:00:99:01")).await, &[Discovery::Agent]).await;
        assert_eq!(found, Ok((None, String::new())));
        it.stop().await;
        let _other = at("127.89.4.9", "bc:24:11:00:99:01", UUID).await;
        let found = look(&pve(&answer(MAC)).await, &[Discovery::Agent]).await;
        assert_eq!(found, Ok((None, "127.89.4.9".to_owned())));
        let silent = pve(r#"{"result":{"error":{"class":"GenericError","desc":"x"}}}"#).await;
        assert_eq!(look(&silent, &[Discovery::Agent]).await, Ok((None, String::new())));
    }

    #[tokio::test]
    async fn a_machine_that_rebooted_since_is_told_from_one_with_its_configuration() {
        let (pve, connector) = (pve("null").await, connector());
        let finder = Finder { connector: &connector, pve: &pve };
        let fake = at("127.89.5.1", MAC, UUID).await;
        let ways = scan("127.89.5.1/32");
        let first = finder.look(&who(), &ways, &mut BTreeSet::new()).await.unwrap().unwrap();
        let (address, pin) = (first.address, first.machine.pin());
        // A later step knows the key alone.
        let pinned = || Maintenance::pinned(&connector, "127.89.5.1", pin, WHO).unwrap();
        assert!(matches!(finder.since(address, &pinned()).await, Since::Same));
        fake.stop().await;
        let fake = at("127.89.5.1", MAC, UUID).await;
        assert!(matches!(finder.since(address, &pinned()).await, Since::Rebooted));
        let again = finder.look(&who(), &ways, &mut BTreeSet::new()).await.unwrap().unwrap();
        assert_ne!(again.machine.pin(), pin);
        assert!(matches!(finder.since(again.address, &again.machine).await, Since::Same));
        fake.stop().await;
        let configured = Fake::start_at("127.89.5.1:50000", Asks::Certificate, script(MAC, UUID)).await;
        assert!(matches!(finder.since(address, &pinned()).await, Since::Same));
        assert!(finder.look(&who(), &ways, &mut BTreeSet::new()).await.unwrap().is_none());
        configured.stop().await;
    }
}
