//! A lab leaves nothing behind: no process, namespace, link, mount, cgroup or file; also after it was
//! interrupted in the middle, and after it was killed there, once the next lab has come up.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Every lab that comes up removes what dead ones left, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn zylab(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zylab"));
    command
        .args(arguments)
        .args(["--name", name])
        .stdout(Stdio::null())
        .env_remove("ZYLAB_KEEP");
    command
}

fn up(name: &str, hosts: u8) -> Command {
    // Operators and agents are not needed to leave something behind.
    zylab(
        name,
        &["up", "--operators", "0", "--hosts", &hosts.to_string()],
    )
}

/// Brings a lab up and waits until there is something of it.
fn begin(name: &str, hosts: u8, something: &str) -> Child {
    let child = up(name, hosts).stderr(Stdio::piped()).spawn().unwrap();
    let begun = || has(name, something);
    lab::process::wait_for("the lab to begin", Duration::from_secs(120), || Ok(begun())).unwrap();
    child
}

fn has(name: &str, something: &str) -> bool {
    traces(name)
        .iter()
        .any(|trace| trace.starts_with(something))
}

fn up_and_running(name: &str, hosts: u8) {
    let output = up(name, hosts).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not come up: {said}");
}

fn down(name: &str) {
    assert!(zylab(name, &["down"]).status().unwrap().success());
}

/// Waits for daemons that were killed: this machine's first process reaps them, in its own time.
fn wait_reaped(name: &str) {
    let reaped = || Ok(!has(name, "process"));
    lab::process::wait_for("the dead to be reaped", Duration::from_secs(30), reaped).unwrap();
}

/// Everything on this machine that belongs to the lab.
fn traces(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while it is looked at.
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroup.contains(&format!("zylab-{lab}-")) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.push(format!("process {}: {line}", entry.path().display()));
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("zy{lab}-")) {
            found.push(format!("namespace {name}"));
        }
    }
    let files = lab::LabFiles::of(lab).unwrap();
    if files.root.exists() {
        found.push(format!("folder {}", files.root.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = |line: &&str| {
        line.contains(&files.root.display().to_string()) || line.contains(&format!("zy{lab}-"))
    };
    found.extend(
        mounts
            .lines()
            .filter(ours)
            .map(|line| format!("mount {line}")),
    );
    for cgroup in lab::namespace::cgroups_of_lab(lab).unwrap() {
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
    let _turn = turn();
    let name = "leaves";
    assert_eq!(traces(name), [""; 0], "before the test");
    let before = links();
    let mut first = begin(name, 2, "process");
    first.kill().unwrap();
    first.wait().unwrap();
    let left = traces(name);
    assert!(
        left.iter().any(|trace| trace.starts_with("namespace")),
        "the kill came too early to leave anything: {left:?}"
    );
    up_and_running(name, 2);
    assert_eq!(
        links(),
        before,
        "a device lies in this machine's own namespace"
    );
    down(name);
    wait_reaped(name);
    assert_eq!(traces(name), [""; 0]);
    assert_eq!(links(), before);
}

#[test]
fn the_next_lab_of_any_name_removes_one_whose_owner_is_dead_and_no_other() {
    let _turn = turn();
    let (kept, killed, owned, next) = ("leaveskept", "leaveskilled", "leavesowned", "leavesnext");
    // Left running on purpose: its program ends at once, and that is no death.
    up_and_running(kept, 0);
    // Brought up by a program for another one, as tests of the hypervisor do.
    let mut owner = Command::new("sleep").arg("1000").spawn().unwrap();
    let status = up(owned, 0)
        .args(["--owner", &owner.id().to_string()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let mut maker = begin(killed, 0, "process");
    assert!(has(owned, "process"), "its owner lives");
    maker.kill().unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(has(killed, "namespace") && has(owned, "process"));
    // The maker is a zombie until here, and as dead as its owner.
    up_and_running(next, 0);
    maker.wait().unwrap();
    for name in [killed, owned] {
        wait_reaped(name);
        assert_eq!(traces(name), [""; 0]);
    }
    assert!(has(kept, "process"), "a lab that was kept was removed");
    for name in [kept, next] {
        down(name);
        wait_reaped(name);
        assert_eq!(traces(name), [""; 0]);
    }
}

#[test]
fn an_interrupted_lab_leaves_nothing() {
    let _turn = turn();
    let name = "leavesint";
    for signal in ["-INT", "-TERM"] {
        let child = begin(name, 2, "namespace");
        lab::process::run("kill", [signal, &child.id().to_string()]).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{signal}: {said}");
        assert!(said.ends_with("zylab: interrupted\n"), "{signal}: {said}");
        // Heeded in the middle: the API server was never waited for.
        assert!(!said.contains("API server ready"), "{signal}: {said}");
        wait_reaped(name);
        assert_eq!(traces(name), [""; 0], "{signal}");
    }
}

#[test]
fn what_has_been_started_is_killed_with_its_cgroup() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let cgroup = lab::namespace::cgroup("leavesjoin", "control").unwrap();
    for round in 0..20 {
        lab::namespace::make_cgroup(&cgroup).unwrap();
        let daemon = lab::process::Daemon {
            cgroup: &cgroup,
            namespace: None,
            log: &folder.path().join("log"),
            command: ["sleep", "1000"].map(Into::into).to_vec(),
        };
        daemon.start().unwrap();
        let in_it = lab::namespace::populated(&cgroup);
        lab::namespace::remove_cgroup(&cgroup).unwrap();
        assert!(in_it, "round {round}: started, and not yet in its cgroup");
    }
}
