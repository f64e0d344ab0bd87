//! A guard and an observer on another host. State counts are pinned.

use model_check::check::{hunt, walk};
use model_check::fence::{Faults, Fence, Removed};

const NONE: Faults = Faults {
    network: 0,
    storage: 0,
    late: 0,
    guard_hangs: 0,
    guard_restarts: 0,
    kill_hangs: 0,
    observer_hangs: 0,
    watch_stalls: 0,
    late_reports: 0,
};

/// Everything on the host's side.
const HOST: Fence = Fence {
    steps: 12,
    faults: Faults {
        network: 1,
        storage: 1,
        late: 1,
        guard_hangs: 1,
        guard_restarts: 2,
        kill_hangs: 1,
        ..NONE
    },
    probes: false,
    removed: &[],
};

/// The observer's storage hangs for as long as it likes.
const OBSERVER: Fence = Fence {
    steps: 13,
    faults: Faults {
        network: 2,
        observer_hangs: 7,
        ..NONE
    },
    probes: false,
    removed: &[],
};

/// The operator's watch of the Lease stalls.
const WATCH: Fence = Fence {
    steps: 13,
    faults: Faults {
        network: 2,
        storage: 1,
        watch_stalls: 1,
        observer_hangs: 1,
        ..NONE
    },
    probes: false,
    removed: &[],
};

/// Reports of the observer come late, and its host's storage comes and goes.
const REPORTS: Fence = Fence {
    steps: 12,
    faults: Faults {
        network: 1,
        storage: 2,
        late_reports: 7,
        ..NONE
    },
    probes: false,
    removed: &[],
};

/// The VMs of the host answer probes for as long as they run.
const ANSWERS: Fence = Fence {
    steps: 15,
    faults: Faults {
        storage: 1,
        network: 1,
        kill_hangs: 1,
        ..NONE
    },
    probes: true,
    removed: &[],
};

fn pinned(model: Fence, states: usize) {
    let found = walk(model);
    assert!(found.is_clean(), "{}", found.story());
    assert_eq!(found.states, states);
}

#[test]
fn a_guard_with_late_acknowledgements_hangs_and_restarts() {
    pinned(HOST, 53_510);
}

#[test]
fn an_observer_that_hangs() {
    pinned(OBSERVER, 7001);
}

#[test]
fn a_watch_that_stalls() {
    pinned(WATCH, 97_198);
}

#[test]
fn reports_that_come_late() {
    pinned(REPORTS, 27_298);
}

#[test]
fn a_host_whose_vms_answer() {
    pinned(ANSWERS, 3475);
}

#[test]
fn no_rule_of_guard_and_observer_can_be_spared() {
    let runs = "a host that is proven fenced runs nothing";
    let kills = "a host with a heartbeat kills nothing";
    let mut survivors = Vec::new();
    for (removed, model, property) in [
        (&[Removed::CountsFromArrival][..], HOST, runs),
        (&[Removed::ForgetsOnRestart], HOST, runs),
        (&[Removed::FedByTimer], HOST, runs),
        (&[Removed::FedWhileKilling], HOST, runs),
        (&[Removed::WatchdogOverlooked], HOST, runs),
        (&[Removed::KillsWithHeartbeat], HOST, kills),
        (&[Removed::ObserverUnproven], OBSERVER, runs),
        (&[Removed::LeaseOverlooked], WATCH, runs),
        (&[Removed::LastReadOverlooked], WATCH, runs),
        (&[Removed::CountsToArrival], REPORTS, runs),
        // The veto of an answer is for a watchdog that does not keep its word.
        (
            &[Removed::AnswerOverlooked, Removed::FedByTimer],
            ANSWERS,
            runs,
        ),
    ] {
        let found = hunt(Fence { removed, ..model }, property);
        if !found.violations.contains_key(property) {
            survivors.push(format!("{removed:?} {}", found.story()));
        }
    }
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}

#[test]
fn an_answer_vetoes_where_the_watchdog_does_not_keep_its_word() {
    let removed = &[Removed::FedByTimer];
    let found = hunt(
        Fence { removed, ..ANSWERS },
        "a host that is proven fenced runs nothing",
    );
    let lied = found
        .violations
        .contains_key("a host that is proven fenced runs nothing");
    assert!(!lied, "{}", found.story());
}
