//! A site to test on: a folder with a profile and its secrets, and a double of everything else.
//!
//! The double runs in this process ([`Double::here`]) or as the program `mock-pve` ([`Double::program`]); both play the
//! cluster of [`Folder::profile`]. [`End`] is what a rebuild must leave behind, read through Proxmox VE's and Talos' APIs.

mod deeds;
mod double;
mod end;
mod folder;
mod profile;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use recast::plan::Plan;
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;
use secrecy::ExposeSecret as _;

pub(crate) use deeds::assert_deeds;
pub(crate) use double::Double;
pub(crate) use end::End;
pub(crate) use folder::{Folder, program};
pub(crate) use profile::{Spot, profile_of};

/// The versions that the tests rebuild to, from those in `profiles/single.yaml`.
pub(crate) const TALOS: &str = "1.13.9";
pub(crate) const KUBERNETES: &str = "1.35.0";

/// The clusters that the tests rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// One control plane on one PVE node: `profiles/single.yaml`.
    Single,
    /// The same, with images that go straight into volumes over SSH.
    SingleOverSsh,
    /// Three control planes and two workers on three PVE nodes: `profiles/lab.yaml`, with addresses that are mapped, so
    /// that several tests have one at a time.
    Lab,
}

impl Cluster {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single | Self::SingleOverSsh => "single",
            Self::Lab => "lab",
        }
    }

    /// The arguments of the rebuild that these tests are about.
    pub(crate) fn rebuild(self) -> [&'static str; 7] {
        ["rebuild", "--to", TALOS, "--kubernetes", KUBERNETES, "--confirm", self.name()]
    }

    /// The profile's text.
    fn profile(self) -> String {
        let text = fs::read_to_string(repository().join("profiles").join(self.name()).with_extension("yaml")).unwrap();
        let text = text.replace("127.20.0.", "10.20.0.").replace("site: lab/site.yaml\n", "");
        if self == Self::SingleOverSsh { text + "transport: ssh\n" } else { text }
    }
}

/// The number of the cluster's only VM.
pub(crate) const VM: u32 = 1100;

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Secrets for all tests of this process: making their RSA key takes seconds without optimisation.
pub(crate) fn secrets() -> &'static str {
    static SECRETS: OnceLock<String> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let contract = Contract::of(&"1.12.4".parse().unwrap()).unwrap();
        let secrets = Secrets::generate(contract, jiff::Timestamp::now()).unwrap();
        secrets.to_yaml().expose_secret().to_owned()
    })
}

/// The plan in a run's directory.
pub(crate) fn plan(run: &Path) -> Plan {
    serde_json::from_str(&fs::read_to_string(run.join("plan.json")).unwrap()).unwrap()
}
