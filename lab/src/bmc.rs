//! BMCs: the real sushy-tools Redfish emulator with a driver of ours that switches lab hosts,
//! and the real ipmi_sim of OpenIPMI. They run in the control node, outside the hosts.

pub mod sensors;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::address::Addresses;
use crate::files::{LabFiles, cache};
use crate::host;
use crate::namespace;
use crate::process::{Daemon, PATIENCE, join_namespace, wait_for, zylab};

/// User name on every BMC.
pub const USER: &str = "fence";

/// UUID of a machine that is none of the lab's; the same stands in `bmc/redfish.py`.
const OTHER_UUID: &str = "00000000-0000-4000-8000-00000000dead";

/// How a BMC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As it should.
    Ok,
    /// Answers after many seconds.
    Slow,
    /// Answers 204 to a power command and does nothing.
    Lying,
    /// Reports the UUID of another machine ([`show_another_machine`]).
    OtherHost,
    /// Takes another login than the declared one, over Redfish; over IPMI the declared one stays good.
    OtherLogin,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Ok => "ok",
            Mode::Slow => "slow",
            Mode::Lying => "lying",
            Mode::OtherHost => "other-host",
            Mode::OtherLogin => "other-login",
        }
    }
}

/// Sets how a host's BMC behaves from now on.
///
/// # Errors
/// The folder can not be written.
pub fn set_mode(files: &LabFiles, host: &str, mode: Mode) -> Result<()> {
    crate::files::write_at_once(&files.host(host).join("bmc-mode"), mode.word().as_bytes())
}

/// The declared entries of a host lead to another machine's BMC, or to its own again: over Redfish and over IPMI, whose
/// simulator reads its GUID when it starts.
///
/// # Errors
/// The folder can not be written, or the simulator not be started.
pub fn show_another_machine(files: &LabFiles, host: &str, another: bool) -> Result<()> {
    set_mode(
        files,
        host,
        if another { Mode::OtherHost } else { Mode::Ok },
    )?;
    let folder = files.host(host).join("ipmi");
    // A dead BMC stays dead; it starts with what it is to show.
    if simulators_of(files, &folder)?.is_empty() {
        return Ok(());
    }
    kill_those_of(files, &folder)?;
    wait_for("the IPMI simulator to end", PATIENCE, || {
        Ok(simulators_of(files, &folder)?.is_empty())
    })?;
    start_ipmi(files, files.addresses()?, host)
}

/// Whether a host's BMC is declared and read over Redfish; host 4 shows that IPMI alone does.
pub fn has_redfish(number: u8) -> bool {
    number != 4
}

/// The program by which a host's agent lists the sensors of its BMC: ipmitool, over the network, as a
/// lab host has no device of the kernel for it.
pub fn ipmitool(files: &LabFiles, host: &str) -> PathBuf {
    files.host(host).join("ipmi/ipmitool.sh")
}

/// Shows over IPMI what faults have made of a host's sensors.
///
/// # Errors
/// The folder can not be written.
pub fn show_over_ipmi(files: &LabFiles, host: &str) -> Result<()> {
    let folder = files.host(host);
    let sensors = match fs::read_to_string(folder.join("sensors.json")) {
        Ok(text) => serde_json::from_str(&text)?,
        // No fault was ever made.
        Err(_) => serde_json::Value::Null,
    };
    sensors::write_values(&folder.join("ipmi/sensors"), &sensors)
}

/// Whether a host's second BMC, over IPMI, exists: every host has one.
///
/// # Errors
/// A simulator can not be started.
pub fn start(files: &LabFiles, addresses: Addresses, host: &str) -> Result<()> {
    start_redfish(files, addresses, host)?;
    start_ipmi(files, addresses, host)
}

fn password(files: &LabFiles, host: &str) -> Result<String> {
    Ok(fs::read_to_string(files.host(host).join("bmc-password"))?)
}

fn start_redfish(files: &LabFiles, addresses: Addresses, host: &str) -> Result<()> {
    let number = host::number(host)?;
    let folder = files.host(host).join("redfish");
    fs::create_dir_all(&folder)?;
    let script = folder.join("redfish.py");
    fs::write(&script, include_str!("../bmc/redfish.py"))?;
    let python = cache().join("venv/bin/python");
    if !python.is_file() {
        anyhow::bail!("{}: not there; run scripts/setup.sh", python.display());
    }
    Daemon {
        cgroup: &namespace::cgroup(&files.name, "control")?,
        namespace: Some(&namespace::control(&files.name)),
        log: &files.logs().join(format!("{host}-redfish.log")),
        command: vec![
            python.into(),
            script.into(),
            "--zylab".into(),
            zylab()?.into(),
            "--lab".into(),
            (&files.name).into(),
            "--host".into(),
            host.into(),
            "--folder".into(),
            files.host(host).into(),
            "--address".into(),
            addresses.control().to_string().into(),
            "--port".into(),
            addresses.redfish_port(number).to_string().into(),
        ],
    }
    .start()
}

