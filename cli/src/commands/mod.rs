//! One file per command.

mod drain;
mod drain_plan;
mod drill;
mod explain;
mod failover;
mod fleet_save;
mod follow;
mod host;
mod incident;
mod migrate;
mod person;
#[cfg(test)]
mod person_tests;
mod planning;
#[cfg(test)]
mod planning_tests;
mod rebalance;
mod rebase;
mod reckoned;
mod sim;
mod status;
mod what_if;

use anyhow::Result;
use kube::Client;

use planning::Planning;

use crate::client::connect;
use crate::language::Language;
use crate::options::{
    Command, DrillAction, FailoverAction, FleetAction, HostAction, IncidentAction, Options, Output,
    Question, Subject,
};

/// What every command needs.
pub struct Context {
    /// The API.
    pub client: Client,
    /// Language of tables and sentences.
    pub language: Language,
    /// Form of the output.
    pub output: Output,
}

impl Context {
    /// Picks one of two texts by language.
    pub fn say<'a>(&self, english: &'a str, chinese: &'a str) -> &'a str {
        self.language.pick(english, chinese)
    }

    /// Prints a value as JSON.
    pub fn print_json(&self, value: &impl serde::Serialize) -> Result<()> {
        println!("{}", serde_json::to_string_pretty(value)?);
        Ok(())
    }
}

/// Carries out the command.
///
/// # Errors
/// A sentence for the user.
pub async fn run(options: &Options) -> Result<()> {
    if plan(options).await? {
        return Ok(());
    }
    let context = Context {
        client: connect(options).await?,
        language: Language::choose(options.language, |name| std::env::var(name).ok()),
        output: options.output,
    };
    match &options.command {
        Command::Status { watch } => status::run(&context, *watch).await,
        Command::Explain {
            subject: Subject::Vm { vm, namespace },
        } => explain::run(&context, vm, namespace.as_deref()).await,
        Command::Drain {
            host, undo: true, ..
        } => drain::undo(&context, host).await,
        Command::Drain {
            host,
            reason,
            no_wait,
            ..
        } => drain::run(&context, host, reason, !no_wait).await,
        Command::Fleet {
            action: FleetAction::Save { file },
        } => fleet_save::run(&context, file).await,
        Command::Host {
            action:
                HostAction::Clear {
                    host,
                    reason,
                    confirm,
                },
        } => host::clear(&context, host, reason, confirm.as_deref()).await,
        Command::Host {
            action:
                HostAction::ConfirmDead {
                    host,
                    reason,
                    confirm,
                },
        } => host::confirm_dead(&context, host, reason, confirm.as_deref()).await,
        Command::Failover { action } => match action {
            FailoverAction::Status => failover::status(&context).await,
            FailoverAction::Disarm {
                duration,
                reason,
                confirm,
            } => failover::disarm(&context, duration, reason, confirm.as_deref()).await,
            FailoverAction::Arm { reason, confirm } => {
                failover::arm(&context, reason, confirm.as_deref()).await
            }
            FailoverAction::Rebase {
                reason,
                confirm,
                no_wait,
            } => rebase::rebase(&context, reason, confirm.as_deref(), *no_wait).await,
        },
        Command::Migrate {
            vm,
            namespace,
            to,
            no_wait,
        } => migrate::run(&context, vm, namespace.as_deref(), to.as_deref(), !no_wait).await,
        Command::Drill {
            action: DrillAction::List,
        } => drill::list(&context),
        Command::Drill {
            action:
                DrillAction::Run {
                    drill,
                    host,
                    lab,
                    by,
                    confirm,
                    report,
                },
        } => {
            let request = drill::Request {
                drill,
                host,
                lab: lab.as_deref(),
                by: *by,
                confirm: confirm.as_deref(),
                report: report.as_deref(),
            };
            drill::run(&context, &request).await
        }
        Command::Incident { action } => match action {
            IncidentAction::List => incident::list(&context).await,
            IncidentAction::Show { name } => incident::show(&context, name).await,
            IncidentAction::Close {
                name,
                reason,
                class,
                confirm,
            } => incident::close(&context, name, reason, *class, confirm.as_deref()).await,
        },
        // Answered by `plan`.
        Command::Rebalance { .. } | Command::WhatIf { .. } | Command::Sim { .. } => Ok(()),
    }
}

/// Answers what only asks, from the site, from a file or of a simulated site; whether it was such a command.
async fn plan(options: &Options) -> Result<bool> {
    match &options.command {
        Command::Sim { seed } => sim::run(*seed)?,
        Command::Drain {
            host,
            dry_run: true,
            fleet,
            ..
        } => drain_plan::run(&Planning::new(options, fleet.as_ref()).await?, host)?,
        Command::Rebalance {
            pool,
            consolidate,
            moves,
            fleet,
            ..
        } => {
            let question = rebalance::Question {
                pool: pool.as_deref(),
                consolidate: consolidate.as_deref(),
                moves: usize::from(*moves),
            };
            rebalance::run(&Planning::new(options, fleet.as_ref()).await?, &question)?;
        }
        Command::WhatIf { question, fleet } => {
            let planning = Planning::new(options, fleet.as_ref()).await?;
            match question {
                Question::HostDown { host } => what_if::down(&planning, host)?,
                Question::Apply { files } => what_if::apply(&planning, files)?,
                Question::AddHost {
                    like,
                    cpu,
                    memory,
                    pool,
                    count,
                } => {
                    let new = what_if::NewHosts {
                        like: like.as_deref(),
                        cpu: *cpu,
                        memory: memory.as_deref(),
                        pool: pool.as_deref(),
                        count: usize::from(*count),
                    };
                    what_if::add_hosts(&planning, &new)?;
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}
