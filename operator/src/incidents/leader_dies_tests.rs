//! The leader dies at every write of the ledger, just before the API server takes it and just after, and another one goes
//! on: the Incidents are in the end those of a site in which nobody died. Nothing is lost, and nothing is told twice.

use std::collections::BTreeSet;

use api::Incident;
use failover::severity::ReportedFault;
use jiff::Timestamp;
use model::{FaultKind, Severity};
use serde_json::{Value, json};

use super::in_memory::{Death, Plan, Play, Successor};
use super::world_in_memory::{World, wall};

const VMS: [&str; 2] = ["oa-web-0", "oa-web-1"];

/// How much two looks at a downtime may differ, seconds: tenths are stored, and a leader looks twice a second.
const TOLERANCE: f64 = 0.35;

/// Writes of a story at the least: it is made, told and closed, and something happens between.
const WRITES_LEAST: usize = 5;

/// What is compared of an Incident: all but its times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    cause: String,
    state: String,
    class: String,
    title: String,
    systems: Vec<String>,
    steps: Vec<String>,
}

/// A step without the time of a person's word, which differs from run to run.
fn timeless(step: &str) -> &str {
    let parts = step.rsplit_once('/');
    let dated = parts.filter(|(_, end)| end.parse::<Timestamp>().is_ok());
    dated.map_or(step, |(begin, _)| begin)
}

fn told(incident: &Incident) -> Told {
    let status = incident.status.clone().unwrap_or_default();
    let systems = status.systems.iter().map(|system| {
        let vms = system.virtual_machines.join(" ");
        format!("{}/{}: {vms}", system.namespace, system.name)
    });
    let mut steps: Vec<String> = status
        .timeline
        .iter()
        .map(|entry| format!("{:?} {}", entry.kind, timeless(&entry.step)))
        .collect();
    steps.sort_unstable();
    Told {
        cause: incident.spec.cause.clone(),
        state: status.state.clone(),
        class: format!("{:?}", incident.spec.cause_class),
        title: incident.spec.title.clone(),
        systems: systems.collect(),
        steps,
    }
}

fn lines(all: &[Told]) -> Vec<String> {
    let lines = all.iter().enumerate().flat_map(|(place, told)| {
        let Told {
            cause,
            state,
            class,
            title,
            ..
        } = told;
        let of_it = [format!("{state}, {class}: {title}")].into_iter();
        let of_it = of_it.chain(told.systems.clone()).chain(told.steps.clone());
        of_it.map(move |line| format!("{cause}, {place}: {line}"))
    });
    lines.collect()
}

/// What is lost and what is more than it should be. That a host came back is seen once, and told to nobody who begins
/// later; that it missed its first renewal nobody sees while nobody's renewals arrive.
fn differences(expected: &[Told], found: &[Told], plan: Plan) -> Vec<String> {
    let (expected, found) = (lines(expected), lines(found));
    let unseen = |line: &str| {
        let back = line.ends_with("/Seen/Returned") || line.ends_with("/Seen/Alive");
        let missed = line.ends_with("/Seen/MissedRenewal");
        (back && plan.successor == Successor::New) || (missed && plan.is_away)
    };
    let lost = expected
        .iter()
        .filter(|line| !found.contains(line) && !unseen(line));
    let more = found.iter().filter(|line| !expected.contains(line));
    let lost = lost.map(|line| format!("lost {line}"));
    lost.chain(more.map(|line| format!("more {line}")))
        .collect()
}

/// How a story ended.
struct Ended {
    told: Vec<Told>,
    writes: usize,
    wrong: Vec<String>,
    died: bool,
}

#[derive(Clone, Copy, Debug)]
enum Story {
    PowerLoss,
    Fault,
    Storm,
    Closure,
    /// A person's word, while its cause stands.
    ClosureOfASilence,
    ClosureOfAFault,
    Stall,
    Relapse,
}

const STORIES: [Story; 6] = [
    Story::PowerLoss,
    Story::Fault,
    Story::Storm,
    Story::Closure,
    Story::ClosureOfASilence,
    Story::ClosureOfAFault,
];

/// Stories in which what is short is told: nobody sees it while nobody leads for long.
const SHORT_STORIES: [Story; 2] = [Story::Stall, Story::Relapse];

