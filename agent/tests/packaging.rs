//! The units of systemd and the sample of their command lines: what an administrator installs keeps the
//! promise that restarting our programs stops no VM, and names options that exist.

use std::collections::BTreeMap;

use agent::options::{AgentOptions, GuardOptions};
use clap::{CommandFactory, Parser};

const AGENT: &str = include_str!("../packaging/zhengyun-agent.service");
const GUARD: &str = include_str!("../packaging/zhengyun-guard.service");
const SAMPLE: &str = include_str!("../packaging/agent.env.sample");
/// Where the sample is to be put.
const PLACE: &str = "/etc/zhengyun/agent.env";

/// Values of a unit by `Section.Key`; a key may stand several times.
type Unit = BTreeMap<String, Vec<String>>;

fn read(text: &str) -> Unit {
    let mut values = Unit::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.strip_suffix(']').expect("a section");
            continue;
        }
        let (key, value) = line.split_once('=').expect(line);
        values
            .entry(format!("{section}.{key}"))
            .or_default()
            .push(value.to_owned());
    }
    values
}

/// The one value of a key.
fn one<'a>(unit: &'a Unit, key: &str) -> &'a str {
    match unit.get(key).map(Vec::as_slice) {
        Some([value]) => value,
        other => panic!("{key}: {other:?}"),
    }
}

/// Variables of an environment file, as systemd reads it: quoted values, lines that a backslash continues.
fn variables(text: &str) -> BTreeMap<String, String> {
    let joined = text.replace("\\\n", "");
    joined
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// The command line that a unit runs with the sample in its place.
fn command_line(unit: &Unit) -> Vec<String> {
    assert_eq!(one(unit, "Service.EnvironmentFile"), PLACE);
    let variables = variables(SAMPLE);
    let mut line = Vec::new();
    for word in one(unit, "Service.ExecStart").split(' ') {
        match word.strip_prefix('$') {
            None => line.push(word.to_owned()),
            // Without braces, systemd splits it at blanks.
            Some(name) => {
                let value = variables.get(name).expect(name);
                line.extend(value.split_whitespace().map(str::to_owned));
            }
        }
    }
    line
}

#[test]
fn a_restart_of_the_agent_stops_no_vm() {
    let (agent, guard) = (read(AGENT), read(GUARD));
    assert_eq!(one(&agent, "Service.KillMode"), "process");
    assert_eq!(one(&agent, "Service.Restart"), "always");
    // What the programs know of this boot lies there, and a stop of either leaves it.
    for unit in [&agent, &guard] {
        assert_eq!(one(unit, "Service.RuntimeDirectory"), "zhengyun");
        assert_eq!(one(unit, "Service.RuntimeDirectoryPreserve"), "yes");
    }
}

/// By default systemd gives up after five starts within ten seconds, for ever.
#[test]
fn systemd_never_gives_up_on_a_program_that_fails_quickly() {
    for text in [AGENT, GUARD] {
        let unit = read(text);
        assert_eq!(one(&unit, "Unit.StartLimitIntervalSec"), "0");
        assert_eq!(one(&unit, "Service.Restart"), "always");
    }
}

#[test]
fn the_guard_lives_on_without_the_agent() {
    let (agent, guard) = (read(AGENT), read(GUARD));
    assert_eq!(one(&guard, "Service.Restart"), "always");
    assert!(!GUARD.contains("zhengyun-agent.service"));
    // A bond of the agent to the guard would end it with the guard, or the guard with it.
    for bond in [
        "BindsTo",
        "Conflicts",
        "PartOf",
        "PropagatesStopTo",
        "Requires",
        "Requisite",
        "StopPropagatedFrom",
    ] {
        let named = agent.get(&format!("Unit.{bond}"));
        assert!(
            !named.is_some_and(|units| units.iter().any(|units| units.contains("zhengyun-guard"))),
            "{bond}={named:?}"
        );
    }
    assert!(one(&agent, "Unit.Wants").contains("zhengyun-guard.service"));
}

#[test]
fn the_sample_is_a_command_line_that_both_programs_take() {
    let line = command_line(&read(AGENT));
    assert_eq!(line[0], "/usr/bin/zhengyun-agent");
    let options = AgentOptions::try_parse_from(&line).expect("the agent takes the sample");
    assert_eq!(options.host, "h5");
    let line = command_line(&read(GUARD));
    assert_eq!(line[0], "/usr/bin/zhengyun-guard");
    let guard = GuardOptions::try_parse_from(&line).expect("the guard takes the sample");
    assert_eq!(guard.host, options.host);
    // They meet in the folder that the units make.
    assert_eq!(guard.run_dir, options.run_dir);
    assert_eq!(options.run_dir.to_str(), Some("/run/zhengyun"));
}

#[test]
fn every_option_that_the_sample_speaks_of_exists() {
    let commands = [AgentOptions::command(), GuardOptions::command()];
    let exists = |option: &str| {
        let mut arguments = commands.iter().flat_map(|command| command.get_arguments());
        option == "help" || arguments.any(|argument| argument.get_long() == Some(option))
    };
    let words = SAMPLE.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    let named: Vec<&str> = words.filter_map(|word| word.strip_prefix("--")).collect();
    assert!(named.len() > 20, "{named:?}");
    for option in named {
        assert!(exists(option), "--{option} does not exist");
    }
}

/// The very program that is installed as libvirt's hook, where no ledger knows the domain.
#[tokio::test]
async fn the_hook_that_is_installed_passes_its_own_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let run_dir = format!("ZHENGYUN_RUN_DIR={}", folder.path().display());
    let hook = env!("CARGO_BIN_EXE_zhengyun-qemu-hook");
    let command = ["/usr/bin/env", run_dir.as_str(), hook];
    let checked = agent::hook_check::check(&command, agent::hook_check::BOUND).await;
    assert_eq!(checked, Ok(()));
}
