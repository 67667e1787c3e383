//! Where a machine answers whose address the profile leaves to DHCP.
//!
//! The guest agent of the VM with the machine's name is asked, through Proxmox VE. What it says is only where to look: the
//! machine there proves with its certificate that it is of the cluster. Must not know: what the machine is asked.

use std::net::IpAddr;

use super::ground::{Ground, Source};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::pve::PveError;

/// The addresses at which a machine may be: the profile's, else those that its guest agent tells.
///
/// # Errors
/// When neither says one.
pub(super) async fn addresses(
    ground: &Ground,
    source: &Source,
    session: Option<&Result<Session, Stop>>,
) -> Result<Vec<IpAddr>, Stop> {
    if let Some(address) = source.address {
        return Ok(vec![address]);
    }
    let name = &source.spec.name;
    let unknown = |why: &str| {
        Stop::new(ExitCode::Failed, format!("the address of {name} is not in the profile, and {why}"))
            .hinted("give it in the profile: nodes.<group>.assignments[].ip")
    };
    let session = match session {
        Some(Ok(session)) => session,
        Some(Err(stop)) => {
            let mut unasked = unknown("Proxmox VE can't be asked for it");
            unasked.problems[0].causes = stop.problems.iter().map(|problem| problem.what.clone()).collect();
            return Err(unasked);
        }
        None => return Err(unknown("Proxmox VE was not asked for it")),
    };
    let vm = ground.vm(session, name).await?.ok_or_else(|| unknown("no VM has its name"))?;
    let unasked = |error: PveError| {
        let mut stop = unknown("its guest agent can't be asked for it");
        stop.problems[0].causes.push(error.to_string());
        stop
    };
    let config = session.pve.vm_config(&vm).await.map_err(unasked)?;
    let interfaces = session.pve.guest_interfaces(&vm).await.map_err(unasked)?;
    let shared = ground.talos()?.vip.as_ref().map(|vip| vip.ip);
    let own = interfaces.unwrap_or_default().into_iter();
    let own = own.filter(|interface| interface.mac.is_some_and(|mac| config.has_mac(mac)));
    let mut found: Vec<IpAddr> = own.flat_map(|interface| interface.addresses).filter(reachable).collect();
    // The address that control planes share may lead to another machine.
    found.retain(|address| shared != Some(*address));
    found.sort();
    if found.is_empty() { Err(unknown("its guest agent doesn't tell one")) } else { Ok(found) }
}

/// Whether an address can be dialled from another link than its own.
fn reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_unspecified() && !address.is_loopback(),
    }
}
