//! Runs the hardware probes and keeps what they found for the host's report. Fast ones every two
//! seconds; disks and the BMC on a thread of their own, so that a hanging disk delays no memory
//! error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hardware::{Bmc, CommandRunner, Inputs, Moment, PoolSample, Probe, Probes, Reading, Roots};
use model::Fault;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::agent::Context;
use crate::clock;
use crate::storage::folder::PoolFolder;
use crate::storage::pools::PoolProbes;

mod kept;
mod redfish;
mod thresholds;

use self::kept::Kept;
use self::redfish::OwnRedfish;

/// How often the fast probes run.
const FAST_EVERY: Duration = Duration::from_secs(2);
/// How often disks and the BMC are asked. With the early second look a host is quarantined within 10 s
/// of a failed fan, even if each look takes a second and a half.
const SLOW_EVERY: Duration = Duration::from_secs(4);
/// When what was seen for the first time is looked at again.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Bound of a list of all sensors over IPMI: some BMCs need seconds.
const IPMI_BOUND: Duration = Duration::from_secs(20);
/// Bytes of such a list: some hundred sensors, a line each.
const IPMI_BYTES_MAX: u64 = 1 << 20;
/// Probe errors in the host's report.
const ERRORS_MAX: usize = 32;

/// Faults and probe errors as last found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Faults that stand after hysteresis.
    pub faults: Vec<Fault>,
    /// Probes that could not be read.
    pub errors: Vec<String>,
    /// Figures of what was read.
    pub readings: Vec<Reading>,
}

/// What the fast and the slow probes last found.
static CURRENT: Mutex<[Findings; 2]> = Mutex::new([
    Findings {
        faults: Vec::new(),
        errors: Vec::new(),
        readings: Vec::new(),
    },
    Findings {
        faults: Vec::new(),
        errors: Vec::new(),
        readings: Vec::new(),
    },
]);

/// Wakes the host's report when a fault was raised or cleared.
static CHANGED: Notify = Notify::const_new();

/// Returns when a fault was raised or cleared since the last call.
pub async fn changed() {
    CHANGED.notified().await;
}

/// What was last found by all probes, the worst first.
pub fn current() -> Findings {
    let [mut all, slow] = CURRENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    all.faults.extend(slow.faults);
    all.faults.sort_by(|one, two| {
        two.severity
            .cmp(&one.severity)
            .then_with(|| one.component.cmp(&two.component))
    });
    all.errors.extend(slow.errors);
    all.readings.extend(slow.readings);
    all
}

/// The fast and the slow probes with what they remember.
pub type Opened = [(Probes, Kept); 2];

/// Probes with what they remembered before this agent started: faults that stood then are in the first
/// report, before anything was polled.
pub fn open(context: &Context) -> Opened {
    let (run_dir, boot_id) = (&context.options.run_dir, context.boot_id.as_str());
    let opened = [0, 1].map(|slot| kept::open(run_dir, slot, boot_id));
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    for (findings, (probes, _)) in current.iter_mut().zip(&opened) {
        findings.faults = probes.faults();
    }
    opened
}

/// Polls for ever.
pub async fn run(context: &Arc<Context>, [fast, slow]: Opened) -> &'static str {
    let fast = poll(context, 0, fast, Probe::FAST, FAST_EVERY);
    let slow = poll(context, 1, slow, Probe::SLOW, SLOW_EVERY);
    tokio::select! {
        () = fast => "fast hardware probes",
        () = slow => "slow hardware probes",
    }
}

