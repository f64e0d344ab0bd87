//! Faults of a lab and their healing. Hardware signals are put where the agent really reads
//! them; nothing here talks to the agent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::bmc;
use crate::controlplane::{self, Binaries};
use crate::files::{LabFiles, write_at_once};
use crate::host::{hardware, number, power_off, power_on, processes};
use crate::lifecycle::{operators, start_operator};
use crate::namespace::{self, Link};
use crate::process::run;

/// Name of the program, and of the Lease by which one of them leads.
const OPERATOR: &str = "zhengyun-operator";
/// Server of a host's shared storage.
const STORAGE: &str = "bindfs";
/// Of a processor that is too warm: above the warnings (80) and below the critical limits (BMC 95, hwmon 100).
const WARM_CELSIUS: u64 = 90;
/// So long the API server may take to say who leads.
const LEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// Corrected memory errors rise by 60 (EDAC counters).
    MemoryErrors,
    /// An uncorrected memory error (EDAC counters).
    MemoryUncorrected,
    /// The disk's self-assessment fails (SMART).
    DiskSmart,
    /// A power supply fails (BMC).
    Psu,
    /// A fan stands still (BMC).
    Fan,
    /// The processor is warmer than its warning (BMC and hwmon); below the critical limit of either, beyond which a
    /// host counts as failing at once.
    Temperature,
    /// The business NIC loses its carrier.
    NicLink,
    /// The management network is cut behind the NIC.
    ManagementCut,
    /// The business network is cut behind the NIC.
    BusinessCut,
    /// The shared storage hangs, as a hard NFS mount does.
    StorageHang,
    /// The shared storage fails at once: nothing there can be written or opened any more. What is open
    /// can still be read.
    StorageCut,
    /// The agent is killed and starts again.
    AgentKill,
    /// The agent is stopped and stays so.
    AgentStop,
    /// The guard is killed and starts again.
    GuardKill,
    /// libvirtd is killed and starts again; QEMU lives on.
    LibvirtdKill,
    /// The power is cut.
    PowerLoss,
    /// Everything in the host stands still; the BMC says On.
    KernelHang,
    /// The BMC does not answer.
    BmcDead,
    /// The BMC answers after 20 s.
    BmcSlow,
    /// The BMC accepts power commands and does nothing.
    BmcLying,
    /// The BMC reports the UUID of another machine.
    BmcOtherHost,
    /// The BMC refuses the declared login over Redfish, not over IPMI.
    BmcOtherLogin,
    /// The API server is down (no host named).
    ApiDown,
    /// The operator is killed and starts again (no host named).
    OperatorKill,
    /// The operator is stopped and stays so (no host named).
    OperatorStop,
    /// The operator that leads stands still, and later goes on where it was (no host named).
    OperatorPause,
}

impl Fault {
    /// Whether the fault is the site's and not one host's.
    pub fn is_of_site(self) -> bool {
        matches!(
            self,
            Fault::ApiDown | Fault::OperatorKill | Fault::OperatorStop | Fault::OperatorPause
        )
    }

