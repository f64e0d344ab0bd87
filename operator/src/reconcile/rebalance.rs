//! Rebalancing of host pools: asks `placement` which moves are worth it, tells them, and makes
//! them where the site's policy says so. Nothing is moved while anything else happens to the site.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{
    AdvisedMove, Host, HostPool, MigrationReason, Rebalancing, RebalancingMode, RebalancingPolicy,
    VirtualMachineMigration, VirtualMachinePhase,
};
use failover::Moment;
use fleet::readiness::evens_out;
use fleet::transfer::Transfer;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use model::{HostName, VmUid};
use placement::{Fleet, Goal, Mode, Rebalance, RebalanceRequest, plan_rebalance};
use serde_json::json;

use crate::evacuation::{self, Made, Moves};
use crate::migrations::ended;
use crate::runtime::Context;
use crate::writer::logged;
use crate::{clock, door};

/// Between two plans of one pool, milliseconds: load shifts over hours.
const PLAN_EVERY: u64 = 10_000;
/// Moves that are told at once.
const TOLD_MAX: usize = 8;

/// What was planned for each pool, and when.
#[derive(Default)]
pub struct Rebalances(Mutex<BTreeMap<String, (Moment, Arc<Rebalance>)>>);

/// What is to be shown of a pool; starts moves where the policy lets it.
pub(super) async fn turn(context: &Context, fleet: &Fleet, pool: &HostPool) -> Rebalancing {
    let policy = context.stores.policy().rebalancing;
    if policy.mode == RebalancingMode::Off {
        return Rebalancing {
            state: "Off".to_owned(),
            message: "spec.rebalancing.mode of the CloudPolicy is Off".to_owned(),
            ..Rebalancing::default()
        };
    }
    let migrations = context.stores.migrations.state();
    let held = held(context, &migrations);
    if held.is_some() {
        cancel_waiting(context, &migrations).await;
    }
    let name = pool.name_any();
    let answer = planned(context, fleet, &name, &policy, &migrations);
    let moving = migrations
        .iter()
        .filter(|migration| evens_out(migration) && !ended(migration))
        .count();
    if held.is_none() && policy.mode == RebalancingMode::Automatic {
        let free = usize::try_from(policy.moves_at_once)
            .unwrap_or(1)
            .saturating_sub(moving);
        carry_out(context, fleet, &answer, free, &migrations).await;
    }
    let shown = show(fleet, &answer, held, moving, policy.mode);
    tell(context, pool, &shown).await;
    shown
}

/// Asks `placement`, at most every few seconds.
fn planned(
    context: &Context,
    fleet: &Fleet,
    pool: &str,
    policy: &RebalancingPolicy,
    migrations: &[Arc<VirtualMachineMigration>],
) -> Arc<Rebalance> {
    let now = clock::now();
    let lock = || {
        let planned = &context.rebalances.0;
        planned.lock().unwrap_or_else(PoisonError::into_inner)
    };
    if let Some((at, answer)) = lock().get(pool)
        && now.since(*at) < PLAN_EVERY
    {
        return answer.clone();
    }
    let request = request(context, pool, policy, migrations);
    let answer = Arc::new(plan_rebalance(fleet, &request));
    lock().insert(pool.to_owned(), (now, answer.clone()));
    answer
}

fn request(
    context: &Context,
    pool: &str,
    policy: &RebalancingPolicy,
    migrations: &[Arc<VirtualMachineMigration>],
) -> RebalanceRequest {
    let objects = door::objects(context);
    let site = context.stores.policy();
    let Transfer {
        limits,
        dirty_bytes_per_second,
    } = objects.transfer(&site);
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    RebalanceRequest {
        goal: Goal::Balance,
        mode: Mode::Set {
            imbalance_permille: u64::try_from(policy.threshold_permille).unwrap_or(0),
            gain_percent: u32::try_from(policy.gain_percent).unwrap_or(0),
        },
        moves_max: TOLD_MAX,
        moved_at_s: fleet::moved_at(&objects.vms, migrations),
        now_s: seconds(jiff::Timestamp::now().as_second()),
        cool_down_s: seconds(policy.cool_down_seconds.into()),
        fixed: objects.fixed(migrations),
        limits,
        dirty_bytes_per_second,
        ..RebalanceRequest::new(pool)
    }
}

/// Why nothing is moved to even out load just now.
fn held(context: &Context, migrations: &[Arc<VirtualMachineMigration>]) -> Option<String> {
    {
        let watch = context.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !watch.is_calm() {
            return Some("many hosts fell silent at once".to_owned());
        }
        for host in context.stores.hosts.state() {
            let name = HostName(host.name_any());
            if watch.is_silent(&name) {
                return Some(format!("host {name} is silent"));
            }
            if emptying(&host, watch.worst(&name).is_some()) {
                return Some(format!("host {name} is being emptied"));
            }
        }
    }
    let vms = context.stores.vms.state();
    let upset = vms.iter().find(|vm| {
        let phase = vm.status.as_ref().and_then(|status| status.phase);
        matches!(
            phase,
            Some(VirtualMachinePhase::Recovering | VirtualMachinePhase::Unknown)
        )
    });
    if let Some(vm) = upset {
        let namespace = vm.namespace().unwrap_or_default();
        return Some(format!("{namespace}/{} is being recovered", vm.name_any()));
    }
    let other = migrations
        .iter()
        .find(|migration| !ended(migration) && !evens_out(migration));
    other.map(|migration| {
        let namespace = migration.namespace().unwrap_or_default();
        format!(
            "{namespace}/{} moves for another reason",
            migration.spec.virtual_machine
        )
    })
}

