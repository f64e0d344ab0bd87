//! `zyctl drain --dry-run`: who would move where and when, and what can not move. Asks the same
//! `placement` that the operator asks; changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use api::CloudPolicy;
use fleet::{Objects, closed_by_condition};
use kube::{Client, Resource};
use model::{HostName, VmUid};
use placement::{Fleet, Plan, plan_evacuation};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Context;
use crate::client::list;
use crate::options::Output;
use crate::table::Table;

/// Plans and prints.
///
/// # Errors
/// The host does not exist, or the API can not be read.
pub async fn run(context: &Context, host: &str) -> Result<()> {
    let objects = read(&context.client).await?;
    let name = HostName(host.to_owned());
    if !objects
        .hosts
        .iter()
        .any(|known| known.metadata.name.as_deref() == Some(host))
    {
        bail!("host {host} does not exist; see kubectl get zh");
    }
    let policies: Vec<CloudPolicy> = list(&context.client).await?;
    let policy = policies
        .first()
        .map(|policy| policy.spec.clone())
        .unwrap_or_default();
    let fleet = objects.fleet(closed_by_condition);
    let request = objects.evacuation(&policy, BTreeSet::from([name]));
    let plan = plan_evacuation(&fleet, &request);
    match context.output {
        Output::Json => context.print_json(&as_json(&fleet, &plan)),
        Output::Table => {
            print!("{}", as_table(context, &fleet, &plan));
            Ok(())
        }
    }
}

async fn read(client: &Client) -> Result<Objects> {
    async fn shared<K>(client: &Client) -> Result<Vec<Arc<K>>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        Ok(list::<K>(client).await?.into_iter().map(Arc::new).collect())
    }
    let (host_pools, hosts, vms, volumes, networks, images) = futures::try_join!(
        shared(client),
        shared(client),
        shared(client),
        shared(client),
        shared(client),
        shared(client)
    )?;
    Ok(Objects {
        host_pools,
        hosts,
        vms,
        volumes,
        networks,
        images,
    })
}

fn vm_name(fleet: &Fleet, uid: &VmUid) -> String {
    fleet
        .vms
        .get(uid)
        .map_or_else(|| uid.to_string(), |vm| vm.name.to_string())
}

fn as_json(fleet: &Fleet, plan: &Plan) -> serde_json::Value {
    let moves: Vec<_> = plan
        .moves
        .iter()
        .map(|step| {
            json!({
                "virtualMachine": vm_name(fleet, &step.vm), "from": step.from, "to": step.to,
                "startMilliseconds": step.start_ms, "endMilliseconds": step.end_ms, "bytes": step.bytes,
                "after": step.after.iter().map(|uid| vm_name(fleet, uid)).collect::<Vec<_>>(),
                "reason": step.reason,
            })
        })
        .collect();
    let stuck: Vec<_> = plan
        .stuck
        .iter()
        .map(|stuck| json!({"virtualMachine": vm_name(fleet, &stuck.vm), "why": stuck.why}))
        .collect();
    json!({"moves": moves, "stuck": stuck, "endMilliseconds": plan.end_ms, "lowerBoundMilliseconds": plan.bound_ms})
}

fn as_table(context: &Context, fleet: &Fleet, plan: &Plan) -> String {
    let seconds = |milliseconds: u64| format!("{:.1} s", milliseconds as f64 / 1000.0);
    let mut text = String::new();
    let mut table = Table::new([
        context.say("VM", "虚拟机"),
        context.say("FROM", "从"),
        context.say("TO", "到"),
        context.say("STARTS", "开始"),
        context.say("ENDS", "结束"),
        context.say("WHY THERE", "选择理由"),
    ]);
    for step in &plan.moves {
        table.row([
            vm_name(fleet, &step.vm),
            step.from.to_string(),
            step.to.to_string(),
            seconds(step.start_ms),
            seconds(step.end_ms),
            step.reason.clone(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for stuck in &plan.stuck {
        text.push_str(&format!(
            "{} {}: {}\n",
            context.say("stays:", "无法迁移:"),
            vm_name(fleet, &stuck.vm),
            stuck.why
        ));
    }
    let verdict = match (plan.moves.is_empty(), plan.stuck.is_empty()) {
        (true, true) => context
            .say("The host carries no VM.", "该宿主机上没有虚拟机。")
            .to_owned(),
        (_, true) => format!(
            "{} {}",
            context.say("Empty after about", "预计清空用时约"),
            seconds(plan.end_ms)
        ),
        (_, false) => context
            .say(
                "The host can not be emptied as things stand.",
                "当前条件下无法清空该宿主机。",
            )
            .to_owned(),
    };
    text.push_str(&verdict);
    text.push_str(context.say(" Nothing was changed.\n", " 未做任何更改。\n"));
    text
}
