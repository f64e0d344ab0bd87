//! Every BMC of every host is read when the host registers and once a day, whether or not anything
//! is wrong: one that fails is found before it is needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Condition, Host, NO_BMC};
use failover::host::machine::HostMachine;
use failover::proof::power::{PowerAnswer, PowerReading, PowerState, same_machine, together};
use failover::{Moment, Policy};
use kube::ResourceExt;
use model::HostName;

use super::{HostWatch, in_task, lock, power};
use crate::clock;
use crate::conditions::Judged;
use crate::runtime::Context;

/// How often BMCs that answered well are read, milliseconds: a day.
const EVERY: u64 = 86_400_000;
/// How often BMCs that failed are read again, milliseconds.
const AGAIN: u64 = 300_000;
/// Hosts that are test-read at once.
const AT_ONCE: usize = 8;

/// The last test-read of every BMC of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestRead {
    /// What was tested: incarnation and declaration.
    mark: String,
    /// When it last ended.
    ended_at: Option<Moment>,
    /// It is under way; what the one before found stands meanwhile.
    running: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
}

impl TestRead {
    /// Whether it has ended at least once.
    pub fn is_known(&self) -> bool {
        self.ended_at.is_some()
    }

    /// Whether it ended no sooner than something was seen.
    pub fn ended_since(&self, seen: Moment) -> bool {
        self.ended_at.is_some_and(|ended| ended >= seen)
    }

    /// `mute`: when its BMCs were last asked for the host's power in vain. Nobody asks them again once the host is back.
    /// `lies`: what they read is no proof before they have read On.
    fn is_due(&self, mark: &str, mute: Option<Moment>, lies: bool, now: Moment) -> bool {
        if self.mark != mark {
            return true;
        }
        let every = if self.problems.is_empty() && !lies {
            EVERY
        } else {
            AGAIN
        };
        let doubted =
            mute.is_some_and(|asked| !self.ended_since(asked) && now.since(asked) >= AGAIN);
        let passed = self.ended_at.is_none_or(|ended| now.since(ended) >= every);
        !self.running && (passed || doubted)
    }

    fn begin(&mut self, mark: String) {
        (self.mark, self.running) = (mark, true);
    }

    fn end(&mut self, problems: Vec<String>, now: Moment) {
        (self.problems, self.ended_at, self.running) = (problems, Some(now), false);
    }
}

/// Begins the test-reads that are due.
pub(super) fn turn(context: &Arc<Context>, hosts: &[Arc<Host>], now: Moment) {
    let mut watch = lock(context);
    let names: BTreeSet<HostName> = hosts.iter().map(|host| HostName(host.name_any())).collect();
    watch.tests.retain(|name, _| names.contains(name));
    let running = |test: &&TestRead| test.running;
    let mut places = AT_ONCE.saturating_sub(watch.tests.values().filter(running).count());
    for host in hosts {
        let registered = host
            .status
            .as_ref()
            .and_then(|status| status.accepted.as_ref());
        let Some(registered) = registered.filter(|_| !host.spec.bmcs.is_empty()) else {
            continue;
        };
        let name = HostName(host.name_any());
        let mark = format!("{}/{:?}", registered.boot_id, host.spec.bmcs);
        let mute = mute_since(&watch, &name);
        let lies = lies(&watch, &name);
        let due = watch
            .tests
            .get(&name)
            .is_none_or(|test| test.is_due(&mark, mute, lies, now));
        if !due || places == 0 {
            continue;
        }
        places -= 1;
        watch.tests.entry(name.clone()).or_default().begin(mark);
        let release = |watch: &mut HostWatch, name: &HostName| {
            if let Some(test) = watch.tests.get_mut(name) {
                let failed = "the test-read failed; see the operator's log".to_owned();
                test.end(vec![failed], clock::now());
            }
        };
        let (of_task, host, named) = (context.clone(), host.clone(), name.clone());
        in_task(context, "test-read", &named, release, async move {
            read_all(&of_task, &host, name).await;
        });
    }
}

