//! Tests of the YAML reader: the seeds that agents write, and what must be refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn scalar(text: &str) -> Value {
    Value::Scalar(text.to_owned())
}

#[test]
fn block_and_flow_styles_and_json_read_alike() {
    let block = "network:\n  version: 2\n  ethernets:\n    nic0:\n      match:\n        macaddress: \"52:54:00:00:00:01\"\n      addresses:\n      - 10.0.0.5/24\n      - fd00::5/64\n";
    let flow = "network: {version: 2, ethernets: {nic0: {match: {macaddress: '52:54:00:00:00:01'}, addresses: [10.0.0.5/24, \"fd00::5/64\"]}}}";
    let json = "{\n  \"network\": {\n    \"version\": 2,\n    \"ethernets\": {\"nic0\": {\"match\": {\"macaddress\": \"52:54:00:00:00:01\"},\n    \"addresses\": [\"10.0.0.5/24\", \"fd00::5/64\"]}}\n  }\n}\n";
    let expected = parse(block).unwrap();
    assert_eq!(parse(flow).unwrap(), expected);
    assert_eq!(parse(json).unwrap(), expected);
    let nic = expected
        .get("network")
        .unwrap()
        .get("ethernets")
        .unwrap()
        .get("nic0")
        .unwrap();
    assert_eq!(
        nic.get("match").unwrap().get("macaddress"),
        Some(&scalar("52:54:00:00:00:01"))
    );
    assert_eq!(
        nic.get("addresses").unwrap().items(),
        &[scalar("10.0.0.5/24"), scalar("fd00::5/64")]
    );
}

#[test]
fn comments_vanish_but_not_inside_quotes_or_words() {
    let value = parse("#cloud-config\na: 1 # one\nb: 'x # y'\nc: p#q\n").unwrap();
    assert_eq!(value.get("a"), Some(&scalar("1")));
    assert_eq!(value.get("b"), Some(&scalar("x # y")));
    assert_eq!(value.get("c"), Some(&scalar("p#q")));
}

#[test]
fn items_may_be_mappings_and_nested_sequences() {
    let value = parse("routes:\n  - to: default\n    via: 10.0.0.1\n  - {to: '::/0', via: fd00::1}\nmore:\n- - a\n  - b\n-\n  k: v\n").unwrap();
    let routes = value.get("routes").unwrap().items();
    assert_eq!(routes[0].get("via"), Some(&scalar("10.0.0.1")));
    assert_eq!(routes[1].get("to"), Some(&scalar("::/0")));
    assert_eq!(routes[1].get("via"), Some(&scalar("fd00::1")));
    let more = value.get("more").unwrap().items();
    assert_eq!(more[0], Value::Sequence(vec![scalar("a"), scalar("b")]));
    assert_eq!(more[1].get("k"), Some(&scalar("v")));
}

#[test]
fn empty_values_are_null() {
    let value = parse("a:\nb: ~\nc: null\nd: ''\n").unwrap();
    assert_eq!(value.get("a"), Some(&Value::Null));
    assert_eq!(value.get("b"), Some(&Value::Null));
    assert_eq!(value.get("c"), Some(&Value::Null));
    assert_eq!(value.get("d"), Some(&scalar("")));
    assert_eq!(parse("").unwrap(), Value::Null);
}

#[test]
fn escapes_are_read() {
    assert_eq!(
        parse(r#"a: "x\n\"\u5dde""#).unwrap().get("a"),
        Some(&scalar("x\n\"州"))
    );
    assert_eq!(parse("a: 'it''s'").unwrap().get("a"), Some(&scalar("it's")));
}

#[test]
fn what_is_not_supported_is_refused_with_its_line() {
    for (text, line) in [
        ("a: 1\na: 2\n", 2),
        ("a: &x 1\n", 1),
        ("a: |\n  text\n", 1),
        ("a:\n\tb: 1\n", 2),
        ("a: [1, 2\n", 1),
        ("a: \"open\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nwords without colon\n", 2),
        ("a:\n    b: 1\n  c: 2\n", 3),
        ("{a: 1, a: 2}", 1),
        ("{a, b}", 1),
        ("a: [1] trailing\n", 1),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    assert!(parse(&"a".repeat(TEXT_BYTES_MAXIMUM + 1)).is_err());
    assert!(parse(&"[".repeat(5_000)).is_err());
    assert!(parse(&format!("{}{}", "[".repeat(40), "]".repeat(40))).is_err());
    let deep: String = (0..40)
        .map(|level| format!("{}k:\n", " ".repeat(level)))
        .collect();
    assert!(parse(&deep).is_err());
}
