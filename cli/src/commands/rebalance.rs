//! `zyctl rebalance --dry-run`: which moves would even out the pools or empty hosts, and what each
//! gains.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use fleet::transfer::Transfer;
use model::{HostName, VmUid};
use placement::{Goal, Mode, Rebalance, RebalanceRequest, headroom_report, plan_rebalance};
use serde_json::{Value, json};

use super::planning::{Planning, Told};
use super::reckoned::Reckoned;
use crate::language::Language;
use crate::table::Table;

/// What is asked.
pub struct Question<'a> {
    /// Only this pool.
    pub pool: Option<&'a str>,
    /// Hosts to be emptied; an empty list means any; none means balance.
    pub consolidate: Option<&'a [String]>,
    /// At most so many moves.
    pub moves: usize,
}

/// Plans and prints.
///
/// # Errors
/// A pool or host that does not exist.
pub fn run(planning: &Planning, question: &Question<'_>) -> Result<()> {
    let answers = answers(planning, question)?;
    let json: Vec<Value> = answers
        .iter()
        .map(|(pool, answer)| as_json(planning, pool, answer))
        .collect();
    planning.print(&json!({ "pools": json }), || {
        let tables = answers.iter();
        let mut text: String = tables
            .map(|(pool, answer)| as_table(planning, pool, answer))
            .collect();
        text.push_str(&planning.nothing_changed());
        text
    })
}

/// The plan of each pool.
///
/// # Errors
/// A pool or host that does not exist.
pub fn answers(planning: &Planning, question: &Question<'_>) -> Result<Vec<(String, Rebalance)>> {
    let mut wanted = BTreeSet::new();
    for name in question.consolidate.unwrap_or_default() {
        wanted.insert(planning.host(name)?);
    }
    let mut pools = planning.pools(question.pool)?;
    if !wanted.is_empty() {
        // Each host is emptied within its own pool.
        let own = |name: &HostName| planning.fleet.hosts.get(name).map(|host| &host.pool);
        pools.retain(|pool| wanted.iter().any(|name| own(name) == Some(pool)));
        if pools.is_empty() {
            return Err(planning.fail(
                "--consolidate: none of these hosts is of that pool; leave --pool out",
                "--consolidate:这些宿主机都不属于该主机池;请去掉 --pool",
            ));
        }
    }
    let plan = |pool: String| {
        let request = request(planning, &pool, question, &wanted);
        let answer = plan_rebalance(&planning.fleet, &request);
        (pool, answer)
    };
    Ok(pools.into_iter().map(plan).collect())
}

fn request(
    planning: &Planning,
    pool: &str,
    question: &Question<'_>,
    wanted: &BTreeSet<HostName>,
) -> RebalanceRequest {
    let (policy, snapshot) = (planning.snapshot.policy(), &planning.snapshot);
    let Transfer {
        limits,
        dirty_bytes_per_second,
    } = snapshot.objects.transfer(&policy);
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let here = wanted
        .iter()
        .filter(|name| {
            let host = planning.fleet.hosts.get(*name);
            host.is_some_and(|host| host.pool == pool)
        })
        .cloned()
        .collect();
    // A saved fleet is asked about as of the moment at which it was saved.
    let now = snapshot
        .saved_at
        .parse::<jiff::Timestamp>()
        .unwrap_or_else(|_| jiff::Timestamp::now());
    RebalanceRequest {
        goal: match question.consolidate {
            Some(_) => Goal::Consolidate(here),
            None => Goal::Balance,
        },
        mode: Mode::Set {
            imbalance_permille: u64::try_from(policy.rebalancing.threshold_permille).unwrap_or(0),
            gain_percent: u32::try_from(policy.rebalancing.gain_percent).unwrap_or(0),
        },
        moves_max: question.moves,
        moved_at_s: fleet::moved_at(&snapshot.objects.vms, &snapshot.migrations),
        now_s: seconds(now.as_second()),
        cool_down_s: seconds(policy.rebalancing.cool_down_seconds.into()),
        fixed: snapshot.objects.fixed(&snapshot.migrations),
        limits,
        dirty_bytes_per_second,
        ..RebalanceRequest::new(pool)
    }
}