async fn read_all(context: &Arc<Context>, host: &Host, name: HostName) {
    let uuid = power::uuid_of(host);
    let (mut problems, mut readings) = (Vec::new(), Vec::new());
    for (index, controller) in power::controllers(context, host)
        .await
        .into_iter()
        .enumerate()
    {
        let found = match power::one(controller, &uuid).await {
            Ok(reading) => {
                let problem = judge(reading.system_uuid.as_deref(), &uuid);
                readings.push((index, reading));
                problem
            }
            Err(error) => Some(error),
        };
        problems.extend(found.map(|problem| of_bmc(index, &problem)));
    }
    let contradiction = contradicting(&readings, &uuid);
    let contradicted = !contradiction.is_empty();
    problems.extend(contradiction);
    if !problems.is_empty() {
        tracing::warn!(host = %name, ?problems, "the test-read of its BMCs failed");
    }
    let mut watch = lock(context);
    if let Some(test) = watch.tests.get_mut(&name) {
        test.end(problems, clock::now());
    }
    // A BMC that reads Off of a host that lives is found out by the host's next renewals, before it is needed.
    let readings = readings.into_iter().map(|(_, reading)| reading).collect();
    // Of two that contradict each other Off is heard from both together only, from now on. A host that has fallen silent
    // meanwhile may just have gone off between the two readings.
    let contradicted = contradicted && !watch.is_silent(&name);
    let read = together(readings, host.spec.bmcs.len(), &uuid);
    let read = read.map(|read| PowerReading {
        contradicted,
        ..read
    });
    let known = watch.readings.get(&name).map(|known| known.sent_at);
    if let Some(read) = read.filter(|read| known.is_none_or(|known| read.sent_at > known)) {
        watch.readings.insert(name, read);
    }
}

fn of_bmc(index: usize, problem: &str) -> String {
    format!("spec.bmcs[{index}]: {problem}")
}

/// What is wrong with BMCs that read Off of a host that another one of its own reads On.
fn contradicting(readings: &[(usize, PowerReading)], uuid: &str) -> Vec<String> {
    let problem = "it reads Off, and another BMC of this host reads On: one of them is wrong; check spec.bmcs and the BMC";
    let states: Vec<_> = readings
        .iter()
        .map(|(index, one)| (*index, one.judge(uuid)))
        .collect();
    let is_on = states.iter().any(|(_, state)| *state == PowerState::On);
    let off = states
        .iter()
        .filter(|(_, state)| is_on && *state == PowerState::Off);
    off.map(|(index, _)| of_bmc(*index, problem)).collect()
}

/// Whether what the BMCs of a host read is no proof, as one of them read Off while the host lived.
pub(super) fn lies(watch: &HostWatch, name: &HostName) -> bool {
    let machine = watch.machines.machine(name);
    machine.is_some_and(HostMachine::bmc_lies)
}

/// When the BMCs of a host were last asked for its power, if none answered.
pub(super) fn mute_since(watch: &HostWatch, name: &HostName) -> Option<Moment> {
    let reading = watch.readings.get(name)?;
    (reading.answer == PowerAnswer::NoAnswer).then_some(reading.received_at)
}

/// Reason of `BmcReady` where a BMC read Off of a host that lived. The next operator that leads holds it for lying by this word.
const LIES: &str = "ReadOffWhileAlive";

/// Whether a host's status says that its BMC read Off while it lived.
pub(super) fn is_told_lying(known: &[Condition]) -> bool {
    let lies =
        |one: &Condition| one.type_ == "BmcReady" && one.status == "False" && one.reason == LIES;
    known.iter().any(lies)
}