/// A host that has to become empty and is not.
fn emptying(host: &Host, faulty: bool) -> bool {
    let wanted = host
        .spec
        .maintenance
        .as_ref()
        .is_some_and(|maintenance| maintenance.evacuate);
    let done = host
        .status
        .as_ref()
        .and_then(|status| status.evacuation.as_ref())
        .is_some_and(|evacuation| evacuation.phase == "Done");
    (wanted || faulty) && !done
}

/// Moves that have not begun are taken back; those under way end by themselves.
async fn cancel_waiting(context: &Context, migrations: &[Arc<VirtualMachineMigration>]) {
    for migration in migrations
        .iter()
        .filter(|migration| evens_out(migration) && !ended(migration) && !migration.spec.cancel)
    {
        let begun = migration
            .status
            .as_ref()
            .is_some_and(|status| status.source_assignment.is_some());
        if !begun {
            let result = context
                .writer
                .spec(migration.as_ref(), json!({"cancel": true}))
                .await;
            logged("migration", &migration.name_any(), result);
        }
    }
}

/// Makes the first moves of the plan.
async fn carry_out(
    context: &Context,
    fleet: &Fleet,
    answer: &Rebalance,
    free: usize,
    migrations: &[Arc<VirtualMachineMigration>],
) {
    if free == 0 || answer.plan.moves.is_empty() {
        return;
    }
    let policy = context.stores.policy().rebalancing;
    let objects = door::objects(context);
    let (moved, fixed) = (
        fleet::moved_at(&objects.vms, migrations),
        objects.fixed(migrations),
    );
    let now = jiff::Timestamp::now().as_second();
    let rests = |uid: &VmUid| {
        let at = moved.get(uid).and_then(|at| i64::try_from(*at).ok());
        at.is_some_and(|at| now < at + i64::from(policy.cool_down_seconds))
    };
    let valid = answer.plan.moves.iter().filter(|step| {
        // The plan is some seconds old: what has moved since is not moved again, and what can not move any more takes
        // no turn from the others.
        let vm = fleet.vms.get(&step.vm);
        vm.is_some_and(|vm| vm.host.as_ref() == Some(&step.from) && vm.incoming.is_none())
            && !rests(&step.vm)
            && !fixed.contains(&step.vm)
    });
    let failover = door::policy(&context.stores.policy());
    let moves = Moves::of(migrations);
    let ready = valid.filter_map(|step| {
        let vm = objects.vms.iter().find(|vm| door::uid(vm) == step.vm);
        Some((step, vm.filter(|vm| !moves.moves(vm))?))
    });
    for (step, vm) in ready.take(free) {
        let start = evacuation::Start {
            to: &step.to,
            reason: MigrationReason::Rebalance,
            why: &step.reason,
            empties: None,
            from: None,
            refused: None,
        };
        // What the API server does not take is in the log.
        if let Made::Waits(waits) = start.make(context, vm, &moves, &failover).await {
            tracing::debug!(waits, "a move waits");
        }
    }
}

fn show(
    fleet: &Fleet,
    answer: &Rebalance,
    held: Option<String>,
    moving: usize,
    mode: RebalancingMode,
) -> Rebalancing {
    let label = |uid: &VmUid| fleet.name_of(uid);
    let gain = |uid: &VmUid| answer.gains.iter().find(|gain| gain.vm == *uid);
    let moves: Vec<AdvisedMove> = answer
        .gains
        .iter()
        .filter_map(|gain| answer.plan.moves.iter().find(|step| step.vm == gain.vm))
        .map(|step| AdvisedMove {
            virtual_machine: label(&step.vm),
            from: step.from.to_string(),
            to: step.to.to_string(),
            gain: gain(&step.vm).map_or_else(String::new, |gain| {
                format!(
                    "imbalance {} -> {} per mille",
                    gain.before_permille, gain.after_permille
                )
            }),
        })
        .collect();
    let (state, message) = match (&held, mode, moves.is_empty(), moving) {
        (_, _, _, moving) if moving > 0 => ("Moving", format!("{moving} VMs move")),
        (Some(held), _, false, _) => ("Held", format!("nothing is moved now: {held}")),
        (_, _, true, _) => ("Calm", answer.why.clone()),
        (None, RebalancingMode::Automatic, false, _) => ("Moving", answer.why.clone()),
        (None, _, false, _) => (
            "Advised",
            format!(
                "{}; see zyctl rebalance --dry-run, move with zyctl migrate, or set spec.rebalancing.mode of the CloudPolicy to Automatic",
                answer.why
            ),
        ),
    };
    let permille = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Rebalancing {
        state: state.to_owned(),
        message,
        imbalance_permille: permille(answer.before_permille),
        after_permille: permille(answer.after_permille),
        moves,
    }
}

