//! How fast guests write to their memory, for the times that plans of moves tell. Sampled rarely, one VM at a time, and told
//! when it has changed much: it is for reckoning, and nothing is decided by it here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use api::{RuntimePhase, VirtualMachine};
use hypervisor::Error;
use kube::runtime::reflector::ObjectRef;
use model::Epoch;
use serde_json::json;
use uuid::Uuid;

use crate::agent::Context;
use crate::vm::worker;

/// Between two samples of one VM.
const EVERY: Duration = Duration::from_secs(300);
/// From when a guest is first seen to run here to its first sample: one that boots writes as it never does again.
const SETTLES: Duration = Duration::from_secs(60);
/// How often it is looked whose turn it is.
const LOOK: Duration = Duration::from_secs(2);
/// Rates below this count alike, MiB per second, as they differ by chance: of each GiB 512 pages are sampled, so one page
/// found written stands for 2 MiB per second, and these for eight.
const LITTLE: i32 = 16;

/// A VM's uid and the epoch under which it runs: one that was started anew is another guest.
type Guest = (String, Epoch);

/// What was last sampled of the VMs that run here, by domain, MiB per second.
#[derive(Default)]
pub struct DirtyRates(Mutex<BTreeMap<Uuid, u64>>);

impl DirtyRates {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Uuid, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As they stand.
    pub fn current(&self) -> BTreeMap<Uuid, u64> {
        self.all().clone()
    }

    fn keep_only(&self, guests: &[Guest]) {
        let is_here = |uuid: &Uuid| (guests.iter()).any(|(uid, _)| *uid == uuid.to_string());
        self.all().retain(|uuid, _| is_here(uuid));
    }
}

/// Samples for ever.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let (mut turns, mut last_failure) = (Turns::default(), None);
    loop {
        tokio::time::sleep(LOOK).await;
        let vms = candidates(context);
        let guests: Vec<Guest> = vms.iter().filter_map(|vm| guest(vm)).collect();
        context.dirty_rates.keep_only(&guests);
        let Some(next) = turns.next(guests, Instant::now()) else {
            continue;
        };
        let vm = vms.iter().find(|vm| guest(vm).as_ref() == Some(&next));
        if let Some(vm) = vm
            && let Err(error) = one(context, vm, &mut last_failure).await
        {
            let (name, error) = (&vm.metadata.name, format!("{error:#}"));
            tracing::warn!(
                vm = name,
                error,
                "its dirty rate is told with the next sample"
            );
        }
        turns.sampled(next, Instant::now());
    }
}

/// VMs that run here and stay here, as far as the caches know.
fn candidates(context: &Context) -> Vec<Arc<VirtualMachine>> {
    let assigned = context.view.assigned.state().into_iter();
    assigned.filter(|vm| is_candidate(context, vm)).collect()
}

fn is_candidate(context: &Context, vm: &VirtualMachine) -> bool {
    let uid = vm.metadata.uid.as_deref().unwrap_or_default();
    context.freezer.acts() && runs_and_stays(vm) && !context.moves.is_moving(uid)
}

/// Whether it runs as its host was told to, and is neither moved nor on its way out.
fn runs_and_stays(vm: &VirtualMachine) -> bool {
    let Some(status) = &vm.status else {
        return false;
    };
    let (Some(right), Some(runtime)) = (&status.assignment, &status.runtime) else {
        return false;
    };
    runtime.assignment == *right
        && runtime.phase == RuntimePhase::Running
        && status.incoming.is_none()
        && vm.metadata.deletion_timestamp.is_none()
}

fn guest(vm: &VirtualMachine) -> Option<Guest> {
    let right = vm.status.as_ref()?.assignment.as_ref()?;
    Some((vm.metadata.uid.clone()?, right.epoch))
}

/// When each guest is sampled next.
#[derive(Default)]
struct Turns(BTreeMap<Guest, Instant>);

impl Turns {
    /// Whose turn it is: of those that are due the one that has waited longest. Who is not named any more is forgotten.
    fn next(&mut self, guests: Vec<Guest>, now: Instant) -> Option<Guest> {
        self.0.retain(|guest, _| guests.contains(guest));
        for guest in guests {
            self.0.entry(guest).or_insert(now + SETTLES);
        }
        let due = self.0.iter().filter(|(_, at)| **at <= now);
        let first = due.min_by_key(|(_, at)| **at);
        first.map(|(guest, _)| guest.clone())
    }

    fn sampled(&mut self, guest: Guest, now: Instant) {
        self.0.insert(guest, now + EVERY);
    }
}

