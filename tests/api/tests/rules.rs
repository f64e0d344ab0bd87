//! No rule of the API without a case: every sentence of every CRD's CEL rules is one that some bad manifest
//! or bad edit is refused with.

use api_tests::cases::{bad_edits, bad_manifests};
use serde_json::Value;

/// Ranges of the CloudPolicy's numbers: the operator's `door` compares each with the range in which the
/// policy holds together.
const RANGES: &str = ": safe is ";
/// Rules that nothing can reach yet, with why.
const OUT_OF_REACH: [(&str, &str, &str); 1] = [(
    "StoragePool",
    "kind: can not be changed",
    "there is one kind; another word is refused as unsupported before rules are asked",
)];

/// Every message of `x-kubernetes-validations` within a schema.
fn messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "x-kubernetes-validations" {
                    let rules = value.as_array().into_iter().flatten();
                    found.extend(rules.map(|rule| match rule["message"].as_str() {
                        Some(message) => message.to_owned(),
                        None => format!("a rule without a sentence: {rule}"),
                    }));
                } else {
                    messages(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
        _ => {}
    }
}

/// Kind and sentence of every case. A word alone is no sentence: it would stand for many rules.
fn cases() -> Vec<(String, &'static str)> {
    let manifests = bad_manifests().into_iter().map(|case| {
        let manifest: Value = serde_yaml::from_str(case.yaml).expect("a manifest");
        let kind = manifest["kind"].as_str().expect("a kind").to_owned();
        (kind, case.sentence)
    });
    let edits = bad_edits().into_iter().map(|case| {
        let kind = case.what.split(' ').next().expect("a kind").to_owned();
        (kind, case.sentence)
    });
    manifests
        .chain(edits)
        .filter(|(_, sentence)| sentence.contains(' '))
        .collect()
}

#[test]
fn every_rule_has_a_case_that_is_refused_with_its_sentence() {
    let cases = cases();
    let (mut rules, mut missing) = (0, Vec::new());
    for crd in api::all_crds() {
        let kind = crd.spec.names.kind.clone();
        let mut found = Vec::new();
        let schema = serde_json::to_value(&crd).expect("a CRD");
        messages(&schema, &mut found);
        rules += found.len();
        missing.extend(
            found
                .into_iter()
                .filter(|message| {
                    let covered = cases
                        .iter()
                        .any(|(of, sentence)| *of == kind && message.contains(sentence));
                    let excused = OUT_OF_REACH
                        .iter()
                        .any(|(of, start, _)| *of == kind && message.starts_with(start));
                    !(covered || excused || message.contains(RANGES))
                })
                .map(|message| format!("{kind}: {message}")),
        );
    }
    assert!(rules > 50, "only {rules} rules were found");
    assert!(
        missing.is_empty(),
        "rules without a case in tests/api/src/cases/manifests.rs:\n{}",
        missing.join("\n")
    );
}