fn start_ipmi(files: &LabFiles, addresses: Addresses, host: &str) -> Result<()> {
    let number = host::number(host)?;
    let folder = files.host(host).join("ipmi");
    fs::create_dir_all(folder.join("state"))?;
    let mode = fs::read_to_string(files.host(host).join("bmc-mode")).unwrap_or_default();
    let uuid = if mode == Mode::OtherHost.word() {
        OTHER_UUID.to_owned()
    } else {
        fs::read_to_string(files.host(host).join("uuid"))?
    };
    let uuid = uuid.replace('-', "");
    let chassis = folder.join("chassis.sh");
    let script = format!(
        "#!/bin/sh\nexec {} chassis --name {} --ipmi {host} -- \"$@\"\n",
        zylab()?.display(),
        files.name
    );
    write_program(&chassis, &script)?;
    let script = format!(
        "#!/bin/sh\nexec ipmitool -I lanplus -C 3 -H {} -p {} -U {USER} -f {} -L ADMINISTRATOR \"$@\"\n",
        addresses.control(),
        addresses.ipmi_port(number),
        files.host(host).join("bmc-password").display(),
    );
    write_program(&ipmitool(files, host), &script)?;
    show_over_ipmi(files, host)?;
    let configuration = format!(
        "name \"{host}\"\nset_working_mc 0x20\n  startlan 1\n    addr {} {}\n    priv_limit admin\n    allowed_auths_callback none md2 md5 straight\n    allowed_auths_user none md2 md5 straight\n    allowed_auths_operator none md2 md5 straight\n    allowed_auths_admin none md2 md5 straight\n    guid {uuid}\n  endlan\n  chassis_control \"{}\"\n  user 1 true \"\" \"\" user 10 none md2 md5 straight\n  user 2 true \"{USER}\" \"{}\" admin 10 none md2 md5 straight\n",
        addresses.control(),
        addresses.ipmi_port(number),
        chassis.display(),
        password(files, host)?,
    );
    let lan = folder.join("lan.conf");
    crate::pki::write_secret(&lan, &configuration)?;
    let commands = folder.join("commands.emu");
    let sensors = sensors::commands(&folder.join("sensors"));
    fs::write(
        &commands,
        format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nsel_enable 0x20 1000 0x0a\n{sensors}mc_enable 0x20\n"
        ),
    )?;
    Daemon {
        cgroup: &namespace::cgroup(&files.name, "control")?,
        namespace: Some(&namespace::control(&files.name)),
        log: &files.logs().join(format!("{host}-ipmi.log")),
        command: ["ipmi_sim", "-n", "-c"]
            .iter()
            .map(Into::into)
            .chain([
                lan.into(),
                "-f".into(),
                commands.into(),
                "-s".into(),
                folder.join("state").into(),
            ])
            .collect(),
    }
    .start()
}

fn write_program(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// Kills both simulators of a host: a dead BMC.
///
/// # Errors
/// The cgroup can not be read.
pub fn kill(files: &LabFiles, host: &str) -> Result<()> {
    kill_those_of(files, &files.host(host))
}

/// Kills the simulators whose files lie in that folder.
fn kill_those_of(files: &LabFiles, folder: &Path) -> Result<()> {
    simulators_of(files, folder)?
        .iter()
        .try_for_each(|pid| crate::process::run("kill", ["-9", pid]).map(drop))
}

/// The simulators whose files lie in that folder, by process id.
fn simulators_of(files: &LabFiles, folder: &Path) -> Result<Vec<String>> {
    let procs =
        fs::read_to_string(namespace::cgroup(&files.name, "control")?.join("cgroup.procs"))?;
    let inside = format!("{}/", folder.display());
    let named = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&inside)
    };
    Ok(procs.lines().filter(named).map(str::to_owned).collect())
}

/// Waits until a host's Redfish BMC answers.
///
/// # Errors
/// It does not in time.
pub fn wait_ready(files: &LabFiles, addresses: Addresses, host: &str) -> Result<()> {
    let address = std::net::SocketAddr::from((
        addresses.control(),
        addresses.redfish_port(host::number(host)?),
    ));
    let namespace = namespace::control(&files.name);
    // A thread of its own: a namespace is a thread's.
    let waiter = std::thread::spawn(move || {
        join_namespace(&namespace)?;
        wait_for(&format!("the BMC at {address}"), PATIENCE, || {
            Ok(std::net::TcpStream::connect(address).is_ok())
        })
    });
    waiter
        .join()
        .map_err(|_| anyhow::anyhow!("the waiting thread panicked"))?
        .with_context(|| format!("BMC of {host}"))
}

/// The `chassis` subcommand that both simulators call.
///
/// # Errors
/// The host can not be switched.
pub fn chassis(files: &LabFiles, host: &str, arguments: &[String]) -> Result<()> {
    let mode = fs::read_to_string(files.host(host).join("bmc-mode")).unwrap_or_default();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["get", "power"] => println!("power:{}", u8::from(host::is_on(files, host))),
        ["get", others @ ..] => others.iter().for_each(|name| println!("{name}:0")),
        ["get-state"] => println!(
            "{}",
            if host::is_on(files, host) {
                "On"
            } else {
                "Off"
            }
        ),
        ["set", ..] if mode == "lying" => {}
        ["set", pairs @ ..] => {
            for pair in pairs.chunks(2) {
                match pair {
                    ["power", "0"] => host::switch_off(files, host, "bmc")?,
                    ["power", "1"] => host::power_on(files, host)?,
                    ["reset", _] => {
                        host::switch_off(files, host, "bmc")?;
                        host::power_on(files, host)?;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}
