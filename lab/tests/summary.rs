//! `scripts/test.sh` sums up what `cargo test` printed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

const PASSED: &str = "     Running unittests src/lib.rs (target/debug/deps/lab-0f3a)

running 2 tests
test one ... ok
test other ... not run: captures are absent (../captures)
ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

";

const FAILED: &str = "     Running tests/leaves_nothing.rs (target/debug/deps/leaves_nothing-77aa)

running 3 tests
test cells::right ... ok
test cells::wrong ... FAILED
test later ... ignored

failures:

---- cells::wrong stdout ----
    printed

failures:
    cells::wrong

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p lab --test leaves_nothing`
";

const DIED: &str = "     Running tests/dies.rs (target/debug/deps/dies-4c)

running 1 test
test it_dies ... error: test failed, to rerun pass `-p lab --test dies`

Caused by:
  process didn't exit successfully: `dies-4c` (signal: 9, SIGKILL: kill)
   Doc-tests lab

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

/// Whether it says that all is well, and its lines.
fn summary(name: &str, output: &str) -> (bool, Vec<String>) {
    let file = std::env::temp_dir().join(format!("summary-{name}-{}", std::process::id()));
    std::fs::write(&file, output).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test.sh");
    let output = Command::new(script)
        .arg("summary")
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (
        output.status.success(),
        lines.lines().map(str::to_owned).collect(),
    )
}

#[test]
fn tests_that_pass_are_counted_and_those_without_captures_told() {
    let (well, lines) = summary("passed", PASSED);
    assert!(well, "{lines:?}");
    assert!(lines[0].starts_with("not run: captures are absent (1 tests"));
    assert_eq!(lines[1], "2 passed, 0 failed, 0 ignored in 1 test programs");
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn tests_that_fail_are_named_and_programs_that_die_too() {
    let (well, lines) = summary("failed", &format!("{PASSED}{FAILED}{DIED}"));
    assert!(!well);
    let named = [
        "failed: leaves_nothing (tests/leaves_nothing.rs): cells::wrong",
        "ended without a result: dies (tests/dies.rs)",
    ];
    assert_eq!(lines[..2], named);
    assert_eq!(lines[3], "3 passed, 1 failed, 1 ignored in 3 test programs");
}
