//! The shell around `failover::agent::freeze`: what this host remembers of the API's versions, kept
//! in the run folder; the look at the API that may freeze it; what a frozen host says; and how it
//! acts again after a rebase.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::names::POLICY_NAME;
use api::{CloudPolicy, FrozenCopy, FrozenReport, VirtualMachine};
use failover::agent::freeze::{ApiMemory, Begun, SiteWord, Step};
use failover::agent::ledger::EpochState;
use hypervisor::{Domain, Owner};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use model::{Assignment, Epoch, VmUid};
use serde::de::DeserializeOwned;

use crate::agent::Context;
use crate::guard::files::replace;
use crate::vm::worker::{self, VmRef};

/// How often the API's version is looked at when nothing is wrong.
const LOOK: Duration = Duration::from_secs(10);
/// How often it is looked for whether a look is due.
const TURN: Duration = Duration::from_millis(500);

/// The memory of this boot, and what is said while it is frozen.
#[derive(Debug)]
pub struct Freezer {
    path: PathBuf,
    memory: Mutex<Memory>,
    report: Mutex<Option<FrozenReport>>,
    /// The roll-call that was last read.
    roll_call: Mutex<String>,
}

/// As it is, and as its file has it.
#[derive(Debug)]
struct Memory {
    now: ApiMemory,
    kept: ApiMemory,
}

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("api-memory.json")
}

/// What this host remembers, for the guard to tell with each renewal; none: nothing, or it is
/// frozen and its agent says so.
pub fn word(run_dir: &Path) -> Option<String> {
    let bytes = std::fs::read(file(run_dir)).ok()?;
    let memory: ApiMemory = serde_json::from_slice(&bytes).ok()?;
    memory.word()
}

impl Freezer {
    /// Reads the memory of this boot.
    ///
    /// # Errors
    /// It is there and can not be read: then nobody knows whether this host is frozen.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let path = file(run_dir);
        let memory = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ApiMemory::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self {
            path,
            memory: Mutex::new(Memory {
                kept: memory.clone(),
                now: memory,
            }),
            report: Mutex::default(),
            roll_call: Mutex::default(),
        })
    }

    /// Whether this host starts and stops VMs.
    pub fn acts(&self) -> bool {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.now.freeze.is_none()
    }

    /// What a frozen host says, once nothing is under way any more.
    pub fn report(&self) -> Option<FrozenReport> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone().filter(|_| !self.acts())
    }

    /// Changes the memory and keeps it. A memory that can not be kept is an error: whoever asks
    /// does not act on it, and the next change tries to keep it again.
    fn change<T>(&self, change: impl FnOnce(&mut ApiMemory) -> T) -> Result<T> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let acted = memory.now.freeze.is_none();
        let result = change(&mut memory.now);
        if acted && let Some(freeze) = &memory.now.freeze {
            tracing::error!(
                cause = freeze.cause,
                "frozen: nothing is started or stopped here before zyctl failover rebase"
            );
        }
        if memory.now != memory.kept {
            replace(&self.path, &serde_json::to_vec(&memory.now)?)
                .with_context(|| self.path.display().to_string())?;
            memory.kept = memory.now.clone();
        }
        Ok(result)
    }

    /// To be taken before a fresh list is asked for.
    pub fn begin(&self) -> Begun {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.now.begin()
    }

    /// A quorum read of one object by its name.
    ///
    /// # Errors
    /// The API can not be reached, or this host is frozen.
    pub async fn read<K>(&self, api: &Api<K>, name: &str) -> Result<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        // A list carries the version of the whole store, which tells an API that went back.
        let only = ListParams::default().fields(&format!("metadata.name={name}"));
        let begun = self.begin();
        let list = api.list(&only).await.context("fresh read")?;
        self.see(list.metadata.resource_version.as_deref(), &begun)?;
        Ok(list.items.into_iter().next())
    }

    /// Takes the version of a fresh list.
    ///
    /// # Errors
    /// This host is frozen, or the memory could not be kept.
    pub fn see(&self, version: Option<&str>, begun: &Begun) -> Result<()> {
        let version = version.and_then(|version| version.parse().ok());
        if let Some(version) = version {
            self.change(|memory| memory.see(version, begun))?;
        }
        self.must_act()
    }

    /// Takes the epoch of a copy that runs here beside a freshly read `lastEpoch`.
    ///
    /// # Errors
    /// This host is frozen, or the memory could not be kept.
    pub fn see_epoch(&self, vm: &str, running: Epoch, last: i64) -> Result<()> {
        self.change(|memory| memory.see_epoch(&VmUid::from(vm), running, Epoch(last)))?;
        self.must_act()
    }

    fn must_act(&self) -> Result<()> {
        if self.acts() {
            return Ok(());
        }
        bail!("this host is frozen: the API went back; zyctl failover rebase ends it")
    }

    /// Takes the roll-call that was read after this host froze.
    fn hear(&self, roll_call: String) {
        *self
            .roll_call
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = roll_call;
    }

    /// The roll-call that is answered with what is listed from now on; none while this host acts or work on a VM
    /// is under way.
    pub fn answers(&self, idle: bool) -> Option<String> {
        let roll_call = self.roll_call.lock();
        let roll_call = roll_call.unwrap_or_else(PoisonError::into_inner);
        (idle && !self.acts()).then(|| roll_call.clone())
    }

    /// Says what runs here, as the answer to a roll-call; nothing without one.
    pub fn tell(&self, context: &Context, domains: &[Domain], answers: Option<String>) {
        let (freeze, epochs) = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            (memory.now.freeze.clone(), memory.now.epochs)
        };
        let told = freeze.zip(answers).and_then(|(freeze, roll_call)| {
            Some(FrozenReport {
                cause: freeze.cause,
                rebase: freeze.rebase?,
                roll_call,
                highest_epoch: match context.ledger.highest() {
                    Ok(highest) => highest.max(epochs.0),
                    Err(error) => {
                        tracing::error!(%error, "what runs here is not told");
                        return None;
                    }
                },
                copies: domains.iter().filter_map(copy).collect(),
            })
        });
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }
}

