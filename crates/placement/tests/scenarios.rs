//! Plays every directory of `scenarios/`: a story (README.md), a fleet and questions
//! (fleet.yaml), and the answers (expected). Every plan and every state is linted on the way.
//!
//! To see what an answer has become, compare the printed text; to accept it after reading it,
//! run once with `SCENARIOS_WRITE=1`. A missing `expected` fails.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use model::{Architecture, HostName, NamespacedName, Priority, VmUid, Zone};
use placement::{
    Engine, EvacuationRequest, Fleet, Goal, Headroom, Host, Limits, Mode, Plan, Pool,
    RebalanceRequest, Survival, Vm, lint, lint_plan, plan_evacuation, plan_rebalance, room_left,
};
use serde::Deserialize;

const GIB: u64 = 1 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(default)]
    pools: BTreeMap<String, PoolText>,
    hosts: BTreeMap<String, HostText>,
    vms: BTreeMap<String, VmText>,
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    ask: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PoolText {
    zones: BTreeSet<Zone>,
    architecture: Architecture,
    cpu_percent: u64,
    failures: u32,
    grade: i32,
}

impl Default for PoolText {
    fn default() -> Self {
        Self {
            zones: BTreeSet::from([Zone::Common]),
            architecture: Architecture::x86_64,
            cpu_percent: 400,
            failures: 1,
            grade: 3,
        }
    }
}

/// Memory in GiB.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostText {
    pool: String,
    cpu: u64,
    memory: u64,
    closed: Option<String>,
    storage: BTreeSet<String>,
    network: bool,
    rack: Option<String>,
    /// GiB per second.
    link: u64,
}

