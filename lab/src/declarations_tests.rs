//! Tests of the overlay's rules, and of the declarations as they lie in the repository.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use api::{
    BusinessSystem, CloudPolicy, Department, Flavor, Host, HostPool, Image, Network, StoragePool,
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::*;

fn laid_over(mut target: Value, patch: Value) -> Value {
    lay_over(&mut target, patch);
    target
}

/// Values as a running lab gives them.
fn values() -> Values {
    let mut values = crate::guest::values(
        &serde_json::from_str(
            r#"{"hash": "0123456789abcdef", "kernel_package": "k", "architecture": "x86_64",
                "kernel": {"file": "vmlinux", "sha256": "aa", "bytes": 1}, "initrd": {"file": "initrd.cpio", "sha256": "bb", "bytes": 1},
                "disk": {"file": "system.qcow2", "sha256": "cc", "bytes": 1}, "disk_format": "Qcow2", "minimum_size": "16Mi",
                "kernel_command_line": "quiet"}"#,
        )
        .unwrap(),
    );
    values.insert("edge".into(), "10.100.1.254".into());
    values.insert(
        "images".into(),
        "http://10.100.0.254:8100/0123456789abcdef".into(),
    );
    values
}

fn lab_objects() -> Vec<Value> {
    for_lab(&folder(), &values()).unwrap()
}

fn system(objects: &[Value], name: &str) -> BusinessSystem {
    let found = objects
        .iter()
        .find(|object| object["kind"] == "BusinessSystem" && object["metadata"]["name"] == name);
    serde_json::from_value(found.unwrap().clone()).unwrap()
}

#[test]
fn mappings_and_named_lists_merge_and_null_removes() {
    let target = json!({"a": 1, "tiers": [{"name": "db", "size": "big", "disk": 5}, {"name": "web", "size": "big"}], "list": [1, 2]});
    let patch =
        json!({"b": 2, "tiers": [{"name": "db", "size": "small", "disk": null}], "list": [3]});
    let expected = json!({"a": 1, "b": 2, "tiers": [{"name": "db", "size": "small"}, {"name": "web", "size": "big"}], "list": [3]});
    assert_eq!(laid_over(target, patch), expected);
    assert_eq!(
        laid_over(json!({}), json!({"a": {"b": null, "c": 1}})),
        json!({"a": {"c": 1}})
    );
}

#[test]
fn a_value_that_nobody_gives_is_named() {
    let error = fill("x: ${nobody}", &values()).unwrap_err().to_string();
    assert!(
        error.contains("${nobody}") && error.contains("edge"),
        "{error}"
    );
    assert!(fill("x: ${open", &values()).is_err());
    assert_eq!(
        fill("# ${} and ${edge}", &values()).unwrap(),
        "# ${} and 10.100.1.254"
    );
}

#[test]
fn every_declaration_reads_as_its_kind_without_unknown_fields() {
    let mut objects = lab_objects();
    for part in ["base", "site", "systems", "examples"] {
        objects.extend(read_folder(&folder().join(part), None).unwrap());
    }
    for object in &objects {
        let again = match object["kind"].as_str().unwrap() {
            "CloudPolicy" => round_trip::<CloudPolicy>(object),
            "Department" => round_trip::<Department>(object),
            "HostPool" => round_trip::<HostPool>(object),
            "StoragePool" => round_trip::<StoragePool>(object),
            "Network" => round_trip::<Network>(object),
            "Flavor" => round_trip::<Flavor>(object),
            "Image" => round_trip::<Image>(object),
            "BusinessSystem" => round_trip::<BusinessSystem>(object),
            "Host" => round_trip::<Host>(object),
            "Secret" => round_trip::<Secret>(object),
            other => panic!("{other} is not expected in manifests/"),
        };
        assert_within(object, &again, &identity(object).join("/"));
    }
}

fn round_trip<Kind: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
    let read: Kind = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{:?}: {error}", identity(object)));
    serde_json::to_value(read).unwrap()
}

