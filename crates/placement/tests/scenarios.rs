//! Plays every directory of `scenarios/`: a story (README.md), a fleet and questions
//! (fleet.yaml), and the answers (expected). Every plan and every state is linted on the way.
//!
//! To see what an answer has become, compare the printed text; to accept it after reading it,
//! run once with `SCENARIOS_WRITE=1`. A missing `expected` fails.
#![allow(clippy::unwrap_used)]

mod story;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use model::{HostName, VmUid};
use placement::{
    Admission, Engine, EvacuationRequest, Failure, Fleet, Goal, Headroom, Limits, Mode, Plan,
    RebalanceRequest, Survival, lint, lint_change, lint_plan, place, plan_evacuation,
    plan_rebalance, room_left,
};
use story::{Ask, GIB, Scenario};

impl Scenario {
    fn play(&self) -> String {
        let mut engine = Engine::new(self.fleet());
        let mut told = String::new();
        // A story may begin with what is wrong already: rules that were changed under running VMs.
        let before = lint(engine.fleet());
        for ask in &self.ask {
            match ask {
                Ask::Place(name) => {
                    let uid = VmUid(name.clone());
                    let answer = engine.place(&uid, &BTreeSet::new());
                    let defined = place(engine.fleet(), &uid, &BTreeSet::new());
                    assert_eq!(answer, defined);
                    tell_choice(&mut told, &uid, &answer);
                    if let Ok(choice) = answer {
                        engine.assign(&uid, &choice.host);
                    }
                }
                Ask::Admit(name) => {
                    let uid = VmUid(name.clone());
                    let answer = engine.admit(&uid, &BTreeSet::new());
                    tell_admission(&mut told, &uid, answer);
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
                        fixed: self
                            .vms
                            .iter()
                            .filter_map(|(name, vm)| Some((VmUid(name.clone()), vm.fixed.clone()?)))
                            .collect(),
                        idle: self
                            .vms
                            .iter()
                            .filter(|(_, vm)| vm.idle)
                            .map(|(name, _)| VmUid(name.clone()))
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
                    self.rebalance(&mut told, &engine, pool, Goal::Consolidate(BTreeSet::new()))
                }
            }
            let mut after = lint(engine.fleet());
            after.retain(|violation| !before.contains(violation));
            after.extend(lint_change(&self.fleet(), engine.fleet()));
            assert_eq!(after, vec![]);
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

fn tell_admission(told: &mut String, uid: &VmUid, answer: Admission) {
    match answer {
        Admission::Placed(choice) => tell_choice(told, uid, &Ok(choice)),
        Admission::Refused(refusal) => tell_choice(told, uid, &Err(refusal)),
        Admission::Breaks {
            pool,
            headroom,
            tried,
            refusal,
        } => {
            let why = match headroom {
                Headroom::Broken { failure, vm } => {
                    format!("if {failure} failed, {vm} would find no place")
                }
                other => format!("{other:?}"),
            };
            let (tried, removed) = (tried.sentence(), refusal.lines().join("; "));
            writeln!(
                told,
                "{uid} waits: N+1 of {pool} would break: {why}; {tried} ({removed})"
            )
            .unwrap();
        }
    }
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
    let worst = report.most_dangerous();
    let host = worst.filter(|worst| matches!(worst.failure, Failure::Host(_)));
    for told_of in report.racks.iter().chain(host) {
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
    if let Some(rack) = worst.filter(|_| host.is_none()) {
        writeln!(told, "most dangerous: {}", rack.failure).unwrap();
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
    for uid in &plan.idle {
        writeln!(told, "{uid} does not run and keeps its seat").unwrap();
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