impl Default for HostText {
    fn default() -> Self {
        Self {
            pool: "main".into(),
            cpu: 16,
            memory: 32,
            closed: None,
            storage: BTreeSet::from(["shared".into()]),
            network: true,
            rack: None,
            link: 1,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VmText {
    cpu: u64,
    memory: u64,
    on: Option<String>,
    to: Option<String>,
    zones: BTreeSet<Zone>,
    architecture: Architecture,
    storage: BTreeSet<String>,
    pinned: Option<String>,
    grade: i32,
    apart: Option<String>,
    restarts: bool,
    priority: Priority,
    /// MiB written per second.
    dirty: u64,
    moved_minutes_ago: Option<u64>,
}

impl Default for VmText {
    fn default() -> Self {
        Self {
            cpu: 2,
            memory: 8,
            on: None,
            to: None,
            zones: BTreeSet::from([Zone::Common]),
            architecture: Architecture::x86_64,
            storage: BTreeSet::from(["shared".into()]),
            pinned: None,
            grade: 2,
            apart: None,
            restarts: true,
            priority: Priority::Normal,
            dirty: 0,
            moved_minutes_ago: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Place(String),
    Batch(Vec<String>),
    Headroom(String),
    RoomLeft(Vec<(String, u64, u64)>),
    Evacuate(BTreeSet<String>),
    Balance(String),
    Consolidate(String),
}

impl Scenario {
    fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::default();
        let standard = PoolText::default();
        let pools = self.pools.iter().map(|(name, pool)| (name.as_str(), pool));
        for (name, pool) in [("main", &standard)].into_iter().chain(pools) {
            fleet.pools.insert(
                name.into(),
                Pool {
                    zones: pool.zones.clone(),
                    architecture: pool.architecture,
                    cpu_overcommit_percent: pool.cpu_percent,
                    memory_overcommit_percent: 100,
                    failures_to_tolerate: pool.failures,
                    mlps_grade: pool.grade,
                },
            );
        }
        for (name, host) in &self.hosts {
            let rack = host.rack.iter().cloned();
            fleet
                .racks
                .extend(rack.map(|rack| (HostName(name.clone()), rack)));
            fleet.hosts.insert(
                HostName(name.clone()),
                Host {
                    pool: host.pool.clone(),
                    closed: host.closed.clone(),
                    stands: host.closed.is_none(),
                    cpu: host.cpu,
                    memory_bytes: host.memory * GIB,
                    storage_pools: host.storage.clone(),
                    has_network: host.network,
                },
            );
        }
        for (name, vm) in &self.vms {
            fleet.vms.insert(
                VmUid(name.clone()),
                Vm {
                    name: NamespacedName::new("story", name),
                    cpu: vm.cpu,
                    memory_bytes: vm.memory * GIB,
                    zones: vm.zones.clone(),
                    architecture: vm.architecture,
                    storage_pools: vm.storage.clone(),
                    pinned_to: vm.pinned.clone().map(HostName),
                    mlps_grade: vm.grade,
                    apart: vm.apart.clone(),
                    restarts_elsewhere: vm.restarts,
                    host: vm.on.clone().map(HostName),
                    incoming: vm.to.clone().map(HostName),
                },
            );
        }
        fleet
    }

    fn limits(&self) -> Limits {
        Limits {
            links: self
                .hosts
                .iter()
                .map(|(name, host)| (HostName(name.clone()), host.link * GIB))
                .collect(),
            ..Limits::default()
        }
    }

    fn dirty(&self) -> BTreeMap<VmUid, u64> {
        self.vms
            .iter()
            .map(|(name, vm)| (VmUid(name.clone()), vm.dirty << 20))
            .collect()
    }

    fn play(&self) -> String {
        let mut engine = Engine::new(self.fleet());
        let mut told = String::new();
        for ask in &self.ask {
            match ask {
                Ask::Place(name) => {
                    let uid = VmUid(name.clone());
                    let answer = engine.place(&uid, &BTreeSet::new());
                    tell_choice(&mut told, &uid, &answer);
                    if let Ok(choice) = answer {
                        engine.assign(&uid, &choice.host);
                    }
                }
                Ask::Batch(names) => {
                    let pending: Vec<_> = names
                        .iter()
                        .map(|name| (self.vms[name].priority, VmUid(name.clone())))
                        .collect();
                    for (uid, answer) in engine.place_batch(&pending) {
                        tell_choice(&mut told, &uid, &answer);
                    }
                }
                Ask::Headroom(pool) => tell_headroom(&mut told, &mut engine, pool),
                Ask::RoomLeft(sizes) => {
                    let sizes: Vec<_> = sizes
                        .iter()
                        .map(|(name, cpu, memory)| (name.clone(), *cpu, memory * GIB))
                        .collect();
                    for left in room_left(engine.fleet(), "main", &sizes) {
                        writeln!(told, "room for {} more of {}", left.more, left.name).unwrap();
                    }
                }
                Ask::Evacuate(hosts) => {
                    let request = EvacuationRequest {
                        hosts: hosts.iter().cloned().map(HostName).collect(),
                        limits: self.limits(),
                        dirty_bytes_per_second: self.dirty(),
                        priorities: self
                            .vms
                            .iter()
                            .map(|(name, vm)| (VmUid(name.clone()), vm.priority))
                            .collect(),
                        ..EvacuationRequest::default()
                    };
                    let plan = plan_evacuation(engine.fleet(), &request);
                    tell_plan(&mut told, engine.fleet(), &request.limits, &plan);
                    writeln!(
                        told,
                        "ends at {}, no plan of these moves before {}",
                        seconds(plan.end_ms),
                        seconds(plan.bound_ms)
                    )
                    .unwrap();
                }
                Ask::Balance(pool) => self.rebalance(&mut told, &engine, pool, Goal::Balance),
                Ask::Consolidate(pool) => {
                    self.rebalance(&mut told, &engine, pool, Goal::Consolidate)
                }
            }
            assert_eq!(lint(engine.fleet()), vec![]);
        }
        told
    }

    fn rebalance(&self, told: &mut String, engine: &Engine, pool: &str, goal: Goal) {
        let now_s = 1_000_000;
        let moved = self.vms.iter().filter_map(|(name, vm)| {
            Some((VmUid(name.clone()), now_s - vm.moved_minutes_ago? * 60))
        });
        let request = RebalanceRequest {
            goal,
            mode: Mode::Normal,
            moved_at_s: moved.collect(),
            now_s,
            limits: self.limits(),
            ..RebalanceRequest::new(pool)
        };
        let answer = plan_rebalance(engine.fleet(), &request);
        tell_plan(told, engine.fleet(), &request.limits, &answer.plan);
        for name in &answer.emptied {
            writeln!(told, "{name} is empty").unwrap();
        }
        writeln!(
            told,
            "{}: imbalance {} -> {} per mille",
            answer.why, answer.before_permille, answer.after_permille
        )
        .unwrap();
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1_000, milliseconds % 1_000 / 100)
}

fn tell_choice(
    told: &mut String,
    uid: &VmUid,
    answer: &Result<placement::Choice, placement::Refusal>,
) {
    match answer {
        Ok(choice) => writeln!(
            told,
            "{uid} -> {}: {}",
            choice.host,
            choice.reasons.join("; ")
        ),
        Err(refusal) => writeln!(told, "{uid} waits: {}", refusal.sentence()),
    }
    .unwrap();
}

fn tell_headroom(told: &mut String, engine: &mut Engine, pool: &str) {
    let Some(report) = engine.headroom_report(pool) else {
        return writeln!(told, "pool {pool} is unknown").unwrap();
    };
    let sentence = match &report.headroom {
        Headroom::Proven => "N+1 is proven".to_owned(),
        Headroom::Broken { failure, vm } => {
            format!("N+1 is broken: if {failure} failed, {vm} would find no place")
        }
        Headroom::Unknown { failure } => format!("N+1 is unknown for {failure}"),
        Headroom::NotPromised => "N+1 is not promised".to_owned(),
    };
    writeln!(told, "{sentence}").unwrap();
    for told_of in report.racks.iter().chain(report.most_dangerous()) {
        let survival = match &told_of.survival {
            Survival::Proven => "survived".to_owned(),
            Survival::Unknown => "unknown".to_owned(),
            Survival::Broken(vm) => format!("not survived by {vm}"),
        };
        let (failure, lost, fills) = (&told_of.failure, told_of.lost_vms, told_of.fills_permille);
        writeln!(
            told,
            "{failure}: {survival}; VMs lost: {lost}, filling {fills} per mille of the room elsewhere"
        )
        .unwrap();
    }
    for uid in report.outside {
        writeln!(told, "{uid} stands outside").unwrap();
    }
}

fn tell_plan(told: &mut String, fleet: &Fleet, limits: &Limits, plan: &Plan) {
    assert_eq!(lint_plan(fleet, limits, plan), vec![]);
    for step in &plan.moves {
        let (start, end) = (seconds(step.start_ms), seconds(step.end_ms));
        let after: Vec<_> = step.after.iter().map(ToString::to_string).collect();
        let after = if after.is_empty() {
            String::new()
        } else {
            format!(", after {}", after.join(" "))
        };
        writeln!(
            told,
            "{start} - {end}: {} {} -> {}{after} ({})",
            step.vm, step.from, step.to, step.reason
        )
        .unwrap();
    }
    for stuck in &plan.stuck {
        writeln!(told, "{} stays on {}: {}", stuck.vm, stuck.host, stuck.why).unwrap();
    }
    for uid in &plan.leaving {
        writeln!(told, "{uid} leaves already").unwrap();
    }
}

#[test]
fn every_story_ends_as_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut stories: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    stories.sort();
    assert!(stories.len() >= 30, "{} stories", stories.len());
    let mut wrong = Vec::new();
    for story in stories {
        let text = std::fs::read_to_string(story.join("fleet.yaml")).unwrap();
        assert!(
            story.join("README.md").exists(),
            "{} has no README",
            story.display()
        );
        let scenario: Scenario = serde_yaml::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", story.display()));
        let told = scenario.play();
        if std::env::var_os("SCENARIOS_WRITE").is_some() {
            std::fs::write(story.join("expected"), &told).unwrap();
        }
        let expected = std::fs::read_to_string(story.join("expected")).unwrap_or_default();
        if told != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- told\n{told}",
                story.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
