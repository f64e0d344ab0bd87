//! The reasons of `failover`, which has both languages: each is said once with marks in its places, and the marks
//! are taken for the places.

use failover::Reason;
use failover::guard::NotArmed;
use failover::host::table::Conclusion;
use model::{HostName, StopProofKind};

/// Marks, and what may stand where they stand. None is part of another, nor of any sentence.
const MARKS: [(&str, &str); 7] = [
    (HOST, "{w}"),
    (TEXT, "{}"),
    ("7200", "{w}"),
    ("7002", "{n}"),
    ("7003", "{n}"),
    ("StorageFenced", "{w}"),
    ("7004", "{n}"),
];
const HOST: &str = "HOST-MARK";
const TEXT: &str = "TEXT-MARK";
/// Told as `7200` seconds, in whichever steps.
const MILLISECONDS: u64 = 7_200_000;
const ONE: u32 = 7002;
const TWO: u32 = 7003;
const ORDER: i32 = 7004;
const KIND: StopProofKind = StopProofKind::StorageFenced;

/// Every reason as a phrase.
pub fn all() -> Vec<(String, String)> {
    let reasons = of_hosts().into_iter().chain(of_vms()).chain(of_moves());
    let reasons = reasons.map(|reason| phrase(&reason.english(), &reason.chinese()));
    let guards = of_guards().into_iter().map(|why| why.sentence());
    let guards = guards.map(|why| phrase(&why.english, &why.chinese));
    reasons.chain(guards).collect()
}

/// English with places, and Chinese that names them by number.
fn phrase(english: &str, chinese: &str) -> (String, String) {
    let mut places: Vec<(usize, &str, &str)> = MARKS
        .iter()
        .flat_map(|(mark, place)| {
            let found = english.match_indices(mark);
            found.map(move |(at, mark)| (at, mark, *place))
        })
        .collect();
    places.sort();
    let (mut english, mut chinese) = (english.to_owned(), chinese.to_owned());
    for (index, (_, mark, place)) in places.into_iter().enumerate() {
        english = english.replacen(mark, place, 1);
        chinese = chinese.replacen(mark, &format!("{{{index}}}"), 1);
    }
    (english, chinese)
}

fn host() -> HostName {
    HostName(HOST.to_owned())
}

fn text() -> String {
    TEXT.to_owned()
}

/// Why a guard is not armed.
fn of_guards() -> Vec<NotArmed> {
    let nothing = String::new();
    vec![
        NotArmed::NotOptedIn,
        NotArmed::NoHeartbeatPool { problems: nothing },
        NotArmed::NoHeartbeatPool { problems: text() },
        NotArmed::NoWatchdog { problem: text() },
        NotArmed::NoPolicy,
        NotArmed::MemoryLost,
        NotArmed::Stopping,
        NotArmed::PoolsReplaced,
    ]
}

fn of_hosts() -> Vec<Reason> {
    vec![
        Reason::NotRegistered,
        Reason::Alive,
        Reason::MissedRenewal {
            silent_milliseconds: MILLISECONDS,
        },
        Reason::Unreachable {
            silent_milliseconds: MILLISECONDS,
        },
        // The only conclusion that says why nothing is placed on a host.
        Reason::Concluded {
            conclusion: Conclusion::AliveWithoutStorage,
        },
        Reason::WaitsBeforeFence {
            left_milliseconds: MILLISECONDS,
        },
        Reason::WatchesPowerOff,
        Reason::IsolatedKept,
        Reason::Storm {
            silent: ONE,
            of: TWO,
        },
        Reason::StormReleases { other: host() },
        Reason::NoOtherHost,
        Reason::Disarmed,
        Reason::CutsStorage,
        Reason::StorageIsCut,
        Reason::Frozen,
        Reason::CannotWrite,
        Reason::FenceIntended,
        Reason::PowerAlreadyOff,
        Reason::ForcedOff {
            bmc: ONE,
            attempt: TWO,
        },
        Reason::StaysOn {
            bmc: ONE,
            attempts: TWO,
        },
        Reason::OffNotProven { bmc: ONE },
        Reason::NextBmc { bmc: ONE },
        Reason::FenceFailed,
        Reason::NoBmc,
        Reason::BmcOfOtherMachine,
        Reason::Proven {
            kind: KIND,
            evidence: text(),
        },
        Reason::NeedsPerson { host: host() },
        Reason::WordIsVoid,
        Reason::IdentityConflict { detail: text() },
        Reason::AgentDown {
            age_milliseconds: MILLISECONDS,
        },
        Reason::BootNotConfirmed,
        Reason::NotKeptYet,
        Reason::BeingDeleted,
        Reason::Returned,
        Reason::Reconciling { left: ONE },
        Reason::InMaintenance,
        Reason::FaultsStand { count: ONE },
        Reason::ObserverPaused {
            milliseconds: MILLISECONDS,
        },
    ]
}

