//! All probes of one host: which there are, one poll over those asked for, and the state that
//! outlives a restart of the agent.
//!
//! The fast probes take milliseconds; disks and BMC may take a minute. A caller runs them in two
//! [`Probes`] (see [`Probe::FAST`], [`Probe::SLOW`]), so that a hanging disk delays no memory error.

use std::collections::BTreeMap;

use model::Fault;
use serde::{Deserialize, Serialize};

use crate::array;
use crate::clock::{self, ClockState};
use crate::command::Runner;
use crate::file_system::{self, FileSystemHistory};
use crate::finding::{Findings, Moment, ProbeError, Reading};
use crate::hwmon;
use crate::ipmi;
use crate::kernel_log::{LogHistory, LogReader};
use crate::link::{self, LinkHistory};
use crate::memory::{self, MemoryHistory};
use crate::redfish::{self, RedfishSource};
use crate::smart;
use crate::source::Roots;
use crate::storage_pool::{PoolSample, judge_pools};
use crate::thresholds::Thresholds;
use crate::tracker::{Change, FaultTracker};

/// One kind of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// Memory errors (EDAC).
    Memory,
    /// The kernel's log.
    KernelLog,
    /// Temperatures and fans (hwmon).
    Hwmon,
    /// md arrays.
    Arrays,
    /// Network links.
    Links,
    /// Read-only file systems.
    FileSystems,
    /// Storage pools, from measured latencies.
    StoragePools,
    /// The clock, from the kernel's state.
    Clock,
    /// Disks (smartctl).
    Disks,
    /// The host's own BMC.
    Bmc,
}

impl Probe {
    /// Those that take milliseconds.
    pub const FAST: &[Probe] = &[
        Probe::Memory,
        Probe::KernelLog,
        Probe::Hwmon,
        Probe::Arrays,
        Probe::Links,
        Probe::FileSystems,
        Probe::StoragePools,
        Probe::Clock,
    ];
    /// Those that wait for disks and BMC.
    pub const SLOW: &[Probe] = &[Probe::Disks, Probe::Bmc];

    /// Name for messages and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Probe::Memory => "memory",
            Probe::KernelLog => "kernel-log",
            Probe::Hwmon => "hwmon",
            Probe::Arrays => "arrays",
            Probe::Links => "links",
            Probe::FileSystems => "file-systems",
            Probe::StoragePools => "storage-pools",
            Probe::Clock => "clock",
            Probe::Disks => "disks",
            Probe::Bmc => "bmc",
        }
    }
}

/// The BMC as the caller reaches it.
#[derive(Clone, Copy)]
pub enum Bmc<'a> {
    /// The host has none, or none is configured: not probed.
    None,
    /// Over Redfish.
    Redfish(&'a dyn RedfishSource),
    /// Over IPMI: what `ipmitool sdr elist` printed.
    Ipmi(&'a str),
    /// It could not be asked, with the reason.
    Failed(&'a str),
}

/// All that a poll needs from outside.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Where to read.
    pub roots: &'a Roots,
    /// Now.
    pub now: Moment,
    /// Links that the host's networks need, although they may be virtual.
    pub watched_links: &'a [String],
    /// The host's own BMC.
    pub bmc: Bmc<'a>,
    /// How pools answered.
    pub pools: &'a [PoolSample],
    /// The clock's state; `None` when it was not read.
    pub clock: Option<ClockState>,
}

/// What one poll gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Poll {
    /// Faults that stand after hysteresis, the worst first.
    pub faults: Vec<Fault>,
    /// What was raised, rerated or cleared by this poll.
    pub changes: Vec<Change>,
    /// Figures of the probes that ran.
    pub readings: Vec<Reading>,
    /// What could not be read.
    pub errors: Vec<(Probe, ProbeError)>,
    /// Something was seen that the next poll may raise: an early one is worth its cost.
    pub is_unconfirmed: bool,
}

impl Poll {
    /// Errors as sentences for the host's report, bounded.
    pub fn error_sentences(&self, sentences_max: usize) -> Vec<String> {
        self.errors
            .iter()
            .take(sentences_max)
            .map(|(probe, error)| format!("{}: {}", probe.name(), error.message))
            .collect()
    }
}

/// What outlives a restart of the agent, for one boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    boot_id: String,
    /// By what was judged last: a restarted agent goes on by it until it is told what the site says now.
    thresholds: Thresholds,
    memory: MemoryHistory,
    kernel_log: LogHistory,
    links: LinkHistory,
    file_systems: FileSystemHistory,
    tracker: FaultTracker,
}

/// The probes of one host.
#[derive(Debug)]
pub struct Probes {
    state: State,
    log_reader: LogReader,
    runner: Runner,
    root_device: Option<String>,
}