fn copy(domain: &Domain) -> Option<FrozenCopy> {
    let owner = domain.owner.as_ref()?;
    Some(FrozenCopy {
        vm: owner.vm.to_string(),
        name: format!("{}/{}", owner.namespace, owner.name),
        epoch: owner.epoch.0,
        // One whose disk failed is no arrival: it ran.
        runs: domain.state.has_run(),
    })
}

/// Looks at the API's version now and then, at once after a watch was interrupted, and at every
/// turn while the site or this host is frozen.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let mut looked: Option<Instant> = None;
    let mut acted = true;
    loop {
        let interrupted = context.view.was_interrupted();
        let frozen = !context.freezer.acts() || context.view.site_frozen();
        if interrupted || frozen || looked.is_none_or(|at| at.elapsed() >= LOOK) {
            match look(context).await {
                Ok(()) => looked = Some(Instant::now()),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the API's version was not read"
                    );
                }
            }
        }
        // A frozen host follows what the restored API says; one that thaws may have slept through a
        // second restore, which changes nothing for a frozen one.
        if acted != context.freezer.acts() {
            acted = !acted;
            context.view.begin_anew();
        }
        tokio::time::sleep(TURN).await;
    }
}

async fn look(context: &Arc<Context>) -> Result<()> {
    let policies: Api<CloudPolicy> = Api::all(context.client.clone());
    let only = ListParams::default().fields(&format!("metadata.name={POLICY_NAME}"));
    let begun = context.freezer.begin();
    let list = policies.list(&only).await.context("CloudPolicy")?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let number: u64 = version
        .parse()
        .with_context(|| format!("version {version:?} of the API server"))?;
    let acted = context.freezer.acts();
    context
        .freezer
        .change(|memory| memory.see(number, &begun))?;
    if acted && !context.freezer.acts() {
        // What the policy says counts only when it was read after the freeze began.
        return Ok(());
    }
    let status = list
        .items
        .into_iter()
        .next()
        .and_then(|policy| policy.status)
        .unwrap_or_default();
    let site = SiteWord {
        frozen: status.frozen.is_some(),
        rebase: status.last_rebase.map(|last| last.id).unwrap_or_default(),
    };
    let step = context.freezer.change(|memory| memory.step(&site))?;
    let roll_call = status.frozen.map(|frozen| frozen.roll_call);
    context.freezer.hear(roll_call.unwrap_or_default());
    if step == Step::Settle {
        let epochs = settle(context).await?;
        context
            .freezer
            .change(|memory| memory.thaw(number, &site.rebase, epochs))?;
        tracing::warn!(
            rebase = site.rebase,
            "the site was rebased; this host acts again"
        );
        context.view.changed.notify_one();
    }
    Ok(())
}