fn of_vms() -> Vec<Reason> {
    vec![
        Reason::Runs,
        Reason::Starts,
        Reason::Stops,
        Reason::Stopped,
        Reason::ShutDownInside,
        Reason::Moves,
        Reason::NeedsHost,
        Reason::WaitsForVolumes { detail: text() },
        Reason::HostSilent { host: host() },
        Reason::WaitsForProof { host: host() },
        Reason::PinnedTo { host: host() },
        Reason::WaitsForItsHost { host: host() },
        Reason::BacksOff {
            left_milliseconds: MILLISECONDS,
            failures: ONE,
        },
        Reason::KeepsFailing { failures: ONE },
        Reason::Restarts { kind: KIND },
        Reason::CloseStuck { host: host() },
        Reason::StuckTogether { hosts: ONE },
        Reason::Stalled { host: host() },
        Reason::EpochsWentBack,
        Reason::IncomingLeft { host: host() },
        Reason::NotResumed { host: host() },
        Reason::WaitsForTier { order: ORDER },
        Reason::WaitsForSlot {
            host: host(),
            starting: ONE,
        },
    ]
}

fn of_moves() -> Vec<Reason> {
    vec![
        Reason::NeedsTarget,
        Reason::NotRunning,
        Reason::TargetPrepares,
        Reason::MemoryCopied,
        Reason::TargetResumes,
        Reason::ResumedTooLate,
        Reason::CancelRequested,
        Reason::NoLongerWanted,
        Reason::PreparedTooLate,
        Reason::TookTooLong,
        Reason::TargetLost { host: host() },
        Reason::SourceLost { host: host() },
        Reason::SourceRunsOn,
        Reason::SourceStopped,
        Reason::TargetRefused,
        Reason::WaitsForSource,
        Reason::WaitsForRefusal,
        Reason::ColdStart,
        Reason::WaitsForOtherMove,
        Reason::Moved,
        Reason::RunsThere { host: host() },
        Reason::SourceProvenStopped {
            host: host(),
            kind: KIND,
        },
        Reason::RestartedElsewhere { host: host() },
        Reason::EvacuatedRecently {
            left_milliseconds: MILLISECONDS,
        },
        Reason::TooManyEvacuations { at_once: ONE },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::language::Language;
    use crate::said::sentence;

    /// The variants of an enumeration.
    fn declared(source: &str, begins: &str) -> BTreeSet<String> {
        let declared = source.split(begins).nth(1).expect("its beginning");
        let declared = declared.split("\n}").next().expect("its end");
        let names = declared.lines().filter_map(|line| {
            let name = line.strip_prefix("    ")?;
            let end = name
                .find([',', ' '])
                .filter(|_| name.starts_with(char::is_uppercase))?;
            Some(name[..end].to_owned())
        });
        names.collect()
    }

    #[test]
    fn no_reason_is_left_out() {
        let source = include_str!("../../../crates/failover/src/reason.rs");
        let reasons = of_hosts().into_iter().chain(of_vms()).chain(of_moves());
        let known: BTreeSet<String> = reasons.map(|reason| reason.key()).collect();
        assert_eq!(known, declared(source, "pub enum Reason {"));
        let source = include_str!("../../../crates/failover/src/guard/mod.rs");
        let known = of_guards().into_iter().map(|why| {
            let text = format!("{why:?}");
            text.split(' ').next().unwrap_or_default().to_owned()
        });
        let known: BTreeSet<String> = known.collect();
        assert_eq!(known, declared(source, "pub enum NotArmed {"));
    }

    #[test]
    fn a_reason_is_told_as_failover_tells_it() {
        let numbers = [
            Reason::Storm { silent: 3, of: 40 },
            Reason::BacksOff {
                left_milliseconds: 12_300,
                failures: 2,
            },
            Reason::WaitsForSlot {
                host: "h1".into(),
                starting: 4,
            },
            Reason::NeedsPerson { host: "h2".into() },
            Reason::Restarts {
                kind: StopProofKind::PoweredOff,
            },
            Reason::WaitsForTier { order: 1 },
            Reason::Concluded {
                conclusion: Conclusion::AliveWithoutStorage,
            },
            Reason::Proven {
                kind: StopProofKind::Closed,
                evidence: "seen".to_owned(),
            },
        ];
        for reason in numbers {
            let told = sentence(Language::Chinese, &reason.english()).into_owned();
            assert_eq!(told, reason.chinese());
        }
    }
}
