//! Probes of endpoints: replicas at their own addresses, over the business network. Each endpoint is
//! probed once a second, five times while something happens to its system; replicas that answer
//! take turns, those that do not are probed every time. Keeps what was seen, so that downtime is
//! measured and never guessed; time that nobody observed is a third state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::names::{LABEL_SYSTEM, LABEL_TIER};
use api::{BusinessSystem, Endpoint, VirtualMachine};
use failover::Moment;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::runtime::Context;
use crate::{clock, on_panic};

/// States of an endpoint that are kept.
const HISTORY_MAX: usize = 512;
/// Bytes of an answer that are read: its status line is all that counts.
const ANSWER_BYTES_MAX: usize = 512;
/// How long a system is looked at closely after the last thing that happened to it.
const CLOSE_FOR: u64 = 10_000;
/// An endpoint that would be due within so many milliseconds is probed now.
const EARLY: u64 = 50;
/// Probes of one replica that wait for an answer at once. One that is lost may not hold up the next: the
/// end of a downtime is to be seen to within an interval.
const UNDER_WAY_MAX: usize = 8;
/// Without a probe for so long nobody observed.
const UNOBSERVED_AFTER: u64 = 5_000;

/// What an endpoint did at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At least one replica answered.
    Up,
    /// None did.
    Down,
    /// Nobody looked.
    Unobserved,
}

/// When probes of a host's VMs were sent and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostProbes {
    /// The latest.
    pub sent: Option<Moment>,
    /// The latest that was answered.
    pub answered: Option<Moment>,
}

/// What the latest probe of a replica saw, by the moment at which it was sent.
#[derive(Clone, Copy, Debug)]
struct Replica {
    up: bool,
    sent: Moment,
}

