//! Two hosts, one VM, a leader and an old leader that was paused. State counts are pinned, so
//! that a change of the model or of a decision is noticed.

use model_check::check::walk;
use model_check::cluster::Cluster;
use model_check::cluster::configurations::{
    AUTOSTART, AUTOSTART_WITHOUT_HOOK, CALM, CRASHES, CUTS, GUARD, HALT, ISOLATION, LOCKED, POWER,
    RESTORE, STUCK_AGENT,
};

fn pinned(model: Cluster, states: usize) {
    let found = walk(model);
    assert!(found.is_clean(), "{}", found.story());
    assert_eq!(found.states, states);
}

#[test]
fn power_is_lost_while_an_old_leader_is_paused() {
    pinned(POWER, 1406);
}

#[test]
fn agent_guest_and_libvirt_fail_in_the_middle_of_a_start() {
    pinned(CRASHES, 92_755);
}

#[test]
fn a_host_runs_on_without_its_management_network() {
    pinned(ISOLATION, 3698);
    pinned(LOCKED, 3698);
}

#[test]
fn its_user_halts_the_vm_while_host_and_agent_fail() {
    pinned(HALT, 1916);
}

#[test]
fn storage_cuts_hosts_off_where_no_bmc_answers() {
    pinned(CUTS, 8759);
}

#[test]
fn guards_fire_where_neither_bmc_nor_storage_can_cut() {
    pinned(GUARD, 9026);
}

#[test]
fn etcd_is_restored() {
    pinned(RESTORE, 5117);
}

#[test]
fn restarts_of_agents_and_libvirt_and_an_unreachable_api_stop_nothing() {
    pinned(CALM, 74);
    pinned(STUCK_AGENT, 6);
}

#[test]
fn libvirt_starts_by_itself_what_ran_before_the_power_loss() {
    pinned(AUTOSTART, 599);
    pinned(AUTOSTART_WITHOUT_HOOK, 73);
}
