//! A lab leaves nothing behind: no process, namespace, link, mount, cgroup or file; also after it was
//! killed in the middle, once the next one of its name has come up and gone down.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const NAME: &str = "leaves";

fn zylab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zylab"));
    command.args(arguments).args(["--name", NAME]);
    command
}

fn up() -> Command {
    // Operators and agents are not needed to leave something behind.
    zylab(&["up", "--hosts", "2", "--operators", "0"])
}

/// Everything on this machine that belongs to the lab.
fn traces() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroup.contains(&format!("zylab-{NAME}-")) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process {}: {line}", entry.path().display()));
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("zy{NAME}-")) {
            found.push(format!("namespace {name}"));
        }
    }
    let files = lab::LabFiles::of(NAME).unwrap();
    if files.root.exists() {
        found.push(format!("folder {}", files.root.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = |line: &&str| {
        line.contains(&files.root.display().to_string()) || line.contains(&format!("zy{NAME}-"))
    };
    found.extend(
        mounts
            .lines()
            .filter(ours)
            .map(|line| format!("mount {line}")),
    );
    for cgroup in lab::namespace::cgroups_of_lab(NAME).unwrap() {
        found.push(format!("cgroup {}", cgroup.display()));
    }
    found
}

/// Network devices in this machine's own namespace.
fn links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut links: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    links.sort();
    links
}

#[test]
fn a_lab_leaves_nothing_even_after_it_was_killed_in_the_middle() {
    assert_eq!(traces(), [""; 0], "before the test");
    let before = links();
    let mut first = up().stderr(Stdio::null()).spawn().unwrap();
    let begun = || traces().iter().any(|trace| trace.starts_with("process"));
    lab::process::wait_for("the lab to begin", Duration::from_secs(120), || Ok(begun())).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let left = traces();
    assert!(
        left.iter().any(|trace| trace.starts_with("namespace")),
        "the kill came too early to leave anything: {left:?}"
    );
    let status = up()
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success(),
        "the next lab does not come up over the ruins"
    );
    assert_eq!(
        links(),
        before,
        "a device lies in this machine's own namespace"
    );
    let status = zylab(&["down"]).status().unwrap();
    assert!(status.success());
    // Daemons that were killed are reaped by this machine's first process, in its own time.
    let reaped = || Ok(!traces().iter().any(|trace| trace.starts_with("process")));
    lab::process::wait_for("the dead to be reaped", Duration::from_secs(30), reaped).unwrap();
    assert_eq!(traces(), [""; 0]);
    assert_eq!(links(), before);
}