#[derive(Clone, Debug, Default)]
struct EndpointState {
    /// Changes of state, the oldest first.
    history: VecDeque<(Timestamp, Seen)>,
    replicas: BTreeMap<String, Replica>,
    looked: Option<Moment>,
    /// When the latest probe that counts was sent.
    observed: Option<Timestamp>,
    /// When it was last probed, and which replica's turn is next.
    probed: Option<Moment>,
    turn: usize,
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

/// Downtime of an endpoint within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Downtime {
    /// Seconds down.
    pub down_seconds: f64,
    /// Seconds that nobody observed.
    pub unobserved_seconds: f64,
    /// First moment down.
    pub down_at: Option<Timestamp>,
    /// When it answered again, if it did.
    pub up_at: Option<Timestamp>,
}

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
        let host = status
            .assignment
            .map(|assignment| assignment.host.to_string());
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
            let answered = matches!(
                tokio::time::timeout(bound, ask(target, &request)).await,
                Ok(Ok(true))
            );
            let mut memory = probes.lock();
            memory.ended(&mark);
            if answered && let Some(host) = host {
                memory.hosts.entry(host).or_default().answered = Some(sent);
            }
            note(
                memory.endpoints.entry(key).or_default(),
                &name,
                answered,
                sent,
                at,
            );
        });
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
        let Some(state) = memory.endpoints.get(key) else {
            return (Seen::Unobserved, None, 0, 0);
        };
        if state
            .looked
            .is_none_or(|looked| clock::now().since(looked) > UNOBSERVED_AFTER)
        {
            return (
                Seen::Unobserved,
                None,
                0,
                i32::try_from(state.replicas.len()).unwrap_or(0),
            );
        }
        let up = state.replicas.values().filter(|replica| replica.up).count();
        let (since, seen) = state
            .history
            .back()
            .map_or((None, Seen::Unobserved), |(at, seen)| (Some(*at), *seen));
        (
            seen,
            since,
            i32::try_from(up).unwrap_or(0),
            i32::try_from(state.replicas.len()).unwrap_or(0),
        )
    }

    /// When probes of a host's VMs were sent and answered.
    pub fn of_host(&self, host: &str) -> HostProbes {
        self.lock().hosts.get(host).copied().unwrap_or_default()
    }

    /// Downtime of endpoints together within a window: down while any of them is.
    pub fn downtime(&self, keys: &[String], from: Timestamp, to: Timestamp) -> Downtime {
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
            .collect();
        measure(&histories, from, to)
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

async fn ask(target: std::net::SocketAddr, request: &str) -> std::io::Result<bool> {
    let mut stream = tokio::net::TcpStream::connect(target).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    while length < 12 {
        let read = stream.read(&mut answer[length..]).await?;
        if read == 0 {
            break;
        }
        length += read;
    }
    // `HTTP/1.1 200`: any success or redirection is an answer of the service.
    Ok(length >= 12 && answer.starts_with(b"HTTP/1.") && matches!(answer[9], b'2' | b'3'))
}

/// Notes what the probe saw that was sent at `sent`, which the wall clock called `at`.
fn note(state: &mut EndpointState, replica: &str, up: bool, sent: Moment, at: Timestamp) {
    let now = clock::now();
    if state
        .looked
        .is_some_and(|looked| now.since(looked) > UNOBSERVED_AFTER)
        && let Some((last, _)) = state.history.back().copied()
    {
        // Nobody looked since a little after the last look.
        state.history.push_back((
            last.max(at - jiff::SignedDuration::from_millis(1)),
            Seen::Unobserved,
        ));
    }
    state.looked = Some(now);
    // A lost probe ends with its time-out, after later ones were answered: those count. Which is later is
    // not asked of the wall clock, which may be set back.
    let newer = state
        .replicas
        .get(replica)
        .is_some_and(|replica| replica.sent > sent);
    if newer {
        return;
    }
    state
        .replicas
        .insert(replica.to_owned(), Replica { up, sent });
    let seen = if state.replicas.values().any(|replica| replica.up) {
        Seen::Up
    } else {
        Seen::Down
    };
    let last = state.history.back().copied();
    if last.is_none_or(|(_, last)| last != seen) {
        let changed = last.map_or(at, |(since, last)| {
            change_between(state.observed.filter(|_| last != Seen::Unobserved), at).max(since)
        });
        state.history.push_back((changed, seen));
    }
    // Of several replicas one may have been asked earlier and have answered later.
    state.observed = state.observed.max(Some(at));
    while state.history.len() > HISTORY_MAX {
        state.history.pop_front();
    }
}

/// When a state changed that was seen by one probe and not by the one before: the middle between the
/// two, which is wrong by half an interval at most and, unlike either end, not always in one direction.
fn change_between(before: Option<Timestamp>, at: Timestamp) -> Timestamp {
    before
        .filter(|before| *before < at)
        .map_or(at, |before| before + at.duration_since(before) / 2)
}

/// What a history says of a moment. Before its first entry nobody observed.
fn state_at(history: &[(Timestamp, Seen)], at: Timestamp) -> Seen {
    let after = history.partition_point(|(begin, _)| *begin <= at);
    after
        .checked_sub(1)
        .map_or(Seen::Unobserved, |index| history[index].1)
}

/// Sums what histories together say about a window: down while any is, else unobserved while any is.
fn measure(histories: &[Vec<(Timestamp, Seen)>], from: Timestamp, to: Timestamp) -> Downtime {
    let mut bounds: BTreeSet<Timestamp> = histories
        .iter()
        .flatten()
        .map(|(at, _)| *at)
        .filter(|at| *at > from && *at < to)
        .collect();
    bounds.extend([from, to]);
    let bounds: Vec<Timestamp> = bounds.into_iter().collect();
    let mut sum = Downtime::default();
    for span in bounds.windows(2) {
        let (begin, seconds) = (span[0], span[1].duration_since(span[0]).as_secs_f64());
        let seen = |wanted: Seen| {
            histories
                .iter()
                .any(|history| state_at(history, begin) == wanted)
        };
        if seen(Seen::Down) {
            sum.down_seconds += seconds;
            sum.down_at = sum.down_at.or(Some(begin));
            sum.up_at = None;
        } else if seen(Seen::Unobserved) {
            sum.unobserved_seconds += seconds;
        } else if sum.down_at.is_some() && sum.up_at.is_none() {
            sum.up_at = Some(begin);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn downtime_counts_only_within_the_window_and_unobserved_is_never_up() {
        let history = vec![
            (at(0), Seen::Up),
            (at(10), Seen::Down),
            (at(16), Seen::Up),
            (at(20), Seen::Unobserved),
            (at(30), Seen::Up),
        ];
        let all = measure(std::slice::from_ref(&history), at(0), at(40));
        assert_eq!((all.down_seconds, all.unobserved_seconds), (6.0, 10.0));
        assert_eq!((all.down_at, all.up_at), (Some(at(10)), Some(at(16))));
        let part = measure(std::slice::from_ref(&history), at(12), at(14));
        assert_eq!((part.down_seconds, part.up_at), (2.0, None));
        let before = measure(&[history], at(-4), at(2));
        assert_eq!(
            before.unobserved_seconds, 4.0,
            "nobody looked before the first probe"
        );
    }

    #[test]
    fn endpoints_together_are_down_while_any_is() {
        let one = vec![(at(0), Seen::Up), (at(10), Seen::Down), (at(14), Seen::Up)];
        let two = vec![(at(0), Seen::Up), (at(12), Seen::Down), (at(19), Seen::Up)];
        let both = measure(&[one, two], at(0), at(30));
        assert_eq!(both.down_seconds, 9.0, "the overlap counts once");
        assert_eq!((both.down_at, both.up_at), (Some(at(10)), Some(at(19))));
    }

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

    #[test]
    fn an_endpoint_is_down_only_when_no_replica_answers() {
        let mut state = EndpointState::default();
        note(&mut state, "a", true, Moment(1_000), at(1));
        note(&mut state, "b", false, Moment(2_000), at(2));
        assert_eq!(state.history.len(), 1, "one answers: still up");
        note(&mut state, "a", false, Moment(4_000), at(4));
        assert_eq!(
            state.history.back(),
            Some(&(at(3), Seen::Down)),
            "between the last answer and the first that did not come"
        );
    }

    #[test]
    fn a_probe_that_was_lost_does_not_undo_a_later_answer() {
        let mut state = EndpointState::default();
        note(&mut state, "a", false, Moment(1_000), at(1));
        note(&mut state, "a", true, Moment(3_000), at(3));
        note(&mut state, "a", false, Moment(2_000), at(2));
        let history: Vec<_> = state.history.iter().copied().collect();
        assert_eq!(history, [(at(1), Seen::Down), (at(2), Seen::Up)]);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_hides_no_failure() {
        let mut state = EndpointState::default();
        note(&mut state, "a", true, Moment(1_000), at(100));
        note(&mut state, "a", false, Moment(2_000), at(40));
        let last = state.history.back().map(|(_, seen)| *seen);
        assert_eq!(last, Some(Seen::Down));
    }
}
