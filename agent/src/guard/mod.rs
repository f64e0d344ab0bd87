//! The guard: a small process of its own that lives on when the agent does not. It renews the
//! host's Lease with the boot id and the age of the agent's converge loop; it writes the host's
//! storage heartbeat and tells what it sees of others'; and where the host opted in and there is
//! a hardware watchdog it keeps the contract: a host that has lost both is emptied.
//!
//! What it decides is `failover::guard`. Here is the shell: files, threads on pools, the device,
//! the API. Nothing here waits for any of them: a loop of a quarter of a second looks at what
//! has arrived.

mod beater;
mod beating;
pub mod clock;
pub mod files;
mod ioctl;
pub mod kill;
mod pace;
pub mod pulse;
mod renewal;
mod site;
mod slot;
mod stopping;
pub mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use api::names::{
    LEASE_API_SEEN, LEASE_BOOT_ID, LEASE_GUARD, LEASE_GUARD_WHY, LEASE_HEARTBEATS, LEASE_LOOP_AGE,
    SYSTEM_NAMESPACE,
};
use failover::guard::heartbeats::HeartbeatReport;
use failover::guard::{GuardMemory, NotArmed, Readiness, arm, incarnation};
use failover::proof::self_fence::GuardRegistration;
use failover::{Moment, Policy};
use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use model::BootId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::beater::Beater;
use self::files::Firings;
use self::pace::Pace;
use self::renewal::{Renewal, Renewed, renew};
use self::site::Site;
use self::watchdog::Watchdog;
use crate::freeze;
use crate::options::GuardOptions;

/// Turn of the loop; the watchdog is fed as often.
const TURN: Duration = Duration::from_millis(250);
/// How often the policy, the host and the pools are read again.
const SITE_EVERY: u64 = 15_000;
/// How often a watchdog that could not be opened or shortened is tried again, milliseconds.
const WATCHDOG_AGAIN: u64 = 10_000;
/// A call to the API that takes longer is given up, and the next one tried.
const CALL_BOUND: Duration = Duration::from_millis(1500);

/// Boot id of the running kernel.
///
/// # Errors
/// procfs is not mounted.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path)
        .with_context(|| path.to_owned())?
        .trim()
        .to_owned())
}

/// What ended.
enum Ended {
    Renewal {
        sent_at: Moment,
        registration: GuardRegistration,
        result: Result<Renewed>,
    },
    Site(Result<Site>),
}

/// Runs until it is told to stop.
///
/// # Errors
/// The kubeconfig or the run folder can not be used.
pub async fn run(options: GuardOptions) -> Result<()> {
    let (ended, mut arrivals) = mpsc::unbounded_channel();
    let mut guard = Guard::start(options, ended).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => guard.turn()?,
            Some(ended) = arrivals.recv() => guard.take(ended)?,
            _ = terminate.recv() => return guard.stop().await,
            _ = tokio::signal::ctrl_c() => return guard.stop().await,
        }
    }
}