impl Probes {
    /// Probes with the state of an earlier run, which counts only for the same boot: counters
    /// and the boot clock begin anew with each. Without it they judge by the default thresholds.
    pub fn new(boot_id: &str, earlier: Option<State>) -> Self {
        let state = earlier
            .filter(|state| state.boot_id == boot_id)
            .unwrap_or_else(|| State {
                boot_id: boot_id.to_owned(),
                ..State::default()
            });
        Probes {
            state,
            log_reader: LogReader::default(),
            runner: Runner::default(),
            root_device: None,
        }
    }

    /// Judges by other thresholds from the next poll on. What was seen so far stays and is judged by
    /// them, but for events that are older than a shorter window.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.state.thresholds = thresholds;
    }

    /// What to keep for the next run.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Faults that stand as of the last poll, or of the earlier run.
    pub fn faults(&self) -> Vec<Fault> {
        self.state.tracker.current()
    }

    /// A person has dealt with all faults last seen up to this moment (seconds since 1970).
    pub fn clear_until(&mut self, unix_seconds: i64) -> Vec<Change> {
        self.state.memory.clear_until(unix_seconds);
        self.state.kernel_log.clear_until(unix_seconds);
        self.state.links.clear_until(unix_seconds);
        self.state.tracker.clear_until(unix_seconds)
    }

    /// Runs the probes named; blocks as long as they take.
    pub fn poll(&mut self, probes: &[Probe], inputs: &Inputs<'_>) -> Poll {
        let mut poll = Poll::default();
        let mut said: BTreeMap<Probe, Findings> = BTreeMap::new();
        for probe in probes {
            if let Some(findings) = self.run(*probe, inputs) {
                said.insert(*probe, findings);
            }
        }
        for (probe, findings) in said {
            poll.changes.extend(self.state.tracker.observe(
                inputs.now,
                probe,
                &findings,
                &self.state.thresholds,
            ));
            poll.readings.extend(findings.readings);
            poll.errors
                .extend(findings.errors.into_iter().map(|error| (probe, error)));
        }
        poll.faults = self.state.tracker.current();
        poll.is_unconfirmed = self.state.tracker.is_unconfirmed(&self.state.thresholds);
        poll
    }

    /// `None` when there is nothing to probe.
    fn run(&mut self, probe: Probe, inputs: &Inputs<'_>) -> Option<Findings> {
        let Roots {
            sysfs,
            procfs,
            kernel_log,
            smartctl,
        } = inputs.roots;
        let now = inputs.now;
        let limits = &self.state.thresholds;
        // What the reader could not read, to which the judge's findings are added.
        let mut all = Findings::default();
        let judged = match probe {
            Probe::Memory => {
                let counts = memory::read(sysfs, &mut all);
                memory::judge(&counts, &mut self.state.memory, now, limits)
            }
            Probe::KernelLog => {
                let records =
                    self.log_reader
                        .read(kernel_log, &mut self.state.kernel_log.position, &mut all);
                self.state
                    .kernel_log
                    .observe(&records, self.root_device.as_deref(), now);
                self.state.kernel_log.judge(now, limits)
            }
            Probe::Hwmon => {
                let (temperatures, fans) = hwmon::read(sysfs, &mut all);
                hwmon::judge(&temperatures, &fans, limits)
            }
            Probe::Arrays => array::judge_arrays(&array::read(procfs, sysfs, &mut all)),
            Probe::Links => {
                let links = link::read(sysfs, inputs.watched_links, &mut all);
                link::judge(&links, &mut self.state.links, now, limits)
            }
            Probe::FileSystems => {
                let mounts = file_system::read(procfs, &mut all).unwrap_or_default();
                self.root_device = file_system::root_device(&mounts).map(str::to_owned);
                file_system::judge(&mounts, &mut self.state.file_systems)
            }
            Probe::StoragePools => judge_pools(inputs.pools, limits),
            Probe::Clock => clock::judge_clock(inputs.clock?, limits),
            Probe::Disks => smart::probe(smartctl, &mut self.runner, limits),
            Probe::Bmc => match inputs.bmc {
                Bmc::None => return None,
                Bmc::Redfish(source) => redfish::walk(source, limits),
                Bmc::Ipmi(text) => judge_ipmi_text(text, limits),
                Bmc::Failed(reason) => {
                    all.fail(None, reason);
                    Findings::default()
                }
            },
        };
        all.extend(judged);
        Some(all)
    }
}

fn judge_ipmi_text(text: &str, limits: &Thresholds) -> Findings {
    let sensors = ipmi::parse_sensors(text);
    let mut findings = ipmi::judge_ipmi(&sensors, limits);
    if sensors.is_empty() {
        findings.fail(
            None,
            "the BMC lists no sensors over IPMI; check its address, user and cipher suite",
        );
    }
    findings
}
