//! Three hosts, one VM that is moved live, every crash point. State counts are pinned.

use model_check::check::walk;
use model_check::cluster::Cluster;
use model_check::cluster::configurations::{
    MOVE_AGENTS, MOVE_BOTH_DIE, MOVE_BREAKS, MOVE_GUEST, MOVE_GUEST_BREAKS, MOVE_LEADERS,
    MOVE_POWER,
};

fn pinned(model: Cluster, states: usize) {
    let found = walk(model);
    assert!(found.is_clean(), "{}", found.story());
    assert_eq!(found.states, states);
}

#[test]
fn a_connection_breaks_and_a_person_cancels() {
    pinned(MOVE_BREAKS, 3_281);
}

#[test]
fn one_host_dies() {
    pinned(MOVE_POWER, 70_693);
}

#[test]
fn both_hosts_die() {
    pinned(MOVE_BOTH_DIE, 23_153);
}

#[test]
fn agents_die() {
    pinned(MOVE_AGENTS, 34_977);
}

#[test]
fn the_guest_crashes() {
    pinned(MOVE_GUEST, 40_326);
    pinned(MOVE_GUEST_BREAKS, 13_607);
}

#[test]
fn a_leader_is_paused_and_the_user_halts_the_vm() {
    pinned(MOVE_LEADERS, 57_335);
}
