//! Every BMC of every host is read when the host registers and once a day, whether or not anything
//! is wrong: one that fails is found before it is needed.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Host;
use failover::Moment;
use failover::host::machine::HostMachine;
use failover::proof::power::{PowerAnswer, same_machine};
use kube::ResourceExt;
use model::HostName;

use super::{HostWatch, in_task, lock, power};
use crate::clock;
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
                readings.push(reading);
                problem
            }
            Err(error) => Some(error),
        };
        problems.extend(found.map(|problem| format!("spec.bmcs[{index}]: {problem}")));
    }
    if !problems.is_empty() {
        tracing::warn!(host = %name, ?problems, "the test-read of its BMCs failed");
    }
    let mut watch = lock(context);
    if let Some(test) = watch.tests.get_mut(&name) {
        test.end(problems, clock::now());
    }
    // A BMC that reads Off of a host that lives is found out by the host's next renewals, before it is needed.
    let read = (readings.into_iter()).max_by_key(|reading| power::weight(reading, &uuid));
    let known = watch.readings.get(&name).map(|known| known.sent_at);
    if let Some(read) = read.filter(|read| known.is_none_or(|known| read.sent_at > known)) {
        watch.readings.insert(name, read);
    }
}

/// Whether the BMC of a host read Off while the host lived, and has not read On since.
pub(super) fn lies(watch: &HostWatch, name: &HostName) -> bool {
    let machine = watch.machines.machine(name);
    machine.is_some_and(HostMachine::bmc_lies)
}

/// When the BMCs of a host were last asked for its power, if none answered.
pub(super) fn mute_since(watch: &HostWatch, name: &HostName) -> Option<Moment> {
    let reading = watch.readings.get(name)?;
    (reading.answer == PowerAnswer::NoAnswer).then_some(reading.received_at)
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
    use super::*;

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
}