/// Runs some probes for ever; returns only when they panicked.
async fn poll(
    context: &Arc<Context>,
    slot: usize,
    (mut probes, mut kept): (Probes, Kept),
    which: &'static [Probe],
    every: Duration,
) {
    let options = &context.options.hardware;
    let roots = Roots {
        sysfs: options.sysfs_root.clone(),
        procfs: options.procfs_root.clone(),
        kernel_log: options.kernel_log.clone(),
        smartctl: options.smartctl.clone(),
    };
    let mut cleared = None;
    let mut runner = CommandRunner::default();
    loop {
        let begin = Instant::now();
        let clearance = context
            .view
            .host
            .state()
            .first()
            .and_then(|host| Some(host.spec.fault_clearance.clone()?.at.0.as_second()));
        if let Some(until) = clearance.filter(|_| clearance != cleared) {
            probes.clear_until(until);
            cleared = clearance;
        }
        let policies = context.view.known_policies();
        let in_force =
            policies.and_then(|all| thresholds::in_force(all.first().map(AsRef::as_ref)));
        if let Some(in_force) = in_force {
            probes.set_thresholds(in_force);
        }
        let (links, roots) = (vec![context.options.business_device.clone()], roots.clone());
        let own_bmc = if which.contains(&Probe::Bmc) {
            own_bmc(context)
        } else {
            OwnBmc::None
        };
        let pools = pools(context);
        let polled = tokio::task::spawn_blocking(move || {
            let text;
            let bmc = match &own_bmc {
                OwnBmc::None => Bmc::None,
                OwnBmc::Redfish(source) => Bmc::Redfish(source),
                OwnBmc::Failed(why) => Bmc::Failed(why),
                OwnBmc::Ipmi(ipmitool, device) => match sensors(&mut runner, ipmitool, device) {
                    Ok(sensors) => {
                        text = sensors;
                        Bmc::Ipmi(&text)
                    }
                    Err(why) => {
                        text = why;
                        Bmc::Failed(&text)
                    }
                },
            };
            let inputs = Inputs {
                roots: &roots,
                now: now(),
                watched_links: &links,
                bmc,
                pools: &pools,
                clock: clock::state(),
            };
            let poll = probes.poll(which, &inputs);
            kept.keep(&probes);
            ((probes, kept), poll, runner)
        })
        .await;
        let Ok((returned, poll, idle)) = polled else {
            return;
        };
        ((probes, kept), runner) = (returned, idle);
        for change in &poll.changes {
            tracing::warn!(?change, "hardware");
        }
        let findings = Findings {
            errors: poll.error_sentences(ERRORS_MAX),
            faults: poll.faults,
            readings: poll.readings,
        };
        CURRENT.lock().unwrap_or_else(PoisonError::into_inner)[slot] = findings;
        if !poll.changes.is_empty() {
            CHANGED.notify_one();
        }
        tokio::time::sleep(pause(every, begin.elapsed(), poll.is_unconfirmed)).await;
    }
}

/// How long until the next poll. What answers slowly is left alone for as long as it took: no BMC is
/// kept busy by us.
fn pause(every: Duration, took: Duration, is_unconfirmed: bool) -> Duration {
    let least = if is_unconfirmed {
        CONFIRM_AFTER
    } else {
        every.saturating_sub(took)
    };
    least.max(took)
}

/// How every pool answers this host.
fn pools(context: &Context) -> Vec<PoolSample> {
    let (probes, now) = (PoolProbes::shared(), Instant::now());
    let pools = context.view.pools.state();
    pools
        .iter()
        .filter_map(|pool| {
            let name = pool.metadata.name.clone()?;
            probes.sample(&name, &PoolFolder::of(pool), now)
        })
        .collect()
}

fn now() -> Moment {
    let seconds = |clock| clock_gettime(clock).map_or(0, |time| time.tv_sec());
    Moment {
        boot_seconds: seconds(ClockId::CLOCK_BOOTTIME),
        unix_seconds: seconds(ClockId::CLOCK_REALTIME),
    }
}

/// How the host's own BMC is asked for its sensors.
enum OwnBmc {
    /// It is not: none is configured, and the host has no device for IPMI.
    None,
    /// Over Redfish.
    Redfish(OwnRedfish),
    /// In band over IPMI, by this program and this device.
    Ipmi(PathBuf, PathBuf),
    /// It can not be.
    Failed(String),
}