/// Head-room of the pool as it is, and with the moves made and the emptied hosts switched off.
fn headroom(planning: &Planning, pool: &str, answer: &Rebalance) -> [Option<Told>; 2] {
    let mut after = answer.plan.carried_out(&planning.fleet);
    after.hosts.retain(|name, _| !answer.emptied.contains(name));
    [&planning.fleet, &after].map(|fleet| {
        let report = headroom_report(fleet, pool)?;
        Some(planning.headroom(fleet, &report, pool))
    })
}

fn gains(answer: &Rebalance) -> BTreeMap<&VmUid, (u64, u64)> {
    let gains = answer.gains.iter();
    gains
        .map(|gain| (&gain.vm, (gain.before_permille, gain.after_permille)))
        .collect()
}

fn as_json(planning: &Planning, pool: &str, answer: &Rebalance) -> Value {
    let gains = gains(answer);
    let moves: Vec<Value> = answer
        .plan
        .moves
        .iter()
        .map(|step| {
            let gain = gains.get(&step.vm);
            json!({
                "virtualMachine": planning.fleet.name_of(&step.vm), "from": step.from, "to": step.to,
                "startMilliseconds": step.start_ms, "endMilliseconds": step.end_ms, "reason": step.reason,
                "imbalanceBeforePermille": gain.map(|gain| gain.0), "imbalanceAfterPermille": gain.map(|gain| gain.1),
            })
        })
        .collect();
    let [before, after] = headroom(planning, pool, answer);
    json!({"pool": pool, "moves": moves, "emptied": answer.emptied, "why": answer.why,
        "before": before.as_ref().map(Told::json), "after": after.as_ref().map(Told::json),
        "imbalanceBeforePermille": answer.before_permille, "imbalanceAfterPermille": answer.after_permille,
        "endMilliseconds": answer.plan.end_ms,
        "reckonedWith": Reckoned::of(planning, &answer.plan).as_ref().map(Reckoned::json)})
}

fn as_table(planning: &Planning, pool: &str, answer: &Rebalance) -> String {
    let gains = gains(answer);
    let mut table = Table::new([
        planning.say("VM", "虚拟机"),
        planning.say("FROM", "从"),
        planning.say("TO", "到"),
        planning.say("ENDS", "结束"),
        planning.say("IMBALANCE", "不均衡度"),
    ]);
    for step in &answer.plan.moves {
        let gain = gains.get(&step.vm).map_or_else(
            || planning.told(&step.reason),
            |(before, after)| format!("{before} → {after} ‰"),
        );
        table.row([
            planning.fleet.name_of(&step.vm),
            step.from.to_string(),
            step.to.to_string(),
            format!("{:.1} s", step.end_ms as f64 / 1000.0),
            gain,
        ]);
    }
    let why = planning.told(&answer.why);
    let mut text = match planning.language {
        Language::English => format!(
            "pool {pool}: {why}; imbalance {} → {} ‰\n",
            answer.before_permille, answer.after_permille
        ),
        Language::Chinese => format!(
            "主机池 {pool}:{why};不均衡度 {} → {} ‰\n",
            answer.before_permille, answer.after_permille
        ),
    };
    text.push_str(&table.render_rows());
    let reckoned = Reckoned::of(planning, &answer.plan);
    text.extend(reckoned.map(|reckoned| reckoned.text(planning)));
    for name in &answer.emptied {
        text.push_str(&format!(
            "{} {name}\n",
            planning.say("empty afterwards:", "之后清空:")
        ));
    }
    let labels = [
        planning.say("now:", "现在:"),
        planning.say("then:", "之后:"),
    ];
    for (label, told) in labels.into_iter().zip(headroom(planning, pool, answer)) {
        let told = told.map(|told| told.text(planning));
        text.extend(told.map(|told| format!("{label} {told}")));
    }
    text
}
