//! What must hold between a host's machine and its BMC.

use model::StopProofKind;
use stateright::Property;

use super::{Bmc, PROVEN_WITHIN, Power, State};

fn proof_is_true(model: &Power, state: &State) -> bool {
    let running = state.on.then_some(state.boot);
    let claimed = state.claimed && running == Some(0);
    !claimed && running.is_none_or(|boot| model.proves(state, boot).is_none())
}

fn nobody_fresh_is_forced_off(_: &Power, state: &State) -> bool {
    !state.forced_fresh
}

/// Proof first, time-outs second: an honest BMC proves a lost power within seconds.
fn dark_is_proven(model: &Power, state: &State) -> bool {
    let long = state
        .dark_since
        .is_some_and(|since| state.second - since >= PROVEN_WITHIN);
    model.bmc != Bmc::Honest || !long || model.proves(state, state.registered).is_some()
}

fn ended_and_proven(model: &Power, state: &State) -> bool {
    let dark = state
        .dark_since
        .is_some_and(|since| state.second - since >= PROVEN_WITHIN);
    state.second == model.seconds
        && (!dark || model.bmc != Bmc::Honest || model.proves(state, state.registered).is_some())
}

fn read_off(model: &Power, state: &State) -> bool {
    model.proves(state, state.registered) == Some(StopProofKind::PoweredOff)
}

fn came_back(model: &Power, state: &State) -> bool {
    state.registered > 0 && model.proves(state, 0) == Some(StopProofKind::Rebooted)
}

fn hung_and_fenced(model: &Power, state: &State) -> bool {
    state.hung && !state.on && read_off(model, state)
}

fn read_off_while_on(_: &Power, state: &State) -> bool {
    state.renews() && matches!(state.reading, Some((false, _, _)))
}

fn accepted_and_still_on(_: &Power, state: &State) -> bool {
    state.command.is_some() && state.on
}

pub(super) fn all(model: &Power) -> Vec<Property<Power>> {
    let mut list = vec![
        Property::always("a boot that is proven dead is dead", proof_is_true),
        Property::always(
            "nobody is forced off who was just heard",
            nobody_fresh_is_forced_off,
        ),
        Property::always("a dark host is proven dead in time", dark_is_proven),
        Property::eventually("ended, and proven", ended_and_proven),
    ];
    let mut guard = |wanted: bool, name, condition| {
        if wanted {
            list.push(Property::sometimes(name, condition));
        }
    };
    let [_, returns, hangs, ..] = model.faults;
    let honest = model.bmc == Bmc::Honest;
    guard(honest, "proven by its BMC", read_off);
    guard(returns > 0, "proven by its return", came_back);
    guard(honest && hangs > 0, "hung and fenced", hung_and_fenced);
    guard(
        model.bmc == Bmc::Lies,
        "reads off while on",
        read_off_while_on,
    );
    guard(
        model.bmc == Bmc::StaysOn && hangs > 0,
        "still on",
        accepted_and_still_on,
    );
    list
}