/// Advice that is new is told once, as an event of the pool.
async fn tell(context: &Context, pool: &HostPool, shown: &Rebalancing) {
    let known = pool
        .status
        .as_ref()
        .and_then(|status| status.rebalancing.as_ref());
    let same = known.is_some_and(|known| known.state == shown.state && known.moves == shown.moves);
    if shown.state != "Advised" || same || !context.writer.settled(pool) {
        return;
    }
    let moves = shown.moves.iter().map(|step| {
        format!(
            "{} from {} to {} ({})",
            step.virtual_machine, step.from, step.to, step.gain
        )
    });
    let note = moves.collect::<Vec<_>>().join("; ");
    context
        .writer
        .tell(pool, EventType::Normal, "RebalanceAdvised", &note)
        .await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::context_in_memory as site;

    fn host(maintenance: bool, phase: Option<&str>) -> Host {
        let mut value = json!({
            "metadata": {"name": "h"}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
            "status": {}
        });
        if maintenance {
            value["spec"]["maintenance"] = json!({"reason": "r", "evacuate": true});
        }
        if let Some(phase) = phase {
            value["status"]["evacuation"] = json!({"phase": phase, "remaining": 1, "blocked": []});
        }
        serde_json::from_value(value).expect("a host")
    }

    /// One that something else is done with by now takes no turn from the next.
    #[tokio::test]
    async fn who_can_not_move_any_more_takes_no_turn() {
        let hosts = ["h1", "h2"].map(|name| site::host(name, json!(null), json!(null)));
        let vms = ["a", "b"].map(|name| site::vm(name, "Normal", "h1", json!({})));
        let asked = site::migration("m", "a", json!({}), json!({"reason": "User"}), json!({}));
        let site = site::Site::new(Default::default(), hosts.into(), vms.into(), vec![asked]).await;
        let step = |vm: &str| placement::Move {
            vm: vm.into(),
            from: "h1".into(),
            to: "h2".into(),
            start_ms: 0,
            end_ms: 1,
            bytes: 1,
            after: Vec::new(),
            reason: "r".into(),
        };
        let answer = Rebalance {
            plan: placement::Plan {
                moves: vec![step("a"), step("b")],
                ..placement::Plan::default()
            },
            gains: Vec::new(),
            emptied: BTreeSet::new(),
            before_permille: 40,
            after_permille: 40,
            why: String::new(),
        };
        let context = &*site.context;
        let fleet = context.planner.own().await.fleet().clone();
        carry_out(
            context,
            &fleet,
            &answer,
            1,
            &context.stores.migrations.state(),
        )
        .await;
        let made = site.written(&axum::http::Method::POST, "/virtualmachinemigrations");
        let made: Vec<_> = made
            .iter()
            .map(|body| &body["spec"]["virtualMachine"])
            .collect();
        assert_eq!(made, ["b"]);
    }

    #[test]
    fn a_host_that_is_empty_by_now_holds_nobody_up() {
        assert!(emptying(&host(true, None), false), "not begun");
        assert!(emptying(&host(true, Some("Blocked")), false));
        assert!(emptying(&host(false, Some("Running")), true), "a fault");
        assert!(!emptying(&host(true, Some("Done")), false));
        assert!(!emptying(&host(false, Some("Cancelled")), false));
    }

    #[test]
    fn what_is_shown_names_moves_gains_and_what_holds_them_up() {
        let answer = Rebalance {
            plan: placement::Plan::default(),
            gains: Vec::new(),
            emptied: BTreeSet::new(),
            before_permille: 40,
            after_permille: 40,
            why: "imbalance of 40 per mille is not worth a move".to_owned(),
        };
        let calm = show(&Fleet::default(), &answer, None, 0, RebalancingMode::Advise);
        assert_eq!((calm.state.as_str(), calm.moves.len()), ("Calm", 0));
        let step = placement::Move {
            vm: VmUid("u".into()),
            from: "a".into(),
            to: "b".into(),
            start_ms: 0,
            end_ms: 1,
            bytes: 1,
            after: Vec::new(),
            reason: "r".into(),
        };
        let worth = Rebalance {
            plan: placement::Plan {
                moves: vec![step],
                ..placement::Plan::default()
            },
            gains: vec![placement::Gain {
                vm: VmUid("u".into()),
                before_permille: 300,
                after_permille: 100,
            }],
            ..answer
        };
        let say = |held: Option<&str>, mode| {
            let held = held.map(str::to_owned);
            show(&Fleet::default(), &worth, held, 0, mode)
        };
        let advised = say(None, RebalancingMode::Advise);
        assert_eq!(advised.state, "Advised");
        assert_eq!(advised.moves[0].gain, "imbalance 300 -> 100 per mille");
        let held = say(Some("host c is silent"), RebalancingMode::Automatic);
        assert_eq!(held.state, "Held");
        assert!(
            held.message.contains("host c is silent"),
            "{}",
            held.message
        );
        assert_eq!(say(None, RebalancingMode::Automatic).state, "Moving");
    }
}
