//! Chaos: faults at random moments on a real site, alone and in pairs; everything is healed, the site
//! must come to rest, and a judge who shares no code with the product reads what happened
//! (`lab/judge/src/chaos.rs`). The seed tells the plan; the moments are the machine's.

pub mod command;
mod observe;
pub mod plan;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::Incident;
use judge::chaos::Verdict;
use judge::history::{self, Entry};
use judge::results::Results;
use kube::Api;

use crate::fault::Fault;
use crate::judges::{self, now};
use crate::lifecycle::Lab;
use crate::{declarations, guards, host, rest};
use plan::{Blow, Plan};

/// Longest time for a site to come to rest after everything was healed. A host boots in seconds, a
/// storm is waited out for a minute, and guests start one after another on a busy machine.
const REST: Duration = Duration::from_secs(240);

/// What is thrown, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the plan.
    pub seed: u64,
    /// No new round begins after this time.
    pub lasts: Duration,
    /// Only these faults; empty: all.
    pub only: Vec<Fault>,
    /// Business systems to host; empty: all that are declared.
    pub systems: Vec<String>,
    /// Arm the guards of all hosts; hosts are cut off from everything now and then.
    pub guards: bool,
    /// Folder for `history.jsonl` and `probes.jsonl`.
    pub out: PathBuf,
}

/// The history that is written, also while others look on.
#[derive(Clone)]
struct Record {
    file: Arc<Mutex<File>>,
    begin: Instant,
}

impl Record {
    fn write(&self, entry: &Entry) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{}\n", serde_json::to_string(entry)?).as_bytes())?;
        Ok(())
    }

    /// Tells a person.
    fn note(&self, text: &str) {
        eprintln!("[{:6.1} s] {text}", self.begin.elapsed().as_secs_f64());
    }
}