/// Whether what the BMCs of a host read can be believed when it is needed, and what is wrong.
pub(super) fn judged(watch: &HostWatch, host: &Host, policy: &Policy) -> Judged {
    let bad = |reason: &str, why: String| Judged::new("BmcReady", false, reason, why);
    if host.spec.bmcs.is_empty() {
        let none = "spec.bmcs: none is declared, so this host can not be fenced";
        return bad(NO_BMC, none.to_owned());
    }
    let name = HostName(host.name_any());
    let test = watch.tests.get(&name).filter(|test| test.is_known());
    let problems = test.map_or(&[][..], |test| &test.problems);
    let machine = watch.machines.machine(&name);
    if machine.is_some_and(|machine| machine.tells_that_bmc_lies(policy, clock::now())) {
        // First, whatever else is wrong: it must outlive this operator.
        let lie = "its BMC read Off while this host lived: it is wrong or another host's, and proves nothing until every BMC of this host has read On; check spec.bmcs and the BMC";
        let all = std::iter::once(lie).chain(problems.iter().map(String::as_str));
        return bad(LIES, all.collect::<Vec<_>>().join("; "));
    }
    if !problems.is_empty() {
        return bad("NoAnswer", problems.join("; "));
    }
    // What a test-read found later counts.
    let mute = mute_since(watch, &name)
        .is_some_and(|asked| test.is_none_or(|test| !test.ended_since(asked)));
    if mute {
        let failed = "the last reading of its BMC failed: this host can not be fenced; check spec.bmcs, its Secret and the cable";
        return bad("NoAnswer", failed.to_owned());
    }
    let untested = test.is_none().then_some("not test-read yet");
    Judged::new("BmcReady", true, "Answers", untested.unwrap_or_default())
}

