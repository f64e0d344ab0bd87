//! Load that is evened out on a live lab, and what was foretold of a failure against what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::{
    AdvisedMove, CloudPolicy, HostPool, MigrationPhase, Rebalancing, VirtualMachineMigration,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use lab::Lab;
use serde_json::{Value, json};

use crate::watch::{headroom, names_on, on_host, until};

/// The lab's policy and pool.
const POLICY: &str = "default";
const POOL: &str = "main";
/// The operator plans a pool anew every 10 s: in this time it does so at least once.
const PLANNED_ANEW: Duration = Duration::from_secs(12);

async fn set(client: &Client, rebalancing: Value) -> Result<()> {
    let api: Api<CloudPolicy> = Api::all(client.clone());
    let patch = json!({"spec": {"rebalancing": rebalancing}});
    api.patch(POLICY, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .context("rebalancing of the policy")
        .map(drop)
}

async fn told(client: &Client) -> Result<Rebalancing> {
    let pool: HostPool = Api::all(client.clone()).get(POOL).await?;
    let told = pool.status.and_then(|status| status.rebalancing);
    Ok(told.unwrap_or_default())
}

/// Moves that the operator made to even out load.
async fn made(client: &Client) -> Result<Vec<VirtualMachineMigration>> {
    let api: Api<VirtualMachineMigration> = Api::all(client.clone());
    let mut moves = api.list(&Default::default()).await?.items;
    moves.retain(|migration| migration.spec.reason == api::MigrationReason::Rebalance);
    Ok(moves)
}

/// The imbalance before and after a move, as it is told.
fn gain(step: &AdvisedMove) -> Option<(i64, i64)> {
    let numbers = step.gain.strip_prefix("imbalance ")?;
    let (before, after) = numbers.strip_suffix(" per mille")?.split_once(" -> ")?;
    Some((before.parse().ok()?, after.parse().ok()?))
}

/// One host carries nothing and another two VMs: the move that evens this out is advised with its gain,
/// made once the policy is Automatic, and nothing more is moved afterwards.
///
/// # Errors
/// What did not come, or came and should not have.
pub async fn load_is_evened_out(lab: &Lab) -> Result<()> {
    let client = &lab.client;
    let eager = |mode: &str| json!({"mode": mode, "thresholdPermille": 20, "coolDownSeconds": 60});
    set(client, eager("Advise")).await?;
    until(client, "a move to be advised", async || {
        let told = told(client).await?;
        Ok(told.state == "Advised" && !told.moves.is_empty())
    })
    .await?;
    let advised = told(client).await?;
    let step = advised.moves.first().context("a move")?;
    let (before, after) = gain(step).with_context(|| format!("gain {:?}", step.gain))?;
    ensure!(after < before, "the move gains nothing: {}", step.gain);
    ensure!(
        advised.imbalance_permille == before && advised.after_permille <= after,
        "{advised:?}"
    );
    ensure!(
        made(client).await?.is_empty(),
        "a move was made that was only advised"
    );
    set(client, eager("Automatic")).await?;
    until(client, "a move to succeed and calm to follow", async || {
        let done = |migration: &VirtualMachineMigration| {
            let phase = migration.status.as_ref().map(|status| status.phase);
            phase == Some(MigrationPhase::Succeeded)
        };
        let moves = made(client).await?;
        let told = told(client).await?;
        Ok(!moves.is_empty() && moves.iter().all(done) && told.state == "Calm")
    })
    .await?;
    let calm = told(client).await?;
    ensure!(
        calm.imbalance_permille < before,
        "imbalance {} after {before}",
        calm.imbalance_permille
    );
    let moves = made(client).await?.len();
    tokio::time::sleep(PLANNED_ANEW).await;
    ensure!(
        made(client).await?.len() == moves && told(client).await?.state == "Calm",
        "it does not stay quiet: {:?}",
        told(client).await?
    );
    set(client, Value::Null).await?;
    println!(
        "load was evened out by {moves} moves: imbalance {before} -> {} per mille, then quiet",
        calm.imbalance_permille
    );
    Ok(())
}

/// What `zyctl what-if host-down` says.
pub struct Foretold {
    host: String,
    /// VMs that start elsewhere, with where.
    restarts: BTreeSet<(String, String)>,
    /// N+1 of the pool afterwards.
    state: String,
}

/// Reads the answer, and checks that it speaks of what is there.
///
/// # Errors
/// It is not what it should be.
pub async fn foretold(lab: &Lab, host: &str, answer: &str) -> Result<Foretold> {
    let answer: Value = serde_json::from_str(answer)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |value: &Value| {
        let full = text(value);
        full.split('/').next_back().unwrap_or_default().to_owned()
    };
    let restarts = answer["restarts"].as_array().cloned().unwrap_or_default();
    let restarts: BTreeSet<(String, String)> = restarts
        .iter()
        .map(|restart| (name(&restart["virtualMachine"]), text(&restart["to"])))
        .collect();
    let here: BTreeSet<String> = names_on(&lab.client, host).await?.into_iter().collect();
    let named: BTreeSet<String> = restarts.iter().map(|(vm, _)| vm.clone()).collect();
    ensure!(named == here, "{here:?} are on {host}: {answer:#}");
    Ok(Foretold {
        host: host.to_owned(),
        restarts,
        state: text(&answer["after"]["state"]),
    })
}

impl Foretold {
    /// The host has failed and its VMs run elsewhere: each where it was foretold, and N+1 stands as it was.
    ///
    /// # Errors
    /// What came differently.
    pub async fn came_true(&self, lab: &Lab) -> Result<()> {
        let mut where_now = BTreeSet::new();
        for (vm, to) in &self.restarts {
            ensure!(
                *to != self.host && !to.is_empty(),
                "{vm} was to go to {to:?}"
            );
            let there = on_host(&lab.client, to).await?;
            if there.iter().any(|known| known.name_any() == *vm) {
                where_now.insert((vm.clone(), to.clone()));
            }
        }
        ensure!(
            where_now == self.restarts,
            "foretold {:?}, of which came true {where_now:?}",
            self.restarts
        );
        until(&lab.client, "N+1 to stand as foretold", async || {
            Ok(headroom(&lab.client).await? == self.state)
        })
        .await?;
        println!(
            "what-if host-down {} came true: {:?}, N+1 {}",
            self.host, self.restarts, self.state
        );
        Ok(())
    }
}
