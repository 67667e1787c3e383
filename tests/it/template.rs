//! Templates alone, and images that go straight into volumes over SSH.

use std::fs;

use recast::types::Sha256;
use serde_json::Value;

use crate::site::{Cluster, Double, Folder, KUBERNETES, TALOS};
use crate::told::{document, text};

const BUILD: [&str; 6] = ["template", "build", "--to", TALOS, "--kubernetes", KUBERNETES];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_built_over_ssh_listed_and_used_again() {
    let folder = Folder::of(Cluster::SingleOverSsh);
    let double = Double::here(&folder, 100.0).await;
    let run = |args: &[&str]| folder.recast(double.site(), args).output().unwrap();
    let json = |args: &[&str]| folder.recast(double.site(), args).args(["-o", "json"]).output().unwrap();

    let dry = run(&[&BUILD[..], &["--dry-run"]].concat());
    let plan = text(&dry.stdout);
    assert_eq!(dry.status.code(), Some(2), "{}", text(&dry.stderr));
    for line in [
        "template build of cluster single",
        "Template 100 on pve1: the image is written over SSH to local-lvm (as asked for)",
        "allocate local-lvm:vm-100-recast-",
        "write the image to local-lvm:vm-100-recast-",
        "mark template 100 as one whose canary was right",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert!(!plan.contains("DELETE") && !plan.contains("shut down"), "{plan}");

    let built = json(&[&BUILD[..], &["--confirm", "single"]].concat());
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let told = document(&built);
    assert_eq!((&told["verb"], &told["outcome"]), (&"template build".into(), &"done".into()), "{told:#}");
    assert_eq!(told["destroyed"], Value::Array(Vec::new()), "{told:#}");
    let created: Vec<&Value> = told["created"].as_array().unwrap().iter().map(|vm| &vm["vmid"]).collect();
    assert!(created.contains(&&100.into()), "{told:#}");
    assert!(told["api_downtime_seconds"].is_null(), "no cluster was touched: {told:#}");
    let lock = fs::read_to_string(folder.profile().with_extension("lock")).unwrap();
    let locked: Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(locked["templates"]["pve1"][0]["vmid"], 100, "{lock}");
    let schematic = locked["templates"]["pve1"][0]["schematic"].as_str().unwrap();
    let recipe = locked["schematics"][schematic].as_str().unwrap_or_else(|| panic!("no schematic in {lock}"));
    assert_eq!(Sha256::of(recipe.as_bytes()).to_string(), schematic, "{lock}");
    let profile = fs::read_to_string(folder.profile()).unwrap();
    assert!(profile.contains("1.12.4"), "the profile says what runs, and that is the same as before: {profile}");

    let listed = document(&json(&["template", "list"]));
    let templates = listed["templates"].as_array().unwrap();
    let ours: Vec<&Value> = templates.iter().filter(|template| template["vmid"] == 100).collect();
    let [ours] = ours[..] else { panic!("{listed:#}") };
    assert_eq!(
        (&ours["node"], &ours["talos"], &ours["cluster"], &ours["proved"]),
        (&"pve1".into(), &TALOS.into(), &"single".into(), &true.into()),
        "{ours:#}"
    );
    assert!(ours["bytes"].as_u64().unwrap() > 1 << 20, "{ours:#}");
    assert_eq!(ours["linked_clones"], Value::Null, "LVM-thin keeps no record");
    let table = text(&run(&["template", "list"]).stdout);
    assert!(table.starts_with("NODE") && table.contains("talos-1-13-9") && table.contains("passed"), "{table}");

    // A rebuild finds it, and fetches nothing.
    let rebuild = run(&["rebuild", "--fresh", "--to", TALOS, "--kubernetes", KUBERNETES, "--dry-run"]);
    let plan = text(&rebuild.stdout);
    assert_eq!(rebuild.status.code(), Some(2), "{}", text(&rebuild.stderr));
    assert!(plan.contains("clone template 100 to VM 1100") && !plan.contains("fetch Talos"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_key_that_is_not_known_refuses_before_anything_is_touched() {
    let folder = Folder::of(Cluster::SingleOverSsh);
    let double = Double::here(&folder, 100.0).await;
    let site = fs::read_to_string(double.site()).unwrap();
    let at = site.find(", host_key: ").unwrap();
    let end = at + site[at..].find('}').unwrap();
    let (key, unknown) = (&site[at..end], format!("{}{}", &site[..at], &site[end..]));
    let path = double.site().with_file_name("unknown.yaml");
    fs::write(&path, unknown).unwrap();
    let refused = folder.recast(&path, &BUILD).args(["--confirm", "single"]).output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    let key = key.split_whitespace().find(|word| word.starts_with("AAAA")).unwrap().trim_end_matches(['"', '\'']);
    assert!(said.contains("is not known") && said.contains("SHA256:") && said.contains(key), "{said}");
    assert_eq!(double.deeds(), Vec::new());
}