/// Samples one VM, and tells what is news. What the hypervisor can not tell is absent, and said once in the log.
async fn one(
    context: &Context,
    vm: &VirtualMachine,
    last_failure: &mut Option<Error>,
) -> Result<()> {
    let uuid: Uuid = vm.metadata.uid.as_deref().unwrap_or_default().parse()?;
    let sampled = context.hypervisor.dirty_rate(uuid).await;
    let current = context.view.assigned.get(&ObjectRef::from_obj(vm));
    let same = |now: &Arc<VirtualMachine>| guest(now) == guest(vm) && is_candidate(context, now);
    let Some(vm) = current.filter(same) else {
        // It began to move or ended meanwhile: then what was seen is of no guest that is here.
        return Ok(());
    };
    let rate = match sampled {
        Ok(rate) => {
            *last_failure = None;
            context.dirty_rates.all().insert(uuid, rate);
            Some(i32::try_from(rate).unwrap_or(i32::MAX))
        }
        // It has just ended or stands still, or nobody could be asked: of its writes nothing was learnt.
        Err(Error::NotFound(_) | Error::Refused { .. } | Error::Disconnected(_)) => return Ok(()),
        Err(error) => {
            if last_failure.as_ref() != Some(&error) {
                tracing::warn!(%error, "how fast VMs write to their memory is not known");
            }
            *last_failure = Some(error);
            context.dirty_rates.all().remove(&uuid);
            None
        }
    };
    let runtime = vm
        .status
        .as_ref()
        .and_then(|status| status.runtime.as_ref());
    let told = runtime.and_then(|runtime| runtime.dirty_mebibytes_per_second);
    match is_news(told, rate) {
        true => tell(context, &vm, rate).await,
        false => Ok(()),
    }
}

/// Whether a rate is told: it has appeared, disappeared, or changed by a factor of two, MiB per second. With thousands of
/// VMs each write counts, and a plan is not worth more.
fn is_news(told: Option<i32>, seen: Option<i32>) -> bool {
    match (told, seen) {
        (None, None) => false,
        (Some(told), Some(seen)) => {
            let (less, more) = (told.min(seen).max(LITTLE), told.max(seen).max(LITTLE));
            more / 2 >= less
        }
        _ => true,
    }
}

/// Adds the rate to the report that it was sampled for, and to no other: the write names the version that was looked at.
async fn tell(context: &Context, vm: &VirtualMachine, rate: Option<i32>) -> Result<()> {
    let metadata = &vm.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": metadata.resource_version},
        "status": {"runtime": {"dirtyMebibytesPerSecond": rate}}});
    let name = metadata.name.as_deref().unwrap_or_default();
    worker::merge(context, (namespace, name), &patch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_when_it_changed_by_a_factor_of_two_and_not_for_chance() {
        for (told, seen, news) in [
            (None, None, false),
            (None, Some(0), true),
            (Some(0), None, true),
            (Some(100), Some(100), false),
            (Some(100), Some(199), false),
            (Some(100), Some(200), true),
            (Some(100), Some(51), false),
            (Some(100), Some(50), true),
            // Single pages.
            (Some(0), Some(31), false),
            (Some(31), Some(0), false),
            (Some(0), Some(32), true),
            (Some(32), Some(0), true),
            (Some(i32::MAX), Some(i32::MAX - 1), false),
            (Some(0), Some(i32::MAX), true),
        ] {
            assert_eq!(is_news(told, seen), news, "{told:?} {seen:?}");
        }
    }

    #[test]
    fn each_guest_has_its_turn_when_it_has_settled_and_then_now_and_then() {
        let guest = |uid: &str, epoch| (uid.to_owned(), Epoch(epoch));
        let (a, b) = (guest("a", 1), guest("b", 1));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut turns = Turns::default();
        let next = |turns: &mut Turns, guests: &[&Guest], seconds| {
            let guests = guests.iter().map(|guest| (*guest).clone());
            turns.next(guests.collect(), at(seconds))
        };
        assert_eq!(next(&mut turns, &[&a], 0), None, "it boots");
        assert_eq!(next(&mut turns, &[&a, &b], 30), None);
        assert_eq!(next(&mut turns, &[&a, &b], 95), Some(a.clone()));
        turns.sampled(a.clone(), at(97));
        assert_eq!(next(&mut turns, &[&a, &b], 97), Some(b.clone()));
        turns.sampled(b.clone(), at(99));
        assert_eq!(next(&mut turns, &[&a, &b], 396), None);
        assert_eq!(next(&mut turns, &[&a, &b], 397), Some(a.clone()));
        // Started anew, it is another guest; while it is moved it is not named.
        let anew = guest("a", 2);
        assert_eq!(next(&mut turns, &[&anew], 398), None);
        assert_eq!(next(&mut turns, &[&anew, &b], 400), None, "b came back");
        assert_eq!(next(&mut turns, &[&anew, &b], 458), Some(anew));
    }

    #[test]
    fn only_a_vm_that_runs_and_stays_is_sampled() {
        let vm = |change: fn(&mut serde_json::Value)| -> VirtualMachine {
            let right = json!({"host": "h1", "bootId": "b", "epoch": 3});
            let mut vm = json!({"metadata": {"name": "v", "uid": "u"},
                "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
                "status": {"assignment": right, "runtime": {"assignment": right, "phase": "Running",
                    "since": "2026-01-01T00:00:00Z"}}});
            change(&mut vm);
            serde_json::from_value(vm).expect("a VM")
        };
        assert!(runs_and_stays(&vm(|_| ())));
        assert_eq!(guest(&vm(|_| ())), Some(("u".to_owned(), Epoch(3))));
        let others: [fn(&mut serde_json::Value); 5] = [
            |vm| vm["status"]["incoming"] = json!({"host": "h2", "bootId": "b", "epoch": 4}),
            |vm| vm["status"]["runtime"]["phase"] = json!("Stalled"),
            |vm| vm["status"]["runtime"]["assignment"]["epoch"] = json!(2),
            |vm| vm["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            |vm| vm["status"] = serde_json::Value::Null,
        ];
        for other in others {
            assert!(!runs_and_stays(&vm(other)));
        }
    }
}
