//! What must hold between guard and observer.

use stateright::Property;

use super::{CONTRACT, Fence, MARGIN, State, WATCHDOG};

fn proof_is_true(model: &Fence, state: &State) -> bool {
    !state.runs || model.verdict(state).is_err()
}

fn no_needless_kill(_: &Fence, state: &State) -> bool {
    !state.needless
}

/// What was cut off in the first step and stays so is proven at the horizon.
fn ended_and_proven(model: &Fence, state: &State) -> bool {
    let enough = CONTRACT + WATCHDOG + MARGIN;
    let quiet = state.left.observer_hangs == model.faults.observer_hangs
        && state.left.late_reports == model.faults.late_reports
        && state.watch;
    let silent_since = state
        .lease
        .1
        .max(state.beaten)
        .max(state.answered.unwrap_or(0));
    state.step == model.steps
        && (!quiet || state.step - silent_since <= enough || model.verdict(state).is_ok())
}

fn proven(model: &Fence, state: &State) -> bool {
    model.verdict(state).is_ok()
}

fn fired(_: &Fence, state: &State) -> bool {
    state.fired && state.alive && !state.runs
}

fn reset(_: &Fence, state: &State) -> bool {
    !state.alive
}

pub(super) fn all(model: &Fence) -> Vec<Property<Fence>> {
    let faults = model.faults;
    let cut = faults.network > 0 && faults.storage > 0;
    let mut list = vec![
        Property::always("a host that is proven fenced runs nothing", proof_is_true),
        Property::always("a host with a heartbeat kills nothing", no_needless_kill),
        Property::eventually("ended, and proven", ended_and_proven),
    ];
    if cut {
        list.push(Property::sometimes("proven", proven));
        list.push(Property::sometimes("the guard fired", fired));
    }
    if faults.guard_hangs + faults.kill_hangs > 0 {
        list.push(Property::sometimes("the watchdog reset the host", reset));
    }
    list
}
