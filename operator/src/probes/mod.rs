//! Probes of endpoints: replicas at their own addresses, over the business network. Each endpoint is
//! probed once a second, five times while something happens to its system; replicas that answer
//! take turns, those that do not are probed every time. What they saw is kept in `seen`.

mod ask;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Endpoint, RuntimePhase, VirtualMachine, VirtualMachineStatus};
use failover::Moment;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::task::JoinHandle;

use crate::runtime::Context;
use crate::{clock, on_panic};
pub use seen::{Downtime, Seen};
use seen::{EndpointState, Replica, measure, without_former};

/// How long a system is looked at closely after the last thing that happened to it.
const CLOSE_FOR: u64 = 10_000;
/// An endpoint that would be due within so many milliseconds is probed now.
const EARLY: u64 = 50;
/// Probes of one replica that wait for an answer at once. One that is lost may not hold up the next: the
/// end of a downtime is to be seen to within an interval.
const UNDER_WAY_MAX: usize = 8;
/// When probes of a host's VMs were sent and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostProbes {
    /// The latest.
    pub sent: Option<Moment>,
    /// The latest that was answered, be it with an error.
    pub answered: Option<Moment>,
}

#[derive(Default)]
struct Memory {
    endpoints: BTreeMap<String, EndpointState>,
    hosts: BTreeMap<String, HostProbes>,
    under_way: BTreeMap<String, usize>,
    /// Until when a system is looked at closely, by namespace and name.
    close: BTreeMap<(String, String), Moment>,
}

impl Memory {
    /// One probe less is under way.
    fn ended(&mut self, mark: &str) {
        let left = self.under_way.remove(mark).unwrap_or(1) - 1;
        if left > 0 {
            self.under_way.insert(mark.to_owned(), left);
        }
    }
}

/// What probes saw.
#[derive(Clone, Default)]
pub struct Probes(Arc<Mutex<Memory>>);

/// Key of an endpoint.
pub fn endpoint_key(system: &BusinessSystem, endpoint: &Endpoint) -> String {
    format!(
        "{}/{}/{}",
        system.namespace().unwrap_or_default(),
        system.name_any(),
        endpoint.name
    )
}

/// VMs of an endpoint's tier.
pub fn replicas(
    system: &BusinessSystem,
    tier: &str,
    vms: &[Arc<VirtualMachine>],
) -> Vec<Arc<VirtualMachine>> {
    let name = system.name_any();
    vms.iter()
        .filter(|vm| {
            vm.namespace() == system.namespace()
                && vm.labels().get(LABEL_SYSTEM) == Some(&name)
                && vm.labels().get(LABEL_TIER).map(String::as_str) == Some(tier)
        })
        .cloned()
        .collect()
}