    /// Its name, as the command line takes it.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Makes a fault happen; `host` is needed unless the fault is the site's.
///
/// # Errors
/// The lab or host does not run.
pub fn inject(files: &LabFiles, host: Option<&str>, fault: Fault) -> Result<()> {
    if fault.is_of_site() {
        return inject_site(files, fault);
    }
    let host = host.with_context(|| format!("{fault:?} needs the name of a host"))?;
    let number = number(host)?;
    let lab = &files.name;
    match fault {
        Fault::MemoryErrors => raise(files, host, "ce_count", 60),
        Fault::MemoryUncorrected => raise(files, host, "ue_count", 1),
        Fault::DiskSmart => edit_json(&hardware(files, host).join("smart/sda.json"), |disk| {
            disk["smart_status"]["passed"] = json!(false)
        }),
        Fault::Psu => sensor(files, host, "psu_failed", json!(1)),
        Fault::Fan => sensor(files, host, "fan_failed", json!(1)),
        Fault::Temperature => {
            fs::write(
                hardware(files, host).join("sys/class/hwmon/hwmon0/temp1_input"),
                format!("{WARM_CELSIUS}000\n"),
            )?;
            sensor(files, host, "temperature", json!(WARM_CELSIUS))
        }
        Fault::NicLink => namespace::set_link(lab, number, Link::Business, false),
        Fault::ManagementCut => namespace::cut(lab, number, Link::Management, true),
        Fault::BusinessCut => namespace::cut(lab, number, Link::Business, true),
        Fault::StorageHang => signal(files, host, STORAGE, "-STOP"),
        Fault::StorageCut => cut_storage(files, host, true),
        Fault::AgentKill => signal(files, host, "zhengyun-agent", "-KILL"),
        Fault::AgentStop => stop_service(files, host, "agent", "zhengyun-agent"),
        Fault::GuardKill => signal(files, host, "zhengyun-guard", "-KILL"),
        Fault::LibvirtdKill => signal(files, host, "libvirtd", "-KILL"),
        Fault::PowerLoss => power_off(files, host),
        Fault::KernelHang => namespace::freeze(&namespace::cgroup(lab, host)?, true),
        Fault::BmcDead => bmc::kill(files, host),
        Fault::BmcSlow => bmc::set_mode(files, host, bmc::Mode::Slow),
        Fault::BmcLying => bmc::set_mode(files, host, bmc::Mode::Lying),
        Fault::BmcOtherHost => bmc::show_another_machine(files, host, true),
        Fault::BmcOtherLogin => bmc::set_mode(files, host, bmc::Mode::OtherLogin),
        Fault::ApiDown | Fault::OperatorKill | Fault::OperatorStop | Fault::OperatorPause => {
            bail!("{fault:?} is a fault of the site")
        }
    }
}

fn start_operators(files: &LabFiles) -> Result<()> {
    (0..operators(files)?).try_for_each(|number| start_operator(files, number))
}

/// Sends a signal to the operators of that name, or to all.
fn signal_operators(files: &LabFiles, named: Option<&str>, signal: &str) -> Result<()> {
    let mut found = named.is_none();
    for pid in processes(files, "control", OPERATOR)? {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        if named.is_none_or(|name| words.any(|word| word == name.as_bytes())) {
            run("kill", [signal, &pid.to_string()])?;
            found = true;
        }
    }
    ensure!(found, "no operator runs under the name {named:?}");
    Ok(())
}

/// The name that the lab gave an operator, of what it calls itself: behind it stands a word of each run's own.
fn named_by_lab(identity: &str) -> Option<&str> {
    identity.rsplit_once('-').map(|(name, _)| name)
}

/// Name of the operator that leads, by its Lease.
fn leader(files: &LabFiles) -> Result<String> {
    let files = files.clone();
    // A thread of its own: this one may drive a runtime already.
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let client = Client::try_from(controlplane::admin_config(&files).await?)?;
            let leases: Api<Lease> = Api::namespaced(client, api::names::SYSTEM_NAMESPACE);
            let held = tokio::time::timeout(LEASE_TIMEOUT, leases.get(OPERATOR)).await??;
            let holder = held.spec.and_then(|spec| spec.holder_identity);
            let name = holder.as_deref().and_then(named_by_lab);
            let name = name.context("the operators' Lease has no holder of this lab")?;
            Ok(name.to_owned())
        })
    });
    asked
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that asked for the leader panicked"))?
}

fn inject_site(files: &LabFiles, fault: Fault) -> Result<()> {
    match fault {
        Fault::ApiDown if files.is_on_existing_cluster() => {
            bail!("ApiDown: the API server is an existing cluster's, not this lab's; stop it there")
        }
        Fault::ApiDown => controlplane::kill(files, &Binaries::get()?.apiserver),
        Fault::OperatorStop | Fault::OperatorKill => {
            for pid in processes(files, "control", OPERATOR)? {
                run("kill", ["-9", &pid.to_string()])?;
            }
            if fault == Fault::OperatorKill {
                start_operators(files)
            } else {
                Ok(())
            }
        }
        Fault::OperatorPause => {
            // Where the API server is down too, nobody can tell who leads; nobody does for long.
            let leader = leader(files).unwrap_or_else(|_| "operator-0".to_owned());
            signal_operators(files, Some(&leader), "-STOP")
        }
        _ => bail!("{fault:?} is a fault of one host"),
    }
}

