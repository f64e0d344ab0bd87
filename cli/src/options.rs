//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Shows what a Zhengyun site does and why, and asks things of it.
///
/// Run `zyctl status` first. Every command takes `-o json` for programs. The language
/// follows LC_ALL, LC_MESSAGES or LANG (zh_CN, else English), or `--language`.
#[derive(Debug, Parser)]
#[command(version, name = "zyctl")]
pub struct Options {
    /// Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Language of tables and sentences.
    #[arg(long, global = true, value_enum)]
    pub language: Option<LanguageChoice>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Language by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LanguageChoice {
    /// English.
    En,
    /// 简体中文.
    #[value(name = "zh-CN")]
    ZhCn,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole site on one screen: systems, hosts, faults, what is moving and why.
    Status {
        /// Show it again whenever something changes, until Ctrl-C.
        #[arg(short, long)]
        watch: bool,
    },
    /// Why something is as it is.
    Explain {
        /// What to explain.
        #[command(subcommand)]
        subject: Subject,
    },
    /// Empty a host for work on it: its VMs are live-migrated away and it takes no new ones.
    Drain {
        /// Name of the host.
        host: String,
        /// Why; shown with every VM that moves.
        #[arg(long, default_value = "drained with zyctl")]
        reason: String,
        /// Say who would move where, in which order and how long it takes, and what can not move;
        /// change nothing.
        #[arg(long, conflicts_with = "undo")]
        dry_run: bool,
        /// Plan on the fleet in this file (see `zyctl fleet save`) instead of the site.
        #[arg(long, value_name = "FILE", requires = "dry_run")]
        fleet: Option<PathBuf>,
        /// Take the host back into service instead.
        #[arg(long)]
        undo: bool,
        /// Return at once instead of following the evacuation to its end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Say which moves would even out the load of hosts, or empty hosts, and what each gains.
    ///
    /// Nothing is moved: `spec.rebalancing.mode` of the CloudPolicy says whether the platform does.
    Rebalance {
        /// Say it and change nothing; there is no other way yet.
        #[arg(long, required = true)]
        dry_run: bool,
        /// Only this host pool.
        #[arg(long)]
        pool: Option<String>,
        /// Empty these hosts instead, so that they can be switched off; without a name, as many as
        /// possible.
        #[arg(long, value_name = "HOST", num_args = 0..)]
        consolidate: Option<Vec<String>>,
        /// At most so many moves in a pool.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        moves: u16,
        /// Plan on the fleet in this file (see `zyctl fleet save`) instead of the site.
        #[arg(long, value_name = "FILE")]
        fleet: Option<PathBuf>,
    },
    /// What would happen if …; nothing is changed.
    WhatIf {
        /// What would happen.
        #[command(subcommand)]
        question: Question,
        /// Plan on the fleet in this file (see `zyctl fleet save`) instead of the site.
        #[arg(long, global = true, value_name = "FILE")]
        fleet: Option<PathBuf>,
    },
    /// The fleet as a file.
    Fleet {
        /// What to do with it.
        #[command(subcommand)]
        action: FleetAction,
    },
    /// What only a person can say about a host.
    Host {
        /// What to say.
        #[command(subcommand)]
        action: HostAction,
    },
    /// Move one VM to another host while it runs.
    Migrate {
        /// Name of the VM, or NAMESPACE/NAME.
        vm: String,
        /// Namespace of the VM.
        #[arg(short, long)]
        namespace: Option<String>,
        /// Host to move to. Default: the platform chooses.
        #[arg(long)]
        to: Option<String>,
        /// Return at once instead of following the move to its end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Fencing and restarting of dead hosts' VMs, for the whole site.
    Failover {
        /// What to do with it.
        #[command(subcommand)]
        action: FailoverAction,
    },
    /// Make a fault on purpose and measure what follows.
    Drill {
        /// What to do.
        #[command(subcommand)]
        action: DrillAction,
    },
    /// Replay one simulated schedule of faults as a readable log, with the program `sim` beside this one.
    Sim {
        /// Seed of the schedule.
        #[arg(long)]
        seed: u64,
    },
    /// The fault ledger.
    Incident {
        /// What to do with it.
        #[command(subcommand)]
        action: IncidentAction,
    },
}

/// What would happen.
#[derive(Debug, Subcommand)]
pub enum Question {
    /// A host fails: who starts where, who waits, and what N+1 is worth then.
    HostDown {
        /// Name of the host.
        host: String,
    },
    /// Hosts are added: room left and N+1, now and then.
    AddHost {
        /// Like this host.
        #[arg(long, value_name = "HOST")]
        like: Option<String>,
        /// Logical processors.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=65_536))]
        cpu: Option<u64>,
        /// Memory for VMs, such as `512Gi`.
        #[arg(long)]
        memory: Option<String>,
        /// Host pool. Default: that of the host it is like, or the only one.
        #[arg(long)]
        pool: Option<String>,
        /// So many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
    },
    /// Declarations are applied: which VMs start where, which wait and why; quotas count.
    Apply {
        /// YAML with BusinessSystems or VirtualMachines, and Departments, Flavors, Images, Networks and Volumes that are
        /// new or other than the site's.
        #[arg(short, long = "filename", value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// What to do with the fleet.
#[derive(Debug, Subcommand)]
pub enum FleetAction {
    /// Save everything that placement reads, for `--fleet FILE`. No secrets are in it.
    Save {
        /// File to write.
        file: PathBuf,
    },
}

/// What to explain.
#[derive(Debug, Subcommand)]
pub enum Subject {
    /// Why a VM is where it is, or why it is nowhere.
    Vm {
        /// Name of the VM, or NAMESPACE/NAME.
        vm: String,
        /// Namespace of the VM.
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

/// What only a person can say about a host.
#[derive(Debug, Subcommand)]
pub enum HostAction {
    /// Its hardware faults up to now are dealt with: quarantine ends.
    Clear {
        /// Name of the host.
        host: String,
        /// What was done about them.
        #[arg(long)]
        reason: String,
        /// The host's name once more, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
    },
    /// It is powered off, on your word: its VMs start elsewhere. A wrong word destroys data.
    ConfirmDead {
        /// Name of the host.
        host: String,
        /// How you know, such as `power cord pulled, rack 3`.
        #[arg(long)]
        reason: String,
        /// The host's name once more, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
    },
}

/// What to do with failover.
#[derive(Debug, Subcommand)]
pub enum FailoverAction {
    /// Whether dead hosts are fenced now, and the timers in force.
    Status,
    /// Force nothing off for a while, for work on the network. Arms itself again.
    Disarm {
        /// How long, such as `30m` or `2h`; at most a day.
        #[arg(long = "for", value_name = "DURATION")]
        duration: String,
        /// What the work is.
        #[arg(long)]
        reason: String,
        /// The word `disarm`, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
    },
    /// Arm again before the time is over.
    Arm {
        /// Why, such as that the work is done.
        #[arg(long)]
        reason: String,
        /// The word `arm`, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
    },
    /// After etcd was restored from a backup: go on from what hosts say runs on them.
    ///
    /// Until then nothing is started, stopped, moved or forced off. Every host has to say what runs
    /// there, or be off. Hosts that joined after the backup must be declared again first.
    Rebase {
        /// Why, such as which backup was restored.
        #[arg(long)]
        reason: String,
        /// The word `rebase`, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
        /// Return at once instead of following it to its end.
        #[arg(long)]
        no_wait: bool,
    },
}

/// What to do with drills.
#[derive(Debug, Subcommand)]
pub enum DrillAction {
    /// The drills that every site has.
    List,
    /// Run one and report plan, measured times, problems and conclusion.
    ///
    /// The host's name must be typed before every drill on a site that is no lab, and on a lab before
    /// one that stops VMs.
    Run {
        /// Name of the drill, or a file that ends in .yaml.
        drill: String,
        /// Host to try it on.
        #[arg(long = "on", value_name = "HOST")]
        host: String,
        /// The lab that the site is: its own faults are used.
        #[arg(long, value_name = "NAME")]
        lab: Option<String>,
        /// Who makes the faults on a real site.
        #[arg(long, value_enum, default_value_t = DrillBy::Person)]
        by: DrillBy,
        /// The host's name once more, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
        /// File for the report, in Chinese and English.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
}

/// Who makes the faults of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrillBy {
    /// You are told what to do, and press Enter when it is done.
    Person,
    /// The host's BMC: it can cut the power and nothing else.
    Bmc,
}

/// Class of an incident's cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CauseClass {
    /// Hardware failed.
    Hardware,
    /// Software failed, the platform's or the guest's.
    Software,
    /// A network failed.
    Network,
    /// Planned work.
    Planned,
    /// Nobody found out.
    Unknown,
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub enum IncidentAction {
    /// All incidents, the newest first.
    List,
    /// One incident with its timeline and measured downtimes.
    Show {
        /// Name of the incident.
        name: String,
    },
    /// Close an incident, saying what was found.
    Close {
        /// Name of the incident.
        name: String,
        /// What was found and done.
        #[arg(long)]
        reason: String,
        /// Class of the cause that was found. Default: what the ledger says.
        #[arg(long)]
        class: Option<CauseClass>,
        /// The incident's name once more, instead of typing it when asked.
        #[arg(long)]
        confirm: Option<String>,
    },
}
