//! One machine's configuration, whole: generated, patched by the user, patched for its network.
//!
//! Deterministic: the same input gives the same bytes, so that a digest tells whether a machine's configuration changed.
//! Must not know: where secrets and patches were read from.

use secrecy::{ExposeSecret as _, SecretString};

use super::network::{self, Network};
use super::patch::Patch;
use super::patch_error::PatchError;
use super::{Input, generate};
use crate::talos::secrets::Secrets;
use crate::types::{MachineName, Role, Sha256};

/// A machine to render for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name, which becomes its host name.
    pub name: MachineName,
    /// Control plane or worker.
    pub role: Role,
    /// Its network; nothing when the user's patches bring it or DHCP does.
    pub network: Option<Network>,
}

/// A rendered configuration.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The text that is applied.
    pub text: SecretString,
    /// The digest of the text: may be shown and journaled.
    pub digest: Sha256,
}

/// Generates the configuration of `machine` and applies `patches` in their order, then the machine's own: its host name,
/// unless a patch sets one, and its network.
///
/// # Errors
/// When a patch does not fit.
pub fn render(secrets: &Secrets, input: &Input, machine: &Machine, patches: &[Patch]) -> Result<Rendered, PatchError> {
    let mut config = generate(secrets, input, machine.role);
    for patch in patches {
        config.apply(patch)?;
    }
    let own = network::Own {
        hostname: (!patches.iter().any(Patch::sets_hostname)).then_some(machine.name.as_str()),
        role: machine.role,
        network: machine.network.as_ref(),
        contract: input.contract,
    };
    config.apply(&own.patch())?;
    let text = config.to_yaml();
    let digest = Sha256::of(text.expose_secret().as_bytes());
    Ok(Rendered { text, digest })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Contract};
    use super::*;

    fn secrets() -> Secrets {
        let bundle = include_str!("../../../tests/fixtures/talos-configs/secrets/rsa.yaml");
        Secrets::load(bundle, "2026-12-01T00:00:00Z".parse().unwrap()).unwrap()
    }

    fn machine(role: Role) -> Machine {
        let network = Network {
            mac: "BC:24:11:00:12:01".parse().unwrap(),
            addresses: vec!["10.20.0.11/24".parse().unwrap()],
            gateway: Some("10.20.0.1".parse().unwrap()),
            nameservers: vec!["10.20.0.1".parse().unwrap()],
            mtu: None,
            vip: Some("10.20.0.10".parse().unwrap()),
        };
        Machine { name: "lab-cp-01".into(), role, network: Some(network) }
    }

    fn rendered(contract: &str, role: Role, patches: &[&str]) -> String {
        let contract: Contract = contract.parse().unwrap();
        let input = Input::new("lab", "https://10.20.0.10:6443", contract, "1.35.0").unwrap();
        let patches: Vec<Patch> = patches.iter().map(|text| Patch::parse(text, "test").unwrap()).collect();
        let one = render(&secrets(), &input, &machine(role), &patches).unwrap();
        let two = render(&secrets(), &input, &machine(role), &patches).unwrap();
        assert_eq!(one.digest, two.digest);
        one.text.expose_secret().to_owned()
    }

    const LINK: &str = "        interfaces:
            - deviceSelector:
                hardwareAddr: bc:24:11:00:12:01
              addresses:
                - 10.20.0.11/24
              routes:
                - network: 0.0.0.0/0
                  gateway: 10.20.0.1
              dhcp: false