/// Ends a fault.
///
/// # Errors
/// The lab or host does not run.
pub fn heal(files: &LabFiles, host: Option<&str>, fault: Fault) -> Result<()> {
    if fault.is_of_site() {
        return match fault {
            Fault::ApiDown => {
                controlplane::start_apiserver(files, files.addresses()?, &Binaries::get()?)
            }
            // Killed meanwhile, they were started again already.
            Fault::OperatorStop if processes(files, "control", OPERATOR)?.is_empty() => {
                start_operators(files)
            }
            // Another one may lead by now.
            Fault::OperatorPause => signal_operators(files, None, "-CONT"),
            _ => Ok(()),
        };
    }
    let host = host.with_context(|| format!("{fault:?} needs the name of a host"))?;
    let number = number(host)?;
    let lab = &files.name;
    match fault {
        // A counter that was counted stays counted; a person clears the host.
        Fault::MemoryErrors | Fault::MemoryUncorrected => Ok(()),
        Fault::DiskSmart => edit_json(&hardware(files, host).join("smart/sda.json"), |disk| {
            disk["smart_status"]["passed"] = json!(true)
        }),
        Fault::Psu => sensor(files, host, "psu_failed", Value::Null),
        Fault::Fan => sensor(files, host, "fan_failed", Value::Null),
        Fault::Temperature => {
            fs::write(
                hardware(files, host).join("sys/class/hwmon/hwmon0/temp1_input"),
                "41000\n",
            )?;
            sensor(files, host, "temperature", json!(41))
        }
        Fault::NicLink => namespace::set_link(lab, number, Link::Business, true),
        Fault::ManagementCut => namespace::cut(lab, number, Link::Management, false),
        Fault::BusinessCut => namespace::cut(lab, number, Link::Business, false),
        Fault::StorageHang => signal(files, host, STORAGE, "-CONT"),
        Fault::StorageCut => cut_storage(files, host, false),
        Fault::AgentStop => allow_service(files, host, "agent"),
        Fault::AgentKill | Fault::GuardKill | Fault::LibvirtdKill => Ok(()),
        Fault::PowerLoss => power_on(files, host),
        Fault::KernelHang => namespace::freeze(&namespace::cgroup(lab, host)?, false),
        Fault::BmcDead => bmc::start(files, files.addresses()?, host),
        Fault::BmcSlow | Fault::BmcLying | Fault::BmcOtherLogin => {
            bmc::set_mode(files, host, bmc::Mode::Ok)
        }
        Fault::BmcOtherHost => bmc::show_another_machine(files, host, false),
        Fault::ApiDown | Fault::OperatorKill | Fault::OperatorStop | Fault::OperatorPause => {
            bail!("{fault:?} is a fault of the site")
        }
    }
}

/// Adds to an EDAC counter.
fn raise(files: &LabFiles, host: &str, counter: &str, by: u64) -> Result<()> {
    for folder in ["", "csrow0/"] {
        let path =
            hardware(files, host).join(format!("sys/devices/system/edac/mc/mc0/{folder}{counter}"));
        let now: u64 = fs::read_to_string(&path)?.trim().parse()?;
        write_at_once(&path, format!("{}\n", now + by).as_bytes())?;
    }
    Ok(())
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let mut value = match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => json!({}),
    };
    edit(&mut value);
    write_at_once(path, serde_json::to_string_pretty(&value)?.as_bytes())
}

/// Sets what the BMC's sensors say.
fn sensor(files: &LabFiles, host: &str, name: &str, value: Value) -> Result<()> {
    edit_json(&files.host(host).join("sensors.json"), |sensors| {
        sensors[name] = value
    })?;
    bmc::show_over_ipmi(files, host)
}