/// Steps in which nobody leads: others wait so long for a silent leader.
const NOBODY: usize = 7;
/// And that nobody does because another one has to take over.
const SHORT: (usize, bool) = (NOBODY, false);
/// Many of them, and whether nobody leads because the API server is away.
const LONG: (usize, bool) = (90, false);
const AWAY: (usize, bool) = (90, true);

async fn play(story: Story, plan: Plan) -> Ended {
    let mut play = Play::new(plan).await;
    match story {
        Story::PowerLoss => power_loss(&mut play).await,
        Story::Fault => fault(&mut play).await,
        Story::Storm => storm(&mut play).await,
        Story::Closure => closure(&mut play).await,
        Story::ClosureOfASilence => closure_of_a_silence(&mut play).await,
        Story::ClosureOfAFault => closure_of_a_fault(&mut play).await,
        Story::Stall => stall(&mut play).await,
        Story::Relapse => relapse(&mut play).await,
    }
    let incidents = play.incidents();
    let mut all: Vec<Told> = incidents.iter().map(told).collect();
    all.sort_unstable();
    let mut wrong: Vec<String> = incidents.iter().flat_map(doubled).collect();
    wrong.extend(downtime(&incidents, &play.world, plan));
    Ended {
        told: all,
        writes: play.writes(),
        wrong,
        died: play.died(),
    }
}

/// Entries that stand twice, whatever their steps are called.
fn doubled(incident: &Incident) -> Vec<String> {
    let mut texts = BTreeSet::new();
    let timeline = incident.status.iter().flat_map(|status| &status.timeline);
    timeline
        .filter(|entry| {
            let figures = |letter: char| letter.is_ascii_digit() || letter == '.';
            !texts.insert((entry.step.clone(), entry.text.replace(figures, "")))
        })
        .map(|entry| format!("twice: {}", entry.text))
        .collect()
}

/// What is wrong with the downtime that was measured.
fn downtime(incidents: &[Incident], world: &World, plan: Plan) -> Vec<String> {
    let over = |(from, to): &(Timestamp, Option<Timestamp>)| {
        to.map(|to| to.duration_since(*from).as_secs_f64())
    };
    // One that never ends has no length.
    let Some(real) = world.outages.iter().map(over).sum::<Option<f64>>() else {
        return Vec::new();
    };
    let systems = incidents
        .iter()
        .flat_map(|incident| incident.status.iter())
        .flat_map(|status| &status.systems);
    let (mut down, mut unobserved) = (0.0, 0.0);
    for system in systems {
        down += system.downtime_seconds;
        unobserved += system.unobserved_seconds;
    }
    let begun_late = plan.successor == Successor::New;
    let known = down + if begun_late { unobserved } else { 0.0 };
    // Nothing was stored: to who begins then it begins then.
    let nothing = plan
        .death
        .is_some_and(|death| death.write == 0 && !death.arrived);
    let too_short = known < real - TOLERANCE && !(begun_late && nothing);
    if down > real + TOLERANCE || too_short {
        return vec![format!(
            "down {down} s, unobserved {unobserved} s instead of {real} s"
        )];
    }
    Vec::new()
}

fn proof(epoch: i64) -> Value {
    json!([{"kind": "PoweredOff", "host": "h1", "bootId": "b", "epoch": epoch, "evidence": "read Off twice"}])
}

/// A host and its BMC lose power; the BMC comes back first, and the host when its VMs run elsewhere.
async fn power_loss(play: &mut Play) {
    falls_silent(play).await;
    is_recovered(play).await;
}

async fn falls_silent(play: &mut Play) {
    play.then(|world| {
        world.falls_silent("h1");
        world.is("h1", "Unreachable");
        world.goes_down();
    })
    .await;
}

/// Its BMC reads Off, its VMs are started elsewhere, and it comes back.
async fn is_recovered(play: &mut Play) {
    runs_elsewhere(play).await;
    is_back(play).await;
}

async fn runs_elsewhere(play: &mut Play) {
    play.then(|world| {
        world.reads_off("h1");
        world.is("h1", "Fenced");
    })
    .await;
    play.then(|world| {
        for (vm, host) in VMS.into_iter().zip(["h2", "h3"]) {
            world.starts(vm, host, 2, proof(1));
        }
    })
    .await;
    play.then(|world| {
        for (vm, host) in VMS.into_iter().zip(["h2", "h3"]) {
            world.runs(vm, host, 2, proof(1));
        }
        world.comes_up();
    })
    .await;
}