";

    #[test]
    fn a_control_plane_has_its_name_its_address_and_the_shared_one() {
        let text = rendered("1.13", Role::ControlPlane, &[]);
        assert!(text.contains(&format!("    network:\n{LINK}              vip:\n                ip: 10.20.0.10\n")));
        assert!(text.contains("        nameservers:\n            - 10.20.0.1\n"));
        assert!(
            text.ends_with("---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: \"off\"\nhostname: lab-cp-01\n")
        );
    }

    #[test]
    fn a_worker_never_has_the_shared_address() {
        let text = rendered("1.13", Role::Worker, &[]);
        assert!(text.contains(LINK));
        assert!(!text.contains("vip:"));
    }

    #[test]
    fn the_name_stands_where_the_contract_wants_it() {
        let text = rendered("1.11", Role::Worker, &[]);
        assert!(text.contains("    network:\n        hostname: lab-cp-01\n        interfaces:\n"));
        assert!(!text.contains("HostnameConfig"));
    }

    #[test]
    fn name_servers_go_to_the_resolver_where_there_is_one() {
        let text = rendered("1.14", Role::Worker, &[]);
        let resolver = "kind: ResolverConfig\nnameservers:\n    - address: 10.20.0.1\nhostDNS:\n    enabled: true\n";
        assert!(text.contains(resolver));
    }

    #[test]
    fn users_patches_come_first_and_their_host_name_stays() {
        let named = "apiVersion: v1alpha1\nkind: HostnameConfig\nauto: off\nhostname: mine\n";
        let text = rendered("1.13", Role::Worker, &["machine: {sysctls: {b: \"1\", a: \"2\"}}\n", named]);
        assert!(text.contains("    sysctls:\n        a: \"2\"\n        b: \"1\"\n    features:\n"));
        assert!(text.contains("hostname: mine\n") && !text.contains("lab-cp-01"));
    }

    #[test]
    fn what_is_rendered_can_be_read_again_and_debug_shows_no_secret() {
        let text = rendered("1.14", Role::ControlPlane, &[]);
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.to_yaml().expose_secret(), text);
        let shown = format!("{config:?} {:?}", config.documents());
        assert!(!shown.contains("BEGIN") && !shown.contains("40qq5b"));
    }

    #[test]
    fn a_patch_that_does_not_fit_is_named_with_its_place() {
        let contract = Contract::NEWEST;
        let input = Input::new("lab", "https://10.20.0.10:6443", contract, "1.35.0").unwrap();
        let error =
            Patch::parse("---\nmachine:\n  token: {a: b}\n  type: 1\n  certSANs: x\n", "patches/x.yaml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "patch patches/x.yaml, line 3, column 3: machine.token must be a string, this is a mapping; \
             line 5, column 3: machine.certSANs must be a list, this is a string"
        );
        for (text, expected) in [
            ("machne: {}\n", "patch p, line 1, column 1: unknown key machne, did you mean 'machine'?"),
            (
                "machine:\n  kubelet:\n    extraArgz: {}\n",
                "patch p, line 3, column 5: unknown key machine.kubelet.extraArgz, did you mean 'extraArgs'?",
            ),
            (
                "apiVersion: v1alpha1\nkind: UserVolumeConfig\nname: data\nprovisionning: {}\n",
                "patch p, line 4, column 1: UserVolumeConfig/data: unknown key provisionning, \
                 did you mean 'provisioning'?",
            ),
            (
                "machine: {}\nzzz: 1\n",
                "patch p, line 2, column 1: unknown key zzz; correct it, or leave it out \
                 (known here: version, debug, persist, machine, cluster)",
            ),
            ("machine:\n  qqq: 1\n", "patch p, line 2, column 3: unknown key machine.qqq; correct it, or leave it out"),
            (
                "apiVersion: v1alpha1\nkind: Qqq\n",
                "patch p, line 2, column 1: unknown kind 'Qqq'; correct it, or leave the document out",
            ),
            (
                "apiVersion: v1alpha1\nkind: HostConfigg\n",
                "patch p, line 2, column 1: unknown kind 'HostConfigg', did you mean 'HostnameConfig'?",
            ),
            ("apiVersion: v1alpha1\n", "patch p, line 1, column 1: a document with apiVersion needs a kind"),
            ("text\n", "patch p, line 1, column 1: a document must be a mapping, this is a string"),
        ] {
            assert_eq!(Patch::parse(text, "p").unwrap_err().to_string(), expected);
        }
        let json = Patch::parse("[{op: add, path: /a, value: 1}]", "p").unwrap();
        let error = render(&secrets(), &input, &machine(Role::Worker), &[json]).unwrap_err();
        assert!(
            error.to_string().starts_with("patch p, line 1, column 12, path '/a': this is a JSON patch"),
            "{error}"
        );
        let delete = "machine:\n  sysctls:\n    a: {$patch: delete}\n";
        let delete = Patch::parse(delete, "p").unwrap();
        let error = render(&secrets(), &input, &machine(Role::Worker), &[delete]).unwrap_err();
        assert_eq!(error.to_string(), "patch p, line 3, column 5, does not fit document v1alpha1");
    }
}