/// Lets the server of a host's shared storage write and open nothing, by its limits, or everything again.
/// What others hold open stays open, as with a real mount that comes back; a server that is killed would
/// leave it dead for ever. The server ignores SIGXFSZ (`init`), so that it fails where it may not write.
fn cut_storage(files: &LabFiles, host: &str, cut: bool) -> Result<()> {
    let pids = processes(files, host, STORAGE)?;
    if pids.is_empty() {
        bail!("{STORAGE} does not run on {host}");
    }
    pids.into_iter().try_for_each(|pid| limit(pid, cut))
}

/// Sets the limits of one process: the soft ones, which stand before the colon.
fn limit(pid: i32, cut: bool) -> Result<()> {
    let (size, opened) = match cut {
        true => ("0".to_owned(), "0".to_owned()),
        false => ("unlimited".to_owned(), most_open_files(pid)?),
    };
    let pid = pid.to_string();
    let limits = [format!("--fsize={size}:"), format!("--nofile={opened}:")];
    run("prlimit", ["--pid", &pid, &limits[0], &limits[1]])?;
    Ok(())
}

/// The hard limit of open files of a process.
fn most_open_files(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/limits");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    // Soft limit, hard limit, unit.
    let hard = line.and_then(|line| line.split_whitespace().rev().nth(1));
    Ok(hard
        .with_context(|| format!("{path} tells no limit"))?
        .to_owned())
}

fn signal(files: &LabFiles, host: &str, program: &str, signal: &str) -> Result<()> {
    let pids = processes(files, host, program)?;
    if pids.is_empty() {
        bail!("{program} does not run on {host}");
    }
    for pid in pids {
        run("kill", [signal, &pid.to_string()])?;
    }
    Ok(())
}

/// Kills a service and keeps the host's init from starting it again.
///
/// # Errors
/// It does not run.
pub fn stop_service(files: &LabFiles, host: &str, service: &str, program: &str) -> Result<()> {
    fs::write(files.host(host).join("stopped").join(service), "")?;
    signal(files, host, program, "-KILL")
}

/// Has the host's init start a service again, if it was stopped.
///
/// # Errors
/// The host's folder can not be written.
pub fn let_service_run(files: &LabFiles, host: &str, service: &str) -> Result<()> {
    match fs::remove_file(files.host(host).join("stopped").join(service)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn allow_service(files: &LabFiles, host: &str, service: &str) -> Result<()> {
    fs::remove_file(files.host(host).join("stopped").join(service))
        .with_context(|| format!("{service} of {host} is not stopped"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn an_operator_is_known_by_what_it_calls_itself() {
        let identity = format!("operator-1-{}", uuid::Uuid::from_u128(7).simple());
        assert_eq!(named_by_lab(&identity), Some("operator-1"));
        assert_eq!(named_by_lab("nobody"), None);
    }

    /// A program that writes a line to a file that it holds open for each line that it is told, and says whether it could.
    fn writer(file: &Path) -> Child {
        let script = r#"exec 3>>"$0"; while read -r line; do
            if echo "$line" >&3; then echo written; else echo failed; fi
            if (: <"$0"); then echo opened; else echo failed; fi
        done"#;
        let path = file.to_str().expect("a path");
        Command::new("env")
            .args(["--ignore-signal=XFSZ", "bash", "-c", script, path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a writer")
    }

    #[test]
    fn a_server_that_is_cut_off_fails_and_goes_on_with_what_it_holds_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = writer(&folder.path().join("file"));
        let pid = i32::try_from(child.id()).expect("a pid");
        let mut input = child.stdin.take().expect("its input");
        let output = child.stdout.take().expect("its output");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        let mut tries = || {
            writeln!(input, "word").expect("told");
            [(); 2].map(|()| lines.next().expect("an answer").expect("text"))
        };
        assert_eq!(tries(), ["written", "opened"]);
        limit(pid, true).expect("cut");
        assert_eq!(tries(), ["failed", "failed"]);
        limit(pid, false).expect("healed");
        assert_eq!(tries(), ["written", "opened"]);
        drop(input);
        assert!(child.wait().expect("its end").success());
        let text = fs::read_to_string(folder.path().join("file")).expect("what it wrote");
        assert_eq!(text, "word\nword\n");
    }
}