struct Guard {
    options: GuardOptions,
    client: Client,
    boot_id: String,
    memory: GuardMemory,
    stored: GuardMemory,
    /// What was last read of the API, by this guard or by one before it.
    site: Site,
    /// What of it the run folder has.
    kept_site: Site,
    /// This guard has read it.
    site_read: bool,
    site_due: Moment,
    beaters: BTreeMap<String, Beater>,
    /// Pools are mounts; tests have folders.
    pools_are_mounts: bool,
    watchdog: Option<(Box<dyn Watchdog>, Duration)>,
    watchdog_problem: String,
    watchdog_due: Moment,
    pace: Pace,
    /// The last renewal that was sent; it may have ended.
    under_way: Option<JoinHandle<()>>,
    version: Option<String>,
    token: Option<(String, Moment)>,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Guard {
    async fn start(options: GuardOptions, ended: mpsc::UnboundedSender<Ended>) -> Result<Self> {
        std::fs::create_dir_all(&options.run_dir)
            .with_context(|| format!("--run-dir {}", options.run_dir.display()))?;
        let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)
            .with_context(|| format!("--kubeconfig {}", options.kubeconfig.display()))?;
        let contexts = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &contexts).await?;
        // What is refused is tried again by `Pace`, and no call waits for longer than `bounded` lets it.
        let client = wire::client::client(config)?;
        let boot_id = boot_id()?;
        let memory = files::load(&options.run_dir, &boot_id)
            .with_context(|| format!("the guard's memory in {}", options.run_dir.display()))?;
        let kept_site = site::kept(&options.run_dir, &boot_id).unwrap_or_else(|error| {
            tracing::error!(
                %error,
                "the pools that carry heartbeats are not known before the API server answers: what was kept of them could not be read"
            );
            None
        });
        let kept_site = kept_site.unwrap_or_default();
        Ok(Self {
            options,
            client,
            boot_id,
            stored: memory.clone(),
            memory,
            site: kept_site.clone(),
            kept_site,
            site_read: false,
            site_due: Moment(0),
            beaters: BTreeMap::new(),
            pools_are_mounts: true,
            watchdog: None,
            watchdog_problem: "not opened yet".to_owned(),
            watchdog_due: Moment(0),
            pace: Pace::default(),
            under_way: None,
            version: None,
            token: None,
            ended,
        })
    }

    fn policy(&self) -> Policy {
        self.site.policy.clone().unwrap_or_default()
    }

    /// One look at everything.
    fn turn(&mut self) -> Result<()> {
        let now = clock::now()?;
        self.beat();
        self.keep_contract(now);
        self.look_after_watchdog(now);
        if now >= self.site_due {
            self.site_due = now.plus(SITE_EVERY);
            self.read_site();
        }
        if self.pace.is_due(now) && self.memory.may_renew() {
            self.send_renewal(now)?;
        }
        self.store();
        Ok(())
    }

    /// Counts, kills and feeds as the contract says.
    fn keep_contract(&mut self, now: Moment) {
        for (pool, beater) in &self.beaters {
            if let Some(at) = beater.state().beaten_at {
                self.memory.beaten(pool, at);
            }
        }
        let step = self.memory.step(now);
        if step.fires {
            tracing::error!(
                firings = self.memory.firings,
                "neither the API server nor any storage heartbeat was reached for the contract's time: every VM of this host is killed"
            );
            self.count(true);
            self.store();
        }
        if step.kill {
            let was_killing = self.memory.killing;
            let left = kill::kill_writers(&self.options.guest_cgroups, Path::new("/proc"));
            for line in left.iter().take(16) {
                tracing::error!("killed and not gone yet: {line}");
            }
            self.memory.killed(!left.is_empty());
            if was_killing && left.is_empty() {
                self.count(false);
            }
        }
        if let Some((watchdog, _)) = self.watchdog.as_mut().filter(|_| self.memory.may_feed())
            && let Err(error) = watchdog.feed()
        {
            tracing::error!(%error, "the watchdog could not be fed");
        }
    }

    /// Counts the firing for the agent and the hook. A count that can not be written must not
    /// keep the guard from killing; the watchdog is the last word then.
    fn count(&mut self, killing: bool) {
        let firings = Firings {
            count: self.memory.firings,
            killing,
        };
        if let Err(error) = firings.write(&self.options.run_dir) {
            tracing::error!(%error, "the firing could not be counted");
            self.memory.killing = true;
        }
    }

    /// Writes the memory and what was read of the API; false when one could not be written. A run
    /// folder that is full or read-only keeps no Lease from being renewed.
    fn store(&mut self) -> bool {
        let run_dir = &self.options.run_dir;
        if self.memory != self.stored {
            match files::store(run_dir, &self.boot_id, &self.memory) {
                Ok(()) => self.stored = self.memory.clone(),
                Err(error) => tracing::error!(%error, "the guard's memory could not be written"),
            }
        }
        if self.site != self.kept_site {
            match site::keep(run_dir, &self.boot_id, &self.site) {
                Ok(()) => self.kept_site = self.site.clone(),
                Err(error) => tracing::error!(%error, "the guard's pools could not be written"),
            }
        }
        self.memory == self.stored && self.site == self.kept_site
    }

    /// A registration that is about to be sent, once it is certain that a guard that is started
    /// again will know of it and of its pools; else none is armed.
    fn bind(&mut self, registration: GuardRegistration) -> GuardRegistration {
        let before = self.memory.clone();
        self.memory.offer(&registration);
        if self.store() || !registration.armed {
            return registration;
        }
        self.memory = before;
        let unarmed = GuardRegistration::default();
        self.memory.offer(&unarmed);
        unarmed
    }

    /// Whether what is known of policy, host and pools may be registered: what a guard before this one has read
    /// holds up what stands, and arms nothing anew. The host may have opted out since.
    fn site_counts(&self) -> bool {
        self.site_read || self.memory.bound().is_some()
    }

    /// Opens the watchdog where the host opted in, shortens its time-out where the policy now says so, and stops it
    /// where nothing is bound any more and nothing is to be.
    fn look_after_watchdog(&mut self, now: Moment) {
        let wanted = self.site_counts() && self.site.opted_in && !self.site.pools.is_empty();
        let bound = self.memory.bound().is_some();
        let allowed = Duration::from_millis(self.memory.watchdog_allowed(&self.policy()));
        // Opening one feeds it, and one that is stopped ends no kill that hangs.
        let may_feed = self.memory.may_feed();
        match &mut self.watchdog {
            None if (wanted || bound) && may_feed && now >= self.watchdog_due => {
                self.watchdog_due = now.plus(WATCHDOG_AGAIN);
                let opened = match &self.options.simulated_watchdog {
                    Some(path) => watchdog::open_simulated(path, allowed),
                    None => watchdog::open(&self.options.watchdog, allowed),
                };
                match opened {
                    Ok(opened) => self.watchdog = Some(opened),
                    Err(problem) => self.watchdog_problem = problem,
                }
            }
            Some((watchdog, _)) if !wanted && !bound && may_feed && self.site_read => {
                match watchdog.disarm() {
                    Ok(()) => self.watchdog = None,
                    Err(error) => tracing::warn!(%error, "the watchdog is fed on"),
                }
            }
            Some((watchdog, in_force)) if *in_force > allowed && now >= self.watchdog_due => {
                self.watchdog_due = now.plus(WATCHDOG_AGAIN);
                match watchdog.set_timeout(allowed) {
                    Ok(set) => *in_force = set,
                    Err(error) => {
                        tracing::warn!(%error, "the watchdog's time-out could not be shortened");
                    }
                }
            }
            _ => {}
        }
    }

    /// What may be registered now.
    fn registration(&self, now: Moment) -> Result<GuardRegistration, NotArmed> {
        let policy = self.policy();
        let recent = 2 * policy.heartbeat_interval_milliseconds;
        let beats = |pool: &&String| {
            let at = self.memory.beaten_at.get(*pool);
            at.is_some_and(|at| now.since(*at) <= recent)
        };
        let problems: Vec<String> = self
            .beaters
            .iter()
            .filter_map(|(pool, beater)| Some(format!("{pool}: {}", beater.state().problem?)))
            .collect();
        let ready = Readiness {
            opted_in: self.site.opted_in,
            declared: self.site.pools.keys().cloned().collect(),
            beating: self.site.pools.keys().filter(beats).cloned().collect(),
            problems: problems.join("; "),
            watchdog: match &self.watchdog {
                Some((_, timeout)) => Ok(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
                None => Err(self.watchdog_problem.clone()),
            },
        };
        let policy = self.site.policy.as_ref();
        arm(&ready, &self.memory, policy.filter(|_| self.site_counts()))
    }

    fn renewal(
        &self,
        registered: &Result<GuardRegistration, NotArmed>,
        now: Moment,
    ) -> Result<Renewal> {
        let states: Vec<_> = self
            .beaters
            .iter()
            .map(|(pool, beater)| (pool.as_str(), beater.state()))
            .collect();
        let watches = states.iter().map(|(pool, state)| (*pool, &state.watch));
        let report = HeartbeatReport::of(self.token.clone(), watches);
        let boot_id = incarnation(&BootId::new(self.boot_id.as_str()), self.memory.firings);
        let loop_age = pulse::age(&self.options.run_dir, &boot_id, now);
        let why = registered.as_ref().err().map(serde_json::to_string);
        let guard = serde_json::to_string(&registered.clone().unwrap_or_default())?;
        let heartbeats = (!self.beaters.is_empty()).then(|| serde_json::to_string(&report));
        Ok(Renewal {
            host: self.options.host.clone(),
            interval: Duration::from_millis(self.policy().lease_interval_milliseconds),
            annotations: BTreeMap::from([
                (LEASE_BOOT_ID, Some(boot_id.0)),
                (LEASE_LOOP_AGE, loop_age.map(|age| age.to_string())),
                (LEASE_GUARD, Some(guard)),
                (LEASE_GUARD_WHY, why.transpose()?),
                (LEASE_HEARTBEATS, heartbeats.transpose()?),
                (LEASE_API_SEEN, freeze::word(&self.options.run_dir)),
            ]),
        })
    }

    /// Sends a renewal; what it registers binds from here on, whether it arrives or not.
    fn send_renewal(&mut self, now: Moment) -> Result<()> {
        let mut registered = self.registration(now);
        let wanted = registered.clone().unwrap_or_default();
        let registration = self.bind(wanted.clone());
        if registration != wanted {
            let problems = "the guard's memory could not be written".to_owned();
            registered = Err(NotArmed::NoHeartbeatPool { problems });
        }
        let sent_at = clock::now()?;
        let renewal = self.renewal(&registered, sent_at)?;
        self.pace
            .sent(sent_at, self.policy().lease_interval_milliseconds);
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let (version, ended) = (self.version.clone(), self.ended.clone());
        self.under_way = Some(tokio::spawn(async move {
            let result = bounded(renew(&leases, &renewal, version)).await;
            // Nobody listens any more only when the guard is ending.
            let _ = ended.send(Ended::Renewal {
                sent_at,
                registration,
                result,
            });
        }));
        Ok(())
    }

    fn read_site(&self) {
        let (client, host) = (self.client.clone(), self.options.host.clone());
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let _ = ended.send(Ended::Site(bounded(site::read(&client, &host)).await));
        });
    }

    fn take(&mut self, ended: Ended) -> Result<()> {
        match ended {
            Ended::Renewal {
                sent_at,
                registration,
                result: Ok(renewed),
            } => {
                self.pace.acknowledged();
                self.memory.acknowledged(sent_at, &registration);
                self.version = renewed.version;
                self.see_token(renewed.token)?;
                self.store();
            }
            Ended::Renewal {
                result: Err(error), ..
            } => {
                self.pace.failed();
                // It may have arrived: the next one reads the Lease first.
                self.version = None;
                tracing::warn!(error = format!("{error:#}"), "the Lease was not renewed");
            }
            Ended::Site(Ok(site)) => self.use_site(site),
            Ended::Site(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "policy, host and pools were not read"
                );
            }
        }
        Ok(())
    }

    /// A token is answered as soon as the others were looked at once more.
    fn see_token(&mut self, token: Option<String>) -> Result<()> {
        let known = self.token.as_ref().map(|(known, _)| known);
        if let Some(token) = token
            && known != Some(&token)
        {
            let now = clock::now()?;
            self.token = Some((token, now));
            let half = self.policy().heartbeat_interval_milliseconds / 2;
            self.pace.no_later_than(now.plus(half));
        }
        Ok(())
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(CALL_BOUND, call)
        .await
        .context("the API server did not answer in time")?
}

#[cfg(test)]
mod beating_tests;
#[cfg(test)]
mod restarting_tests;
#[cfg(test)]
mod stopping_tests;
#[cfg(test)]
#[path = "renewing_tests.rs"]
mod tests;
