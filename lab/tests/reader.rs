//! A program whose output nobody reads any more ends quietly, as one that SIGPIPE ended. No lab, no root.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

#[test]
fn a_plan_that_nobody_reads_to_its_end_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_zylab"))
        .args(["chaos", "--plan", "--seed", "1"])
        .stdout(writer)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*told), (Some(141), ""));
}
