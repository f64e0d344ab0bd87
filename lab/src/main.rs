//! `zylab`: a data centre in a box.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lab::fault::{Fault, heal, inject};
use lab::{Lab, LabFiles, LabOptions};

/// A data centre in a box: real libvirt hosts in namespaces, BMC simulators, a real control plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a lab up; what a former one of that name left is removed first, and every lab whose owner
    /// died before it took it down.
    Up {
        /// Name of the lab; several may run side by side.
        #[arg(long, default_value = "demo")]
        name: String,
        /// Number of hosts, up to 8.
        #[arg(long, default_value_t = 4)]
        hosts: u8,
        /// Number of operators.
        #[arg(long, default_value_t = 1)]
        operators: u8,
        /// Folder with the programs of the product. Default: beside zylab.
        #[arg(long)]
        bin_dir: Option<PathBuf>,
        /// What each host offers to VMs.
        #[arg(long, default_value = lab::host::CAPACITY)]
        capacity: String,
        /// An administrator's kubeconfig of an existing cluster, used instead of a control plane of the
        /// lab's own. It keeps the API and its objects when the lab goes down.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Process that will take the lab down; once it is dead, the next lab that comes up removes this
        /// one. Default: nobody; the lab runs until zylab down.
        #[arg(long)]
        owner: Option<u32>,
    },
    /// Build the guest image and apply the declarations in manifests/ with the lab's overlay.
    Apply {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Start the prober: every endpoint five times a second, from outside the product. --stop ends it.
    Probe {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
        /// Stop it.
        #[arg(long)]
        stop: bool,
    },
    /// Judge what was probed and every data disk; ends with an error when something is wrong.
    Judge {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Bring a lab up, throw faults at random moments at it, alone and in pairs, heal them, wait for
    /// rest, and judge what happened; ends with an error when a judge finds something.
    Chaos(lab::chaos::command::Arguments),
    /// Show what of a lab runs.
    Status {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Make a fault happen, or end it with --heal.
    Fault {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
        /// End the fault.
        #[arg(long)]
        heal: bool,
        /// Which.
        #[arg(value_enum)]
        fault: Fault,
        /// Host, such as h1; none for faults of the site.
        host: Option<String>,
    },
    /// Switch a host on or off, as its power button does.
    Power {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
        /// What to do.
        #[arg(value_enum)]
        action: PowerAction,
        /// Host, such as h1.
        host: String,
    },
    /// Show the end of a log: of a component (operator-0, kube-apiserver, h1-agent, …), or list them.
    Logs {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
        /// Which log. Default: list them.
        log: Option<String>,
    },
    /// Run a program inside the control node's network (part `control`) or a host.
    Exec {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
        /// `control`, or a host.
        part: String,
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Stop a lab and remove every trace of it.
    Down {
        /// Name of the lab.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// (internal) Join a cgroup and a namespace and become a program.
    #[command(hide = true)]
    Enter {
        #[arg(long)]
        cgroup: PathBuf,
        #[arg(long)]
        namespace: Option<String>,
        #[arg(long)]
        foreground: bool,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// (internal) PID 1 of a host.
    #[command(hide = true)]
    HostInit {
        #[arg(long)]
        name: String,
        host: String,
    },
    /// (internal) Carry connections into a namespace or out of it.
    #[command(hide = true)]
    Forward {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        namespace: String,
        #[arg(long)]
        target: SocketAddr,
        #[arg(long, value_enum)]
        inside: lab::forward::Inside,
    },
    /// (internal) Keep the control node attached to every network.
    #[command(hide = true)]
    Edge {
        #[arg(long)]
        name: String,
    },
    /// (internal) Play the hosts' watchdogs.
    #[command(hide = true)]
    Watchdogs {
        #[arg(long)]
        name: String,
    },
    /// (internal) What BMC simulators call.
    #[command(hide = true)]
    Chassis {
        #[arg(long)]
        name: String,
        /// Called by ipmi_sim for this host, whose own arguments follow.
        #[arg(long)]
        ipmi: Option<String>,
        host: Option<String>,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PowerAction {
    On,
    Off,
    Status,
}

/// Whether the work holds a lab that is taken down when it fails.
fn holds_a_lab(command: &Command) -> bool {
    match command {
        Command::Up { .. } => true,
        Command::Chaos(arguments) => arguments.holds_a_lab(),
        _ => false,
    }
}

fn main() -> ExitCode {
    let command = Options::parse().command;
    if !holds_a_lab(&command) {
        terminal::end_with_the_reader();
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zylab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up {
            name,
            hosts,
            operators,
            bin_dir,
            capacity,
            kubeconfig,
            owner,
        } => up(LabOptions {
            name,
            hosts,
            operators,
            bin_dir,
            capacity,
            kubeconfig,
            owner,
            talk: true,
            ..LabOptions::default()
        }),
        Command::Apply { name } => apply(&running(&name)?),
        Command::Probe { name, stop: true } => lab::judges::stop_prober(&running(&name)?),
        Command::Probe { name, stop: false } => with_lab(&name, async |lab| {
            lab::judges::start_prober(&lab.files, &lab.client).await
        }),
        Command::Judge { name } => with_lab(&name, async |lab| judge(&lab).await),
        Command::Chaos(arguments) => lab::chaos::command::run(arguments),
        Command::Status { name } => {
            print!("{}", lab::status::describe(&LabFiles::of(&name)?)?);
            Ok(())
        }
        Command::Fault {
            name,
            heal: true,
            fault,
            host,
        } => heal(&running(&name)?, host.as_deref(), fault),
        Command::Fault {
            name,
            heal: false,
            fault,
            host,
        } => inject(&running(&name)?, host.as_deref(), fault),
        Command::Power { name, action, host } => power(&running(&name)?, action, &host),
        Command::Logs { name, log } => logs(&running(&name)?, log.as_deref()),
        Command::Exec {
            name,
            part,
            command,
        } => exec(&running(&name)?, &part, &command),
        Command::Down { name } => lab::lifecycle::remove(&LabFiles::of(&name)?),
        Command::Enter {
            cgroup,
            namespace,
            foreground,
            command,
        } => lab::process::enter(&cgroup, namespace.as_deref(), foreground, &command),
        Command::HostInit { name, host } => lab::init::run(&LabFiles::of(&name)?, &host),
        Command::Forward {
            listen,
            namespace,
            target,
            inside,
        } => lab::forward::run(listen, target, &namespace, inside),
        Command::Edge { name } => lab::edge::run(&LabFiles::of(&name)?),
        Command::Watchdogs { name } => lab::watchdog::run(&LabFiles::of(&name)?),
        Command::Chassis {
            name,
            ipmi,
            host,
            arguments,
        } => {
            let host = ipmi
                .as_deref()
                .or(host.as_deref())
                .context("no host named")?;
            // ipmi_sim puts the host's name first, as in its configuration.
            let skip = usize::from(arguments.first().is_some_and(|first| first == host));
            lab::bmc::chassis(&LabFiles::of(&name)?, host, &arguments[skip..])
        }
    }
}

fn running(name: &str) -> Result<LabFiles> {
    let files = LabFiles::of(name)?;
    files.addresses()?;
    Ok(files)
}

fn up(options: LabOptions) -> Result<()> {
    let files = LabFiles::of(&options.name)?;
    lab::runtime::interruptible(&options.name.clone(), async {
        Lab::up(options).await?.keep()?;
        print!("{}", lab::status::describe(&files)?);
        Ok(())
    })
}

fn apply(files: &LabFiles) -> Result<()> {
    let values = lab::guest::serve(files, &lab::guest::build()?)?;
    let objects = lab::declarations::for_lab(&lab::declarations::folder(), &values)?;
    with_lab(&files.name, async |lab| {
        lab::declarations::apply(&lab.client, &objects).await
    })?;
    println!("{} objects applied", objects.len());
    Ok(())
}

fn with_lab(name: &str, work: impl AsyncFnOnce(Lab) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { work(Lab::open(name).await?).await })
}

async fn judge(lab: &Lab) -> Result<()> {
    let report = lab::judges::judge_probes(&lab.files, judge::report::Window::ALL)?;
    for (name, endpoint) in &report.endpoints {
        println!(
            "{name}: {} probes, {} failed, down {:.2} s",
            endpoint.probes, endpoint.failures, endpoint.downtime_seconds
        );
    }
    for (name, guest) in report
        .guests
        .iter()
        .filter(|(_, guest)| !guest.problems.is_empty())
    {
        println!("{name}: {}", guest.problems.join("; "));
    }
    let disks = lab::judges::judge_disks(&lab.files, &lab.client).await?;
    for (name, verdict) in &disks {
        let writes = format!(
            "writes {} to {} of {}",
            verdict.first, verdict.last, verdict.guest
        );
        let told = format!(
            "{} acknowledged ones compared",
            verdict.acknowledged_checked
        );
        println!(
            "{name}: {writes}, {told}: {}",
            if verdict.is_clean() {
                "clean".to_owned()
            } else {
                format!("{:?}", verdict.problems)
            }
        );
    }
    let clean = report.is_clean() && disks.values().all(judge::ledger::Verdict::is_clean);
    if clean {
        Ok(())
    } else {
        bail!("the judges found what stands above")
    }
}

fn power(files: &LabFiles, action: PowerAction, host: &str) -> Result<()> {
    match action {
        PowerAction::On => lab::host::power_on(files, host),
        PowerAction::Off => lab::host::power_off(files, host),
        PowerAction::Status => {
            println!(
                "{}",
                if lab::host::is_on(files, host) {
                    "On"
                } else {
                    "Off"
                }
            );
            Ok(())
        }
    }
}

fn logs(files: &LabFiles, log: Option<&str>) -> Result<()> {
    match log {
        Some(log) => print!(
            "{}",
            lab::files::tail(&files.logs().join(format!("{log}.log")), 20_000)
        ),
        None => {
            let mut names: Vec<_> = std::fs::read_dir(files.logs())?
                .flatten()
                .map(|entry| entry.path())
                .collect();
            names.sort();
            names
                .iter()
                .filter_map(|path| path.file_stem())
                .for_each(|name| println!("{}", name.display()));
        }
    }
    Ok(())
}

fn exec(files: &LabFiles, part: &str, command: &[OsString]) -> Result<()> {
    if part == "control" {
        let cgroup = lab::namespace::cgroup(&files.name, "control")?;
        return lab::process::enter(
            &cgroup,
            Some(&lab::namespace::control(&files.name)),
            true,
            command,
        );
    }
    let inside = lab::inside::words(files, part)?;
    let words = inside.into_iter().map(OsString::from);
    let arguments: Vec<OsString> = words.chain(command.iter().cloned()).collect();
    let cgroup = lab::namespace::cgroup(&files.name, part)?;
    lab::process::enter(&cgroup, None, true, &arguments)
}
