//! The original etcd under a control plane's member, in a world that has one.
//!
//! The simulated member stays what Kubernetes' objects live in; the process beside it is a second cluster of the same
//! machines. It comes and goes with its machine, and a member counts as well only where both do. What the API tells of
//! leader, term and entries is the process's; its keys are whoever's who writes to it.

use std::net::IpAddr;

use super::life::Boot;
use super::state::{Machine, State};
use crate::etcd::{Birth, Client, Entry, Life, Original, Originals, Program, Said, Stop, TalkError};
use crate::world::World;

impl World {
    /// Every control plane that becomes a member of etcd from now on runs that program too. Only the first call counts.
    pub fn use_etcd(&self, program: Program) {
        let originals = Originals::new(program, self.dir().join("etcd"));
        // A second one was refused before.
        let _ = self.0.talos.originals.set(originals);
    }

    /// The processes of the original etcd, where there are any: for tests.
    pub fn originals(&self) -> Option<&Originals> {
        self.0.talos.originals.get()
    }

    /// Every process of the original etcd so far, in the order of their starts.
    pub fn etcd_lives(&self) -> Vec<Life> {
        self.originals().map(Originals::lives).unwrap_or_default()
    }

    pub(super) fn stop_original(&self, vmid: u32, how: Stop) {
        if let Some(originals) = self.originals() {
            originals.stop(vmid, how);
        }
    }

    /// Waits until a machine's process is gone that was told to stop.
    pub(super) async fn original_gone(&self, vmid: u32) {
        if let Some(originals) = self.originals() {
            originals.gone(vmid).await;
        }
    }

    /// Removes what a machine's process kept.
    pub(super) async fn forget_original(&self, vmid: u32) {
        if let Some(originals) = self.originals() {
            originals.forget(vmid).await;
        }
    }

    /// Cuts off all processes of the original etcd, and waits until they are gone.
    pub async fn end_etcd(&self) {
        if let Some(originals) = self.originals() {
            originals.cut();
            originals.all_gone().await;
        }
    }

    /// Where an address of a machine really listens.
    fn dialled(&self, address: &str) -> Option<IpAddr> {
        Some(self.dial_map(address.parse().ok()?)).filter(IpAddr::is_loopback)
    }
}

impl Boot {
    /// Starts the original under a member.
    pub(super) fn begin_original(&self, client: &Client, entry: Entry) -> Result<(), String> {
        let machine = &self.machine;
        let Some(originals) = machine.world().originals() else { return Ok(()) };
        let own = machine.see(|state| state.address().map(|address| address.to_string()).unwrap_or_default());
        let nowhere = || format!("{own} isn't mapped onto loopback: etcd can't listen there");
        let address = machine.world().dialled(&own).ok_or_else(nowhere)?;
        let mut name = machine.see(State::hostname);
        let mut all = Vec::new();
        // A member that joins knows nobody yet.
        for member in client.etcd.members() {
            let Some(at) = machine.world().dialled(&member.address) else { continue };
            if at == address && !member.name.is_empty() {
                name.clone_from(&member.name);
            }
            all.push((member.name, at));
        }
        let token = format!("{:016x}", client.etcd.id());
        originals.begin(machine.vmid(), Birth { token, name, address, all, entry });
        Ok(())
    }
}

impl Machine {
    /// The original under its member, while one is to run there.
    pub fn original(&self) -> Option<Original> {
        self.world().originals()?.get(self.vmid())
    }

    /// Whether its member, and the original under it, can write and read now.
    pub(super) fn is_member_well(&self, client: &Client) -> bool {
        client.is_healthy() && self.has_well_original(Original::is_healthy)
    }

    /// Whether that holds of the original; of none, everything does.
    pub(super) fn has_well_original(&self, holds: impl FnOnce(&Original) -> bool) -> bool {
        if self.world().originals().is_none() {
            return true;
        }
        self.original().is_some_and(|original| holds(&original))
    }

    /// What the original says of itself, whose leader is told by the member's id; nothing where there is none.
    pub async fn original_says(&self, client: &Client) -> Option<Result<Said, TalkError>> {
        let talk = self.original()?.talk();
        let said = async {
            let mut said = talk.status().await?;
            let leader = said.leader;
            let listed = talk.members().await?;
            let address = listed.iter().find(|member| member.id == leader).and_then(|member| member.address);
            let member = address.and_then(|address| self.member_at(client, address));
            (said.id, said.leader) = (client.id, member.map_or(0, |(id, _)| id));
            Ok(said)
        };
        Some(said.await)
    }

    /// The original gives its leadership away, if it leads; the name of the member that has it then.
    pub async fn forfeit_original(&self, client: &Client) -> Result<Option<String>, TalkError> {
        let Some(original) = self.original() else { return Ok(None) };
        let to = original.forfeit().await?;
        Ok(to.and_then(|address| self.member_at(client, address)).map(|(_, name)| name))
    }

    /// Takes the original of a member out of its cluster, before the member goes. The last one stays.
    pub async fn remove_original(&self, client: &Client, id: u64) -> Result<(), TalkError> {
        let Some(original) = self.original() else { return Ok(()) };
        let members = client.etcd.members();
        let leaves = members.iter().find(|member| member.id == id && members.len() > 1);
        match leaves.and_then(|member| self.world().dialled(&member.address)) {
            Some(address) => original.remove(address).await,
            None => Ok(()),
        }
    }

    fn member_at(&self, client: &Client, address: IpAddr) -> Option<(u64, String)> {
        let mut members = client.etcd.members().into_iter();
        let there = members.find(|member| self.world().dialled(&member.address) == Some(address))?;
        Some((there.id, there.name))
    }
}