async fn is_back(play: &mut Play) {
    play.then(|world| {
        world.boots("h1", "b2");
        world.is("h1", "Ready");
    })
    .await;
}

fn fan() -> Vec<ReportedFault> {
    vec![ReportedFault {
        component: "fan/1".to_owned(),
        kind: FaultKind::Fan,
        severity: Severity::Degraded,
        evidence: "0 rpm".to_owned(),
        last_seen_seconds: wall().as_second(),
    }]
}

/// A fan stands still, the host is emptied, and a person says that it was replaced.
async fn fault(play: &mut Play) {
    play.then(|world| world.reports("h1", fan())).await;
    play.then(|world| {
        world.evacuation(
            "h1",
            json!({"phase": "Running", "remaining": 2,
            "blocked": ["oa/oa-web-0: waits for its turn"]}),
        );
    })
    .await;
    play.then(|world| {
        let finished = wall().to_string();
        world.evacuation("h1", json!({"phase": "Done", "remaining": 0, "finishedAt": finished}));
        for vm in VMS {
            let proofs = json!([{"kind": "HandedOver", "host": "h1", "bootId": "b", "epoch": 1, "evidence": "moved"}]);
            world.runs(vm, "h2", 2, proofs);
        }
    })
    .await;
    play.then(|world| {
        let at = wall().to_string();
        world.word(
            "h1",
            "faultClearance",
            json!({"at": at, "by": "li", "reason": "new fan"}),
        );
    })
    .await;
    play.then(|world| world.reports("h1", vec![])).await;
}

/// Two hosts fall silent together, and a third one; all come back as they were.
async fn storm(play: &mut Play) {
    play.then(|world| {
        for host in ["h1", "h2"] {
            world.falls_silent(host);
            world.is(host, "Unreachable");
        }
        world.goes_down();
    })
    .await;
    play.then(|world| {
        world.falls_silent("h3");
        world.is("h3", "Unreachable");
    })
    .await;
    play.then(|world| {
        for host in ["h1", "h2", "h3"] {
            world.renews(host);
            world.is(host, "Ready");
        }
        world.comes_up();
    })
    .await;
}

fn broken() -> Value {
    json!({"by": "li", "reason": "its board is broken, as was known", "causeClass": "Planned"})
}

/// A person closes the Incident of a host that is silent; it loses its power, its VMs are started elsewhere, and it
/// comes back in the end.
async fn closure_of_a_silence(play: &mut Play) {
    falls_silent(play).await;
    play.closes(broken()).await;
    is_recovered(play).await;
}

/// A person closes the Incident of a fan that still stands still.
async fn closure_of_a_fault(play: &mut Play) {
    play.then(|world| world.reports("h1", fan())).await;
    play.closes(broken()).await;
    play.then(|world| world.evacuation("h1", json!({"phase": "Running", "remaining": 1})))
        .await;
    play.then(|world| {
        let finished = wall().to_string();
        world.evacuation(
            "h1",
            json!({"phase": "Done", "remaining": 0, "finishedAt": finished}),
        );
    })
    .await;
    play.then(|world| world.reports("h1", vec![])).await;
}

/// A host restarts, a system stays away, and a person closes the Incident.
async fn closure(play: &mut Play) {
    play.then(|world| {
        world.falls_silent("h1");
        world.reads_off("h1");
        world.is("h1", "Fenced");
        world.goes_down();
    })
    .await;
    play.then(|world| {
        world.boots("h1", "b2");
        world.is("h1", "Ready");
        for vm in VMS {
            world.runs(vm, "h2", 2, proof(1));
        }
    })
    .await;
    play.closes(
        json!({"by": "li", "reason": "an old fault of the system", "causeClass": "Hardware"}),
    )
    .await;
}

/// A host's storage does not answer it for a while, and a system there neither; nobody calls it a fault.
async fn stall(play: &mut Play) {
    play.then(|world| {
        world.pool_is("h1", "Slow");
        world.goes_down();
    })
    .await;
    play.then(|world| world.comes_up()).await;
    play.then(|world| world.pool_is("h1", "Ready")).await;
}

/// Of a host that lost its power a system answers elsewhere, and fails once more before the host is back.
async fn relapse(play: &mut Play) {
    falls_silent(play).await;
    runs_elsewhere(play).await;
    play.then(World::goes_down).await;
    play.then(World::comes_up).await;
    is_back(play).await;
}

