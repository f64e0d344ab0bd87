//! Which change to look at next.

use crate::core::State;

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

/// Draws a change; `None` when the draw came to nothing.
pub(super) fn propose(state: &State<'_>, rng: &mut Rng) -> Option<Change> {
    let model = state.model();
    let item = rng.below(model.item_count()) as u32;
    let bits = rng.bits();
    let (kind, detail, rest) = (bits & 1023, (bits >> 10) & 1023, bits >> 32);
    let pick = |n: usize| ((rest * n as u64) >> 32) as usize;
    let here = state.host_of(item);
    if kind < MOVES {
        let to = if detail < MOVES_HOME {
            model.home(item)
        } else {
            pick(model.host_count()) as u32
        };
        return (to != here).then_some(Change::Move(item, to));
    }
    let other = if detail < SWAPS_IN_GROUP {
        let members = model.members(model.group(item));
        members[pick(members.len())]
    } else if detail < SWAPS_IN_GROUP + SWAPS_HOME {
        let home = model.home(item);
        let there = state.items_on(home);
        if home == here || there.is_empty() {
            return None;
        }
        there[pick(there.len())]
    } else {
        pick(model.item_count()) as u32
    };
    (state.host_of(other) != here).then_some(Change::Swap(item, other))
}