/// Every field that is written is also understood: a misspelt one would have vanished.
fn assert_within(written: &Value, understood: &Value, path: &str) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (key, value) in written {
                let found = understood
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}.{key} is not a field of its kind"));
                assert_within(value, found, &format!("{path}.{key}"));
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            assert_eq!(written.len(), understood.len(), "{path}");
            written
                .iter()
                .zip(understood)
                .for_each(|(one, other)| assert_within(one, other, path));
        }
        _ => assert_eq!(written, understood, "{path}"),
    }
}

#[test]
fn every_name_that_is_used_is_declared() {
    let objects = lab_objects();
    let named = |kind: &str| -> BTreeSet<String> {
        objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .map(|object| identity(object)[2].to_owned())
            .collect()
    };
    let (flavors, images, networks, pools) = (
        named("Flavor"),
        named("Image"),
        named("Network"),
        named("StoragePool"),
    );
    let departments = named("Department");
    for name in named("BusinessSystem") {
        let system = system(&objects, &name);
        assert!(
            departments.contains(system.metadata.namespace.as_deref().unwrap()),
            "{name}"
        );
        for tier in &system.spec.tiers {
            assert!(
                flavors.contains(&tier.flavor),
                "{name}: flavor {}",
                tier.flavor
            );
            assert!(images.contains(&tier.image), "{name}: image {}", tier.image);
            assert!(
                pools.contains(&tier.storage_pool),
                "{name}: pool {}",
                tier.storage_pool
            );
            assert!(
                tier.networks
                    .iter()
                    .all(|network| networks.contains(network)),
                "{name}: {:?}",
                tier.networks
            );
        }
    }
}

#[test]
fn the_oa_system_is_the_seeds() {
    let oa = system(&lab_objects(), "oa");
    let impact: Vec<_> = oa
        .spec
        .impact
        .iter()
        .map(|fact| (fact.name.as_str(), fact.value, fact.as_of.as_str()))
        .collect();
    let date = "2018-08-10";
    assert_eq!(
        impact,
        [
            ("单位", 2393, date),
            ("账号", 29087, date),
            ("电子签章密钥", 2519, date),
            ("电子签章", 4766, date)
        ]
    );
    let tiers: Vec<_> = oa
        .spec
        .tiers
        .iter()
        .map(|tier| (tier.name.as_str(), tier.replicas, tier.restart_order))
        .collect();
    assert_eq!(
        tiers,
        [
            ("database", 1, 10),
            ("seal", 1, 20),
            ("application", 2, 30),
            ("web", 2, 40)
        ]
    );
    assert!(
        oa.spec
            .tiers
            .iter()
            .all(|tier| tier.flavor == "lab-1c128m" && tier.system_disk_size.is_none())
    );
    assert_eq!(
        oa.spec.tiers[0].data_disks[0].size, "32Mi",
        "the overlay's size"
    );
}

#[test]
fn the_website_group_answers_for_its_eighteen_sites() {
    let group = system(&lab_objects(), "website-group");
    let headers: Vec<_> = group
        .spec
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.host_header.clone())
        .collect();
    assert_eq!(headers.iter().collect::<BTreeSet<_>>().len(), 18);
    let web = &group.spec.tiers[0];
    assert!(web.replicas >= 2);
    let user_data = web.cloud_init.as_ref().unwrap().user_data.as_ref().unwrap();
    let user_data: Value = serde_yaml::from_str(user_data).unwrap();
    let sites: Vec<_> = user_data["zhengyun"]["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        sites, headers,
        "the guests are given the very sites that are probed"
    );
}

#[test]
fn what_others_name_is_applied_first() {
    let kinds: Vec<_> = lab_objects()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    let first = |kind: &str| kinds.iter().position(|known| known == kind).unwrap();
    assert!(
        first("Department") < first("BusinessSystem") && first("Image") < first("BusinessSystem")
    );
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "BusinessSystem")
            .count(),
        4
    );
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "HostPool").count(),
        1,
        "the lab has one shared pool"
    );
}