impl Probes {
    /// Runs for ever.
    pub async fn run(&self, context: &Arc<Context>) -> &'static str {
        loop {
            let policy = context.stores.policy().probes;
            self.round(context, &policy);
            // The shorter interval; endpoints with nothing happening are not due every time.
            let tick = policy
                .busy_interval_milliseconds
                .min(policy.interval_milliseconds);
            tokio::time::sleep(milliseconds(tick)).await;
        }
    }

    /// Probes the endpoints that are due.
    fn round(&self, context: &Arc<Context>, policy: &api::ProbePolicy) {
        let (vms, now) = (context.stores.vms.state(), clock::now());
        for system in context.stores.systems.state() {
            let close = self.is_close(context, &system, &vms, now);
            let interval = milliseconds(if close {
                policy.busy_interval_milliseconds
            } else {
                policy.interval_milliseconds
            });
            for endpoint in &system.spec.endpoints {
                let replicas = replicas(&system, &endpoint.tier, &vms);
                let key = endpoint_key(&system, endpoint);
                for name in self.due(&key, &replicas, interval, now) {
                    if let Some(vm) = replicas.iter().find(|vm| vm.name_any() == name) {
                        let bound = milliseconds(policy.timeout_milliseconds);
                        self.probe(&key, endpoint, vm, bound);
                    }
                }
            }
        }
    }

    /// Something happens to the system, or did within the last ten seconds.
    fn is_close(
        &self,
        context: &Context,
        system: &BusinessSystem,
        vms: &[Arc<VirtualMachine>],
        now: Moment,
    ) -> bool {
        let key = (system.namespace().unwrap_or_default(), system.name_any());
        let happens = happening(context, system, vms);
        let mut memory = self.lock();
        if happens {
            memory.close.insert(key, now.plus(CLOSE_FOR));
            return true;
        }
        memory.close.get(&key).is_some_and(|until| now < *until)
    }

    /// Which replicas of an endpoint are probed now: none when it is not due; else all that do not
    /// answer, and the next in turn of those that do.
    fn due(
        &self,
        key: &str,
        replicas: &[Arc<VirtualMachine>],
        interval: Duration,
        now: Moment,
    ) -> Vec<String> {
        let names: BTreeSet<String> = replicas.iter().map(|vm| vm.name_any()).collect();
        let mut memory = self.lock();
        let state = memory.endpoints.entry(key.to_owned()).or_default();
        state.replicas.retain(|name, _| names.contains(name));
        // Half a tick early is in time: sleeps end late.
        let waited = state.probed.map(|probed| now.since(probed) + EARLY);
        if waited.is_some_and(|waited| u128::from(waited) < interval.as_millis()) {
            return Vec::new();
        }
        state.probed = Some(now);
        choose(&names, &state.replicas, &mut state.turn)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probe(&self, key: &str, endpoint: &Endpoint, vm: &VirtualMachine, bound: Duration) {
        let status = vm.status.clone().unwrap_or_default();
        let name = vm.name_any();
        let Some(address) = status.nics.first().and_then(|nic| {
            nic.addresses
                .first()?
                .split('/')
                .next()?
                .parse::<std::net::IpAddr>()
                .ok()
        }) else {
            return;
        };
        let mark = format!("{key}@{name}");
        let host = runs_on(&status);
        let sent = clock::now();
        {
            let mut memory = self.lock();
            let under_way = memory.under_way.entry(mark.clone()).or_default();
            if *under_way >= UNDER_WAY_MAX {
                return;
            }
            *under_way += 1;
            if let Some(host) = &host {
                memory.hosts.entry(host.clone()).or_default().sent = Some(sent);
            }
        }
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nUser-Agent: zhengyun-probe\r\n\r\n",
            endpoint.path,
            endpoint
                .host_header
                .clone()
                .unwrap_or_else(|| address.to_string())
        );
        let target = std::net::SocketAddr::new(address, u16::try_from(endpoint.port).unwrap_or(80));
        let (probes, key) = (self.clone(), key.to_owned());
        self.in_task(mark.clone(), async move {
            let at = Timestamp::now();
            let lives = || probes.lives(host, sent);
            let answer = ask::ask(target, &request, bound, lives).await;
            let mut memory = probes.lock();
            memory.ended(&mark);
            let state = memory.endpoints.entry(key).or_default();
            state.note(&name, answer.is_up(), sent, at);
        });
    }

    /// A probe of a VM on this host that was sent then was answered.
    fn lives(&self, host: Option<String>, sent: Moment) {
        let Some(host) = host else { return };
        // One may be answered after later ones.
        let mut memory = self.lock();
        let latest = &mut memory.hosts.entry(host).or_default().answered;
        *latest = (*latest).max(Some(sent));
    }

    /// A probe that panics ends too: enough of them would keep its replica from being probed.
    fn in_task(
        &self,
        mark: String,
        probe: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (probes, name) = (self.clone(), mark.clone());
        let release = move || probes.lock().ended(&mark);
        on_panic::in_task("probe", name, release, probe)
    }

    /// Whether an endpoint answers, and how many replicas do.
    pub fn endpoint(&self, key: &str) -> (Seen, Option<Timestamp>, i32, i32) {
        let memory = self.lock();
        let state = memory.endpoints.get(key);
        state.map_or((Seen::Unobserved, None, 0, 0), EndpointState::now)
    }

    /// When probes of a host's VMs were sent and answered.
    pub fn of_host(&self, host: &str) -> HostProbes {
        self.lock().hosts.get(host).copied().unwrap_or_default()
    }

    /// Downtime of endpoints together within a window: down while any of them is. A failure that stood before the
    /// window and was over by `former`, where that is asked, does not count.
    pub fn downtime(
        &self,
        keys: &[String],
        (from, to): (Timestamp, Timestamp),
        former: Option<Timestamp>,
    ) -> Downtime {
        let memory = self.lock();
        let histories: Vec<Vec<(Timestamp, Seen)>> = keys
            .iter()
            .map(|key| {
                memory
                    .endpoints
                    .get(key)
                    .map(|state| state.history.iter().copied().collect())
                    .unwrap_or_default()
            })
            .map(|history: Vec<_>| match former {
                Some(until) => without_former(&history, from, until),
                None => history,
            })
            .collect();
        measure(&histories, from, to)
    }
}

#[cfg(test)]
impl Probes {
    /// For tests: what was seen of an endpoint, the oldest change first.
    pub(crate) fn saw(&self, key: &str, history: &[(Timestamp, Seen)]) {
        let mut memory = self.lock();
        let state = memory.endpoints.entry(key.to_owned()).or_default();
        state.history = history.iter().copied().collect();
    }
}

