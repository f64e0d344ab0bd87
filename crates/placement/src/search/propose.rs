//! Which change to look at next.

use crate::core::{Model, State};

use super::rng::Rng;

/// A change to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// An item goes to a host.
    Move(u32, u32),
    /// Two items change places.
    Swap(u32, u32),
}

// Shares of 1,024. Going home frees the transient resources of two hosts, and chance alone would
// hardly ever propose it in a large fleet; members of one group can nearly always change places.
const MOVES: u64 = 400;
const MOVES_HOME: u64 = 300;
const SWAPS_HOME: u64 = 205;
const SWAPS_IN_GROUP: u64 = 105;

/// Draws a change; `None` when the draw came to nothing. Of `often`, an item is drawn as often as of
/// all; a list of none makes no difference.
pub(super) fn propose(state: &State<'_>, rng: &mut Rng, often: &[u32]) -> Option<Change> {
    let model = state.model();
    let item = if often.is_empty() || rng.below(2) == 0 {
        rng.below(model.item_count()) as u32
    } else {
        often[rng.below(often.len())]
    };
    let bits = rng.bits();
    let (kind, detail) = (bits & 1023, (bits >> 10) & 1023);
    let here = state.host_of(item);
    if kind < MOVES {
        let to = if detail < MOVES_HOME {
            model.home(item)
        } else {
            draw_host(model, item, rng)?
        };
        return (to != here).then_some(Change::Move(item, to));
    }
    if detail < SWAPS_IN_GROUP {
        let members = model.members(model.group(item));
        let other = members[rng.below(members.len())];
        return swap(state, item, other);
    }
    let to = if detail < SWAPS_IN_GROUP + SWAPS_HOME {
        model.home(item)
    } else {
        draw_host(model, item, rng)?
    };
    let there = state.items_on(to);
    if to == here {
        return None;
    }
    // Few of a full host's items may be able to come here: the first of them from any one on.
    rng.around(there)
        .find(|&&other| model.may_reach(other, here))
        .map(|&other| Change::Swap(item, other))
}

/// Two items change places, if they are not on one host and each may be where the other is.
pub(super) fn swap(state: &State<'_>, item: u32, other: u32) -> Option<Change> {
    let (here, there, model) = (state.host_of(item), state.host_of(other), state.model());
    let may = there != here && model.may_reach(item, there) && model.may_reach(other, here);
    may.then_some(Change::Swap(item, other))
}

/// Draws one of the hosts that an item may be on.
pub(super) fn draw_host(model: &Model, item: u32, rng: &mut Rng) -> Option<u32> {
    let few = model.reach(item);
    if few.is_empty() {
        let any = rng.below(model.host_count()) as u32;
        return model.may_reach(item, any).then_some(any);
    }
    Some(few[rng.below(few.len())])
}