/// Throws faults at a lab that is up, and judges. The verdict is printed; the files stay in
/// [`Options::out`].
///
/// # Errors
/// The site can not be deployed, or a fault can not be made or healed.
pub async fn run(lab: &Lab, options: &Options) -> Result<Verdict> {
    fs::create_dir_all(&options.out)
        .with_context(|| format!("--out {}: can not be made", options.out.display()))?;
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(history_file(&options.out))?;
    let record = Record {
        file: Arc::new(Mutex::new(file)),
        begin: Instant::now(),
    };
    record.note(&format!("seed {}", options.seed));
    declarations::deploy(lab, &options.systems).await?;
    let unrest = rest::wait(&lab.client, REST, async || {}).await;
    ensure!(unrest.is_empty(), "before any fault: {}", unrest.join("; "));
    if options.guards {
        guards::arm(lab).await?;
        record.note("the guard of every host is armed");
    }
    judges::start_prober(&lab.files, &lab.client).await?;
    let hosts = lab.hosts()?;
    let boots = hosts
        .iter()
        .map(|name| Ok((name.clone(), host::boot_id(&lab.files, name)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    record.write(&Entry::Begin {
        at: now(),
        seed: options.seed,
        hosts: boots,
        contract_seconds: options.guards.then_some(guards::TIMERS[0]),
    })?;
    let watching = tokio::spawn(observe::follow(
        lab.files.clone(),
        lab.client.clone(),
        record.clone(),
    ));
    let ended = rounds(lab, options, &record, hosts).await;
    watching.abort();
    ended?;
    conclude(lab, options, &record).await
}

/// Where the history lies.
pub fn history_file(folder: &Path) -> PathBuf {
    folder.join("history.jsonl")
}

/// Where the prober's results lie.
pub fn probes_file(folder: &Path) -> PathBuf {
    folder.join("probes.jsonl")
}

async fn rounds(lab: &Lab, options: &Options, record: &Record, hosts: Vec<String>) -> Result<()> {
    let begin = Instant::now();
    for (number, blows) in plan(options, hosts).enumerate() {
        let told: Vec<String> = blows.iter().map(ToString::to_string).collect();
        record.note(&format!("round {}: {}", number + 1, told.join(" · ")));
        round(lab, record, &blows).await?;
        if !settle(lab, record).await? || begin.elapsed() > options.lasts {
            break;
        }
    }
    Ok(())
}

/// The rounds that these options ask for.
fn plan(options: &Options, hosts: Vec<String>) -> Plan {
    let plan = Plan::new(options.seed, hosts, options.only.clone());
    if options.guards {
        plan.with_guards()
    } else {
        plan
    }
}

/// Makes and heals the faults of one round, each at its moment.
async fn round(lab: &Lab, record: &Record, blows: &[Blow]) -> Result<()> {
    let mut acts: Vec<(Duration, bool, &Blow)> = blows
        .iter()
        .flat_map(|blow| {
            [
                (blow.after, true, blow),
                (blow.after + blow.lasts, false, blow),
            ]
        })
        .collect();
    acts.sort_by_key(|(at, _, _)| *at);
    let begin = tokio::time::Instant::now();
    for (at, strikes, blow) in acts {
        tokio::time::sleep_until(begin + at).await;
        let files = lab.files.clone();
        let (own, log) = (blow.clone(), record.clone());
        // Killing and starting wait for processes.
        tokio::task::spawn_blocking(move || match strikes {
            true => strike(&files, &log, &own),
            false => mend(&files, &log, &own),
        })
        .await??;
    }
    Ok(())
}

fn strike(files: &crate::LabFiles, record: &Record, blow: &Blow) -> Result<()> {
    let (fault, host) = (blow.fault.name(), blow.host.clone());
    record.write(&Entry::Fault {
        at: now(),
        fault: fault.clone(),
        host: host.clone(),
    })?;
    let Err(error) = crate::fault::inject(files, host.as_deref(), blow.fault) else {
        return Ok(());
    };
    if host.as_ref().is_some_and(|host| !host::is_on(files, host)) {
        record.note(&format!("{blow}: spared, the host is off"));
        return record.write(&Entry::Spared {
            at: now(),
            fault,
            host,
            why: format!("{error:#}"),
        });
    }
    Err(error).with_context(|| format!("{blow} could not be made"))
}

fn mend(files: &crate::LabFiles, record: &Record, blow: &Blow) -> Result<()> {
    let host = blow.host.as_deref();
    if let Err(error) = crate::fault::heal(files, host, blow.fault) {
        // What was stopped in a host that was forced off meanwhile is gone with it.
        let off = host.is_some_and(|host| !host::is_on(files, host));
        if !off {
            return Err(error).with_context(|| format!("{blow} could not be healed"));
        }
    }
    record.write(&Entry::Heal {
        at: now(),
        fault: blow.fault.name(),
        host: blow.host.clone(),
    })
}

/// A person switches on what is off and clears what is mended; the site must come to rest.
async fn settle(lab: &Lab, record: &Record) -> Result<bool> {
    let begin = Instant::now();
    let what = rest::wait(&lab.client, REST, async || {
        if let Err(error) = rest::tend(lab).await {
            record.note(&format!("tending: {error:#}"));
        }
    })
    .await;
    let at = now();
    if what.is_empty() {
        let after_seconds = begin.elapsed().as_secs_f64();
        record.note(&format!("at rest after {after_seconds:.1} s"));
        record.write(&Entry::Rest { at, after_seconds })?;
        return Ok(true);
    }
    record.note(&format!("no rest: {}", what.join("; ")));
    record.write(&Entry::Restless { at, what })?;
    Ok(false)
}

/// Gathers what judges need, and lets them judge.
async fn conclude(lab: &Lab, options: &Options, record: &Record) -> Result<Verdict> {
    judges::stop_prober(&lab.files)?;
    for (volume, verdict) in judges::judge_disks(&lab.files, &lab.client).await? {
        record.write(&Entry::Disk {
            volume,
            guest: verdict.guest.clone(),
            writes: verdict.last,
            problems: verdict
                .problems
                .iter()
                .map(|problem| format!("{problem:?}"))
                .collect(),
        })?;
    }
    let incidents: Api<Incident> = Api::all(lab.client.clone());
    for incident in incidents.list(&Default::default()).await? {
        record.write(&Entry::Incident {
            object: serde_json::to_value(&incident)?,
        })?;
    }
    for host in lab.hosts()? {
        for at in guards::fired_on(lab, &host)? {
            let host = host.clone();
            record.write(&Entry::Guard { at, host })?;
        }
    }
    // Lines of one writer each; the judge sorts by time where order matters.
    let power = host::power_file(&lab.files);
    for entry in history::read(&power)? {
        record.write(&entry)?;
    }
    fs::copy(judges::results_file(&lab.files), probes_file(&options.out))?;
    let history = history::read(&history_file(&options.out))?;
    let verdict = judge::chaos::judge(&history, &Results::read(&probes_file(&options.out))?);
    if !verdict.is_clean() {
        keep_evidence(lab, &options.out)?;
    }
    Ok(verdict)
}

/// Copies every log and every guest's console beside the history: the lab is about to go.
fn keep_evidence(lab: &Lab, out: &Path) -> Result<()> {
    copy_files(&lab.files.logs(), &out.join("logs"))?;
    for name in lab.hosts()? {
        let init = host::processes(&lab.files, &name, "zylab")?;
        if let Some(pid) = init.last() {
            let consoles = PathBuf::from(format!("/proc/{pid}/root/run/zhengyun/consoles"));
            copy_files(&consoles, &out.join("consoles").join(&name))?;
        }
    }
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(from).with_context(|| from.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// A verdict as text.
pub fn tell(verdict: &Verdict, options: &Options) -> String {
    let mut lines = vec![format!(
        "seed {}: {} faults, {} hosts died, guards {} and killed {} times, {} Incidents, {} probes, {} stamped writes, rest after {:.0} s at the longest",
        options.seed,
        verdict.faults,
        verdict.deaths,
        if options.guards { "armed" } else { "not armed" },
        verdict.firings,
        verdict.incidents,
        verdict.probes,
        verdict.writes,
        verdict.longest_rest_seconds
    )];
    lines.extend(verdict.findings.iter().map(ToString::to_string));
    lines.push(format!(
        "{}; judge it again: zy-history {} --probes {}",
        if verdict.is_clean() { "clean" } else { "RED" },
        history_file(&options.out).display(),
        probes_file(&options.out).display()
    ));
    lines.join("\n")
}
