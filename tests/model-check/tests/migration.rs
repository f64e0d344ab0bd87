//! Three hosts, one VM that is moved live, every crash point. State counts are pinned.

use model_check::check::walk;
use model_check::cluster::Cluster;
use model_check::cluster::configurations::{
    MOVE_AGENTS, MOVE_BOTH_DIE, MOVE_BREAKS, MOVE_GUEST, MOVE_GUEST_BREAKS, MOVE_LEADERS,
    MOVE_POWER, MOVE_RESUME,
};

fn pinned(model: Cluster, states: usize) {
    let found = walk(model);
    assert!(found.is_clean(), "{}", found.story());
    assert_eq!(found.states, states);
}

#[test]
fn a_connection_breaks_and_a_person_cancels() {
    pinned(MOVE_BREAKS, 3_529);
}

#[test]
fn one_host_dies() {
    pinned(MOVE_POWER, 80_009);
}

#[test]
fn both_hosts_die() {
    pinned(MOVE_BOTH_DIE, 27_833);
}

#[test]
fn agents_die() {
    pinned(MOVE_AGENTS, 35_349);
}

#[test]
fn the_guest_crashes() {
    pinned(MOVE_GUEST, 49_326);
    pinned(MOVE_GUEST_BREAKS, 15_767);
}

#[test]
fn a_leader_is_paused_and_the_user_halts_the_vm() {
    pinned(MOVE_LEADERS, 68_999);
}

#[test]
fn the_target_can_not_let_the_copy_run() {
    pinned(MOVE_RESUME, 52_705);
}