/// All replicas that do not answer, or are not known yet, and the next in turn of those that do.
fn choose(
    names: &BTreeSet<String>,
    known: &BTreeMap<String, Replica>,
    turn: &mut usize,
) -> Vec<String> {
    let (answering, others): (Vec<&String>, Vec<&String>) = names
        .iter()
        .partition(|name| known.get(*name).is_some_and(|replica| replica.up));
    *turn = turn.wrapping_add(1);
    let next = answering.get(*turn % answering.len().max(1)).copied();
    others.into_iter().chain(next).cloned().collect()
}

/// The host whose life an answer of a VM shows: where it is assigned, or where it arrives and runs already. An answer
/// from there is no life of a source that died after its hand-over: nobody could ever prove that one dead.
fn runs_on(status: &VirtualMachineStatus) -> Option<String> {
    let arrived = status.incoming.as_ref().filter(|incoming| {
        let said = status.incoming_runtime.as_ref();
        said.is_some_and(|said| {
            said.assignment == **incoming && said.phase == RuntimePhase::Running
        })
    });
    let right = arrived.or(status.assignment.as_ref())?;
    Some(right.host.to_string())
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(1000))
}

/// Something is going on that may interrupt a system: look closely.
fn happening(context: &Context, system: &BusinessSystem, vms: &[Arc<VirtualMachine>]) -> bool {
    let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
    let name = system.name_any();
    vms.iter()
        .filter(|vm| {
            vm.namespace() == system.namespace() && vm.labels().get(LABEL_SYSTEM) == Some(&name)
        })
        .any(|vm| {
            let status = vm.status.clone().unwrap_or_default();
            let changing = status.phase.is_some_and(|phase| {
                phase != api::VirtualMachinePhase::Running
                    && phase != api::VirtualMachinePhase::Stopped
            });
            let silent = status
                .assignment
                .is_some_and(|right| watch.is_silent(&right.host));
            status.incoming.is_some() || changing || silent
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_that_panics_is_not_under_way_for_ever() {
        let probes = Probes::default();
        probes.lock().under_way.insert("a@vm".to_owned(), 2);
        for left in [Some(1), None] {
            let task = probes.in_task("a@vm".to_owned(), async move {
                assert_eq!(left, Some(9), "a probe panics");
            });
            task.await.expect_err("it panicked");
            assert_eq!(probes.lock().under_way.get("a@vm").copied(), left);
        }
    }

    #[test]
    fn an_answer_is_life_of_the_host_where_the_vm_runs() {
        let right = |host: &str, epoch: i64| serde_json::json!({"host": host, "bootId": "b", "epoch": epoch});
        let moves = |said: &str, epoch: i64| -> VirtualMachineStatus {
            let said = serde_json::json!({"assignment": right("h2", epoch), "phase": said, "since": "2026-01-01T00:00:00Z"});
            let status = serde_json::json!({"assignment": right("h1", 1), "incoming": right("h2", 2), "incomingRuntime": said});
            serde_json::from_value(status).expect("a status")
        };
        assert_eq!(runs_on(&VirtualMachineStatus::default()), None);
        for (said, epoch, host) in [
            ("Arrived", 2, "h1"),
            ("Running", 2, "h2"),
            // About an earlier arrival.
            ("Running", 1, "h1"),
        ] {
            let found = runs_on(&moves(said, epoch));
            assert_eq!(found.as_deref(), Some(host), "{said} {epoch}");
        }
    }

    #[test]
    fn replicas_that_answer_take_turns_and_the_others_are_always_probed() {
        let names: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        let mut turn = 0;
        let all = choose(&names, &BTreeMap::new(), &mut turn);
        assert_eq!(all, ["a", "b", "c"], "nothing is known yet");
        let known: BTreeMap<String, Replica> = [("a", true), ("b", false), ("c", true)]
            .map(|(name, up)| {
                (
                    name.to_owned(),
                    Replica {
                        up,
                        sent: Moment(0),
                    },
                )
            })
            .into();
        let rounds: Vec<Vec<String>> = (0..4).map(|_| choose(&names, &known, &mut turn)).collect();
        assert!(
            rounds
                .iter()
                .all(|round| round.len() == 2 && round[0] == "b")
        );
        assert_ne!(rounds[0][1], rounds[1][1], "a and c take turns");
        assert_eq!(rounds[0], rounds[2]);
        assert!(choose(&BTreeSet::new(), &known, &mut turn).is_empty());
    }
}