/// Closes every epoch that the rights do not name: a start that was allowed before the restore,
/// a copy that arrived and whose move nobody remembers, an assignment of the backup that this host
/// has not begun. A copy whose VM is gone from the API is kept; what has not become a copy yet may
/// not, as another VM of the backup may hold its disk. Returns the highest `lastEpoch`.
async fn settle(context: &Arc<Context>) -> Result<Epoch> {
    let vms: Api<VirtualMachine> = Api::all(context.client.clone());
    let listed = vms.list(&ListParams::default()).await.context("VMs")?.items;
    let domains = context.hypervisor.list().await?;
    let owners: BTreeMap<String, &Owner> = domains
        .iter()
        .filter_map(|domain| Some((domain.uuid.to_string(), domain.owner.as_ref()?)))
        .collect();
    let mut unlisted = context.ledger.uids()?;
    let mut highest = Epoch(0);
    for vm in &listed {
        let uid = vm.uid().unwrap_or_default();
        let known = unlisted.remove(&uid);
        let reference = VmRef {
            uid: uid.clone(),
            namespace: vm.namespace().unwrap_or_default(),
            name: vm.name_any(),
        };
        let status = vm.status.clone().unwrap_or_default();
        highest = highest.max(Epoch(status.last_epoch));
        let mine =
            |right: &&Assignment| right.host == context.host && right.boot_id == context.boot_id;
        let rights: Vec<Epoch> = status
            .assignment
            .iter()
            .chain(&status.incoming)
            .filter(mine)
            .map(|right| right.epoch)
            .collect();
        let here = owners.get(&uid);
        let here = here.filter(|owner| owner.boot_id == context.boot_id);
        if let Some(owner) = here
            && !rights.contains(&owner.epoch)
        {
            worker::close_locally(context, &reference, owner.epoch).await?;
        }
        let runs = here.map(|owner| owner.epoch);
        if known || !rights.is_empty() {
            close_all_but(context, &uid, &rights, runs)?;
        }
    }
    for uid in unlisted {
        close_all_but(
            context,
            &uid,
            &[],
            owners.get(&uid).map(|owner| owner.epoch),
        )?;
    }
    Ok(highest)
}

/// Closes what a VM's ledger knows and what its rights name, except what runs.
fn close_all_but(
    context: &Context,
    uid: &str,
    rights: &[Epoch],
    runs: Option<Epoch>,
) -> Result<()> {
    let entry = context.ledger.entry(uid)?;
    let seen = entry.epochs.keys().map(|epoch| Epoch(*epoch));
    for epoch in seen.chain(rights.iter().copied()).collect::<BTreeSet<_>>() {
        let over = matches!(
            entry.state(epoch.0),
            Some(EpochState::Closed | EpochState::HandedOver)
        );
        if !over && runs != Some(epoch) {
            context.ledger.close(uid, epoch.0)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(freezer: &Freezer, version: &str) -> Result<()> {
        let begun = freezer.begin();
        freezer.see(Some(version), &begun)
    }

    #[test]
    fn a_freeze_outlives_the_agent_and_is_told_by_the_guard() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(word(folder.path()), None);
        let freezer = Freezer::open(folder.path()).expect("no memory yet");
        see(&freezer, "120").expect("first sight");
        see(&freezer, "130").expect("grows");
        assert_eq!(word(folder.path()), Some("130 ".to_owned()));
        see(&freezer, "129").expect_err("went back");
        let again = Freezer::open(folder.path()).expect("kept");
        assert!(!again.acts(), "a restart of the agent does not thaw");
        see(&again, "500").expect_err("still frozen");
        assert_eq!(again.report(), None, "nothing is told before it is idle");
    }

    #[test]
    fn a_memory_that_is_torn_or_can_not_be_kept_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let freezer = Freezer::open(folder.path()).expect("none yet");
        std::fs::write(file(folder.path()), "{").expect("write");
        Freezer::open(folder.path()).expect_err("torn");
        drop(folder);
        see(&freezer, "7").expect_err("its folder is gone");
    }

    #[test]
    fn a_freeze_that_could_not_be_kept_is_kept_by_the_next_look() {
        let folder = tempfile::tempdir().expect("a folder");
        let run_dir = folder.path().join("run");
        std::fs::create_dir(&run_dir).expect("made");
        let freezer = Freezer::open(&run_dir).expect("none yet");
        see(&freezer, "9").expect("first sight");
        std::fs::rename(&run_dir, folder.path().join("away")).expect("gone");
        see(&freezer, "7").expect_err("went back, and not kept");
        std::fs::rename(folder.path().join("away"), &run_dir).expect("back");
        see(&freezer, "8").expect_err("still frozen");
        let again = Freezer::open(&run_dir).expect("kept");
        assert!(!again.acts());
    }

    #[test]
    fn an_epoch_above_the_apis_freezes() {
        let folder = tempfile::tempdir().expect("a folder");
        let freezer = Freezer::open(folder.path()).expect("none yet");
        freezer.see_epoch("vm", Epoch(4), 4).expect("as issued");
        freezer.see_epoch("vm", Epoch(5), 4).expect_err("above");
    }
}