/// Whose BMC it is.
fn judge(reported: Option<&str>, registered: &str) -> Option<String> {
    match reported {
        Some(uuid) if same_machine(uuid, registered) => None,
        Some(uuid) => Some(format!(
            "it belongs to the machine with system UUID {uuid}, this host has {registered}; correct its address"
        )),
        None => {
            Some("it does not say which machine it belongs to, so it proves nothing".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use failover::host::fleet::ObserverFacts;
    use serde_json::json;

    use super::*;
    use crate::conditions::conditions;

    #[test]
    fn read_once_a_day_and_sooner_after_a_failure_or_a_change() {
        let mut test = TestRead::default();
        assert!(test.is_due("a", None, false, Moment(0)), "registered");
        test.begin("a".to_owned());
        assert!(
            !test.is_due("a", None, false, Moment(EVERY)),
            "one at a time"
        );
        test.end(vec![], Moment(0));
        assert!(!test.is_due("a", None, false, Moment(EVERY - 1)));
        assert!(
            test.is_due("a", None, false, Moment(EVERY))
                && test.is_due("b", None, false, Moment(1))
        );
        test.end(vec!["login".to_owned()], Moment(0));
        assert!(
            !test.is_due("a", None, false, Moment(AGAIN - 1))
                && test.is_due("a", None, false, Moment(AGAIN))
        );
        test.begin("a".to_owned());
        assert!(
            test.is_known() && test.problems == ["login"],
            "until it ends"
        );
        assert!(
            !test.is_due("a", None, false, Moment(2 * EVERY)),
            "one at a time"
        );
    }

    /// A host was silent, its BMC too, and both are back.
    #[test]
    fn a_bmc_that_was_mute_is_read_again_before_the_day_is_over() {
        let mut test = TestRead::default();
        test.begin("a".to_owned());
        test.end(vec![], Moment(0));
        let mute = Some(Moment(1_000));
        assert!(!test.ended_since(Moment(1_000)));
        assert!(
            !test.is_due("a", mute, false, Moment(999 + AGAIN)),
            "asked just now"
        );
        assert!(test.is_due("a", mute, false, Moment(1_000 + AGAIN)));
        test.end(vec![], Moment(1_000 + AGAIN));
        assert!(test.ended_since(Moment(1_000)));
        assert!(!test.is_due("a", mute, false, Moment(1_000 + 2 * AGAIN)));
    }

    /// A host with one BMC and these conditions.
    fn host(bmcs: serde_json::Value, conditions: &[Condition]) -> Host {
        let host = json!({
            "metadata": {"name": "h1"},
            "spec": {"pool": "p", "managementAddress": "10.0.0.1", "bmcs": bmcs},
            "status": {"conditions": conditions},
        });
        serde_json::from_value(host).expect("a host")
    }

    fn one_bmc() -> serde_json::Value {
        json!([{"protocol": "Redfish", "address": "10.0.9.1", "credentials": {"name": "bmc"}}])
    }

    /// What an operator makes of the conditions that it finds, after so many turns: the conditions that it writes.
    fn begins_with(known: &[Condition], leads: bool, turns: u32) -> Vec<Condition> {
        let policy = Policy::default();
        let mut watch = HostWatch::serving(&["h1".to_owned()], &policy);
        let host = host(one_bmc(), known);
        let told = is_told_lying(known);
        let facts = watch.facts.get_mut(&HostName::from("h1"));
        facts.expect("a host").bmc_told_lying = told;
        let observer = ObserverFacts {
            can_write: leads,
            hears: true,
            disarmed: false,
            frozen: false,
        };
        for _ in 0..turns {
            let HostWatch {
                machines, facts, ..
            } = &mut watch;
            let _ = machines.step(facts, observer, &policy, clock::now());
        }
        conditions(known, &[judged(&watch, &host, &policy)], None)
    }

    /// The lie that one operator found stands in the status under the next one, also beside what fails at once.
    #[test]
    fn a_lie_outlives_the_operator_that_found_it() {
        let lie = |message: &str| Judged::new("BmcReady", false, LIES, message);
        let known = conditions(&[], &[lie("found by another")], None);
        for leads in [false, true] {
            let shown = begins_with(&known, leads, 3);
            assert!(is_told_lying(&shown), "{shown:?}");
            assert_eq!(shown[0].last_transition_time, known[0].last_transition_time);
        }
        let mute = Judged::new("BmcReady", false, "NoAnswer", "refuses the login");
        let mute = conditions(&[], &[mute], None);
        assert!(!is_told_lying(&begins_with(&mute, true, 3)));
    }

    #[test]
    fn a_host_that_declares_no_bmc_says_so() {
        let none = judged(
            &HostWatch::default(),
            &host(json!([]), &[]),
            &Policy::default(),
        );
        assert!(!none.good && none.reason == NO_BMC, "{none:?}");
        let one = judged(
            &HostWatch::default(),
            &host(one_bmc(), &[]),
            &Policy::default(),
        );
        assert!(one.good, "{one:?}");
    }

    #[test]
    fn another_machines_bmc_is_named() {
        let own = "11111111-2222-3333-4444-555555555555";
        assert_eq!(judge(Some(own), own), None);
        let problem = judge(Some("99999999-2222-3333-4444-555555555555"), own).expect("another");
        assert!(
            problem.contains("99999999") && problem.contains(own),
            "{problem}"
        );
        assert!(judge(None, own).is_some());
    }
    #[test]
    fn a_bmc_that_contradicts_another_of_its_host_is_named() {
        let own = "11111111-2222-3333-4444-555555555555";
        let other = "99999999-2222-3333-4444-555555555555";
        let named = |answers: &[(PowerAnswer, &str)]| {
            let reading = |(answer, uuid): &(PowerAnswer, &str)| PowerReading {
                answer: answer.clone(),
                system_uuid: Some((*uuid).to_owned()),
                unanimous: false,
                contradicted: false,
                sent_at: Moment(1),
                received_at: Moment(2),
            };
            let readings: Vec<_> = answers.iter().map(reading).enumerate().collect();
            contradicting(&readings, own)
        };
        let (on, off) = (PowerAnswer::On, PowerAnswer::Off);
        let [problem] = &named(&[(on.clone(), own), (off.clone(), own)])[..] else {
            panic!("one of them reads Off");
        };
        assert!(
            problem.starts_with("spec.bmcs[1]: it reads Off"),
            "{problem}"
        );
        for well in [
            &[(on.clone(), own), (on.clone(), own)][..],
            &[(off.clone(), own), (off.clone(), own)],
            &[(on.clone(), other), (off.clone(), own)],
            &[(on, own), (off, other)],
            &[],
        ] {
            assert!(named(well).is_empty(), "{well:?}");
        }
    }
}
