//! Declarations with seeded faults: every file is answered or refused in words, in both languages, never a panic. A moment
//! by default; for longer: `FUZZ_SECONDS=3600 cargo test --release -p cli faulty_declarations`. The faults are those that
//! saved fleets are given (`crates/fleet/tests/fuzz.rs`).

use std::path::PathBuf;

use placement::search::Rng;
use serde_json::{Value, json};

use super::outcome;
use crate::commands::planning_tests::planning;
use crate::language::Language;
use crate::options::Output;

#[path = "../../../../../crates/fleet/tests/spoil/mod.rs"]
mod spoil;

use spoil::{play, scratch};

/// Two systems, a VM that stands alone, and something of each kind that is counted with.
fn declared() -> Value {
    json!([
        {"apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem", "metadata": {"name": "mail", "namespace": "office"},
            "spec": {"displayName": "mail", "priority": "Critical", "tiers": [
                {"name": "front", "replicas": 2, "flavor": "2c4g", "image": "linux", "networks": ["common"],
                    "storagePool": "shared", "restartOrder": 2, "startTimeoutSeconds": 60},
                {"name": "store", "replicas": 1, "flavor": "1c1g", "image": "linux", "networks": ["legacy"],
                    "storagePool": "shared", "restartOrder": 1, "systemDiskSize": "50Gi",
                    "dataDisks": [{"name": "data", "size": "10Gi"}]}]}},
        {"apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem", "metadata": {"name": "seal", "namespace": "office"},
            "spec": {"displayName": "seal", "tiers": [
                {"name": "app", "replicas": 1, "flavor": "1c1g", "image": "linux", "networks": ["common"],
                    "storagePool": "shared"}]}},
        {"kind": "VirtualMachine", "metadata": {"name": "alone", "namespace": "office", "labels": {"app": "a"}},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "linux", "networks": ["common", "legacy"],
                "disks": [{"name": "system", "volume": "spare"}],
                "affinity": [{"kind": "Apart", "matchLabels": {"app": "b"}, "required": true}]}},
        {"kind": "Flavor", "metadata": {"name": "1c1g"}, "spec": {"cpu": 1, "memory": "1Gi"}},
        {"kind": "Network", "metadata": {"name": "legacy"}, "spec": {"zone": "Common", "vlan": {"id": 5}, "subnets": [{"cidr": "10.9.0.0/24"}]}},
        {"kind": "Volume", "metadata": {"name": "spare", "namespace": "office"}, "spec": {"pool": "shared", "size": "40Gi"}},
        {"kind": "Department", "metadata": {"name": "office"}, "spec": {"displayName": "d",
            "quota": {"cpu": 6, "memory": "900Gi", "storage": "9Ti"}}},
        {"kind": "Secret", "metadata": {"name": "key"}}
    ])
}

/// The documents as a YAML file.
fn file(documents: &Value) -> Vec<u8> {
    let documents = documents.as_array().into_iter().flatten();
    let texts = documents.map(|document| {
        let text = serde_yaml::to_string(document).expect("YAML");
        format!("---\n{text}")
    });
    texts.collect::<String>().into_bytes()
}

fn faulty(rng: &mut Rng) -> Vec<u8> {
    let mut documents = declared();
    for _ in 0..rng.below(4) {
        spoil::spoil(&mut documents, rng);
    }
    let mut bytes = file(&documents);
    if rng.below(8) == 0 {
        scratch(&mut bytes, rng);
    }
    bytes
}

#[test]
fn faulty_declarations_are_refused_in_words_or_answered_never_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("declared.yaml");
    let site = |language: Language| {
        let mut planning = planning(Output::Table);
        planning.language = language;
        planning.snapshot.departments = Some(Vec::new());
        planning
    };
    let sites = [site(Language::English), site(Language::Chinese)];
    let asked = |planning, bytes: Vec<u8>| {
        std::fs::write(&path, bytes).expect("the file is written");
        outcome(planning, std::slice::from_ref(&path))
    };
    let good = asked(&sites[0], file(&declared())).expect("an answer");
    assert_eq!(good.answers.len(), 5, "{}", good.text());
    let came: [u64; 2] = play(400, |seed| {
        let mut rng = Rng::new(seed, 79);
        let planning = &sites[rng.below(2)];
        match asked(planning, faulty(&mut rng)) {
            Err(error) => {
                let words = format!("{error:#}");
                assert!(words.contains(' ') || !words.is_ascii(), "{words:?}");
                0
            }
            Ok(outcome) => {
                assert!(outcome.json().is_object());
                assert!(!outcome.text().is_empty());
                1
            }
        }
    });
    println!("{came:?}: refused, answered");
    assert!(came.iter().all(|&count| count > 40), "{came:?}");
}