/// Redfish where it is configured, else IPMI where the host has a device for it.
fn own_bmc(context: &Context) -> OwnBmc {
    let options = &context.options.hardware;
    match (&options.bmc_url, &options.bmc_credentials_file) {
        (Some(url), Some(file)) => {
            OwnRedfish::new(options, url, file).map_or_else(OwnBmc::Failed, OwnBmc::Redfish)
        }
        _ if options.ipmi_device.exists() => {
            OwnBmc::Ipmi(options.ipmitool.clone(), options.ipmi_device.clone())
        }
        _ => OwnBmc::None,
    }
}

/// Every sensor with its entity, by which power supplies are told from other things.
fn sensors(runner: &mut CommandRunner, ipmitool: &Path, device: &Path) -> Result<String, String> {
    let number = device_number(device);
    let arguments = ["-d", &number, "sdr", "elist"];
    let output = runner
        .run(ipmitool, &arguments, IPMI_BOUND, IPMI_BYTES_MAX)
        .map_err(|error| error.sentence())?;
    if output.is_empty() {
        return Err(format!(
            "{} -d {number} sdr elist printed nothing; check that {} answers (modprobe ipmi_si ipmi_devintf) and that the agent may open it",
            ipmitool.display(),
            device.display()
        ));
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// What ipmitool calls a device: the digits at the end of its name.
fn device_number(device: &Path) -> String {
    let name = device.to_string_lossy();
    let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let number = digits.parse::<u8>().unwrap_or(0);
    number.to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ipmitool(script: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ipmitool");
        std::fs::write(&path, script).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("allowed");
        (folder, path)
    }

    #[test]
    fn a_lost_power_supply_is_found_over_ipmi_in_band() {
        let (_folder, path) = ipmitool(
            "#!/bin/sh\n[ \"$*\" = '-d 1 sdr elist' ] || exit 1\necho 'PS2 Status       | 52h | ok  | 10.2 | Presence detected, Power Supply AC lost'\n",
        );
        let text = sensors(
            &mut CommandRunner::default(),
            &path,
            Path::new("/dev/ipmi1"),
        )
        .expect("sensors");
        let roots = Roots::default();
        let inputs = Inputs {
            roots: &roots,
            now: now(),
            watched_links: &[],
            bmc: Bmc::Ipmi(&text),
            pools: &[],
            clock: None,
        };
        let mut probes = Probes::new("boot", None);
        let first = probes.poll(&[Probe::Bmc], &inputs);
        assert!(first.is_unconfirmed && first.faults.is_empty());
        let second = probes.poll(&[Probe::Bmc], &inputs);
        assert_eq!(second.faults[0].kind, model::FaultKind::PowerSupply);
    }

    #[test]
    fn a_slow_bmc_is_asked_less_often_and_a_first_sight_sooner() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(4), seconds(1), false), seconds(3));
        assert_eq!(pause(seconds(4), seconds(3), false), seconds(3));
        assert_eq!(pause(seconds(4), seconds(9), false), seconds(9));
        assert_eq!(pause(seconds(4), seconds(1), true), CONFIRM_AFTER);
        assert_eq!(pause(seconds(4), seconds(9), true), seconds(9));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = sensors(
            &mut CommandRunner::default(),
            Path::new("/nowhere/ipmitool"),
            Path::new("/dev/ipmi0"),
        )
        .expect_err("missing");
        assert!(error.contains("/nowhere/ipmitool"), "{error}");
    }

    #[test]
    fn a_device_that_does_not_answer_is_named() {
        let (_folder, path) = ipmitool("#!/bin/sh\nexit 1\n");
        let error = sensors(
            &mut CommandRunner::default(),
            &path,
            Path::new("/dev/ipmi1"),
        )
        .expect_err("nothing printed");
        assert!(error.contains("/dev/ipmi1"), "{error}");
    }
}