fn undisturbed(late: bool) -> Plan {
    Plan {
        death: None,
        successor: Successor::Standby,
        late,
        nobody: NOBODY,
        is_away: false,
    }
}

/// The writes of a story, and what a death of the leader at any of them changes in its end.
async fn deaths(
    story: Story,
    (successor, (nobody, is_away)): (Successor, (usize, bool)),
    late: bool,
) -> (usize, Vec<String>) {
    let expected = play(story, undisturbed(late)).await;
    let mut failures = expected.wrong.clone();
    if expected.told.len() != 1 {
        failures.push(format!("{story:?}: one root cause, {:#?}", expected.told));
    }
    for write in 0..expected.writes {
        for arrived in [false, true] {
            let plan = Plan {
                death: Some(Death { write, arrived }),
                successor,
                late,
                nobody,
                is_away,
            };
            let ended = play(story, plan).await;
            assert!(ended.died, "{story:?} {plan:?}: nobody died");
            let mut wrong = differences(&expected.told, &ended.told, plan);
            wrong.extend(ended.wrong);
            if !wrong.is_empty() {
                failures.push(format!("{story:?} {plan:?}: {wrong:#?}"));
            }
        }
    }
    (expected.writes, failures)
}

/// Plays every story, with caches that are up to date and with ones that are a turn late.
async fn everywhere(successor: Successor, nobody: (usize, bool)) {
    let (mut tried, mut failures) = (0, Vec::new());
    let short = SHORT_STORIES.iter().filter(|_| nobody == SHORT);
    for story in STORIES.iter().chain(short).copied() {
        for late in [false, true] {
            let (writes, found) = deaths(story, (successor, nobody), late).await;
            assert!(writes >= WRITES_LEAST, "{story:?}: {writes} writes");
            tried += 2 * writes;
            failures.extend(found);
        }
    }
    println!("{successor:?}: {tried} deaths tried");
    let (failed, all) = (failures.len(), failures.join("\n"));
    assert!(failures.is_empty(), "{failed} of {tried} deaths:\n{all}");
}

#[tokio::test]
async fn a_leader_that_dies_at_any_write_is_followed_by_one_that_watched() {
    everywhere(Successor::Standby, SHORT).await;
}

#[tokio::test]
async fn a_leader_that_dies_at_any_write_is_followed_by_one_that_begins_then() {
    everywhere(Successor::New, SHORT).await;
}

#[tokio::test]
async fn a_leader_that_loses_its_lease_at_any_write_goes_on_when_it_leads_again() {
    everywhere(Successor::Itself, SHORT).await;
}

#[tokio::test]
async fn a_leader_that_loses_its_lease_for_long_at_any_write_goes_on_when_it_leads_again() {
    everywhere(Successor::Itself, LONG).await;
}

#[tokio::test]
async fn a_leader_that_dies_at_any_write_is_followed_long_after_by_one_that_watched() {
    everywhere(Successor::Standby, LONG).await;
}

#[tokio::test]
async fn a_leader_that_loses_the_api_server_for_long_at_any_write_goes_on_when_it_leads_again() {
    everywhere(Successor::Itself, AWAY).await;
}

#[tokio::test]
async fn a_leader_that_dies_as_the_api_server_goes_away_is_followed_by_one_that_watched() {
    everywhere(Successor::Standby, AWAY).await;
}

/// What is asserted of all stories is asserted of something.
#[tokio::test]
async fn the_stories_tell_what_they_are_to_tell() {
    for (story, state, class, steps) in [
        (Story::PowerLoss, "Closed", "Unknown", 8),
        (Story::Fault, "Closed", "Hardware", 8),
        (Story::Storm, "Closed", "Network", 15),
        (Story::Closure, "Closed", "Hardware", 5),
        (Story::ClosureOfASilence, "Closed", "Planned", 9),
        (Story::ClosureOfAFault, "Closed", "Planned", 6),
        (Story::Stall, "Closed", "Hardware", 1),
        (Story::Relapse, "Closed", "Unknown", 8),
    ] {
        let ended = play(story, undisturbed(false)).await;
        let [told] = ended.told.as_slice() else {
            panic!("{story:?}: {:?}", ended.told);
        };
        let found = (told.state.as_str(), told.class.as_str(), told.systems.len());
        assert_eq!(found, (state, class, 1), "{story:?}");
        assert!(told.steps.len() >= steps, "{story:?}: {:?}", told.steps);
    }
}
