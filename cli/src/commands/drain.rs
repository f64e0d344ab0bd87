//! `zyctl drain`: maintenance of a host, followed to its end.

use anyhow::{Result, bail};
use api::{Evacuation, Host, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::planning::Planning;
use super::{Context, drain_plan, follow, host};
use crate::language::Language;
use crate::options::Output;
use crate::said;

/// How an evacuation ended.
enum End {
    Done,
    Blocked(Vec<String>),
    /// Somebody took it back.
    Cancelled(i32),
}

/// Tells what becomes of the pool's redundancy, sets maintenance and follows the evacuation.
///
/// # Errors
/// Names what can not move when the evacuation is blocked; tells when it was taken back.
pub async fn run(context: &Context, name: &str, reason: &str, wait: bool) -> Result<()> {
    let hosts: Api<Host> = Api::all(context.client.clone());
    host::get(&hosts, name).await?;
    let planning = Planning::of(context).await?;
    let redundancy = drain_plan::redundancy(&planning, name);
    if context.output == Output::Table {
        print!("{}", redundancy.text(&planning));
    }
    let asked = Time(jiff::Timestamp::now());
    let maintenance = json!({"reason": reason, "evacuate": true, "askedAt": asked});
    let patch = json!({"spec": {"maintenance": maintenance}});
    let patched = hosts
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    if !wait {
        println!(
            "{}",
            context.say(
                "Maintenance is declared; see zyctl status.",
                "已声明维护模式;请查看 zyctl status。"
            )
        );
        return Ok(());
    }
    let mut last = String::new();
    let generation = patched.metadata.generation;
    let end = follow::until(hosts, name, |host| {
        if host.metadata.generation < generation {
            return None;
        }
        let maintenance = host.spec.maintenance.as_ref();
        if !maintenance.is_some_and(|maintenance| maintenance.evacuate) {
            let vms = host.status.as_ref()?.virtual_machines;
            return Some(End::Cancelled(vms.unwrap_or(0)));
        }
        let evacuation = decided(host, generation)?;
        let line = progress(context.language, name, evacuation);
        if line != last && context.output == Output::Table {
            println!("{line}");
            last = line;
        }
        ended(evacuation)
    })
    .await?;
    match end {
        End::Done if context.output == Output::Json => {
            context.print_json(&redundancy.json(json!({"host": name, "phase": "Done"})))
        }
        End::Done => {
            println!(
                "{}",
                context.say(
                    "The host is empty. Take it back with: zyctl drain --undo HOST",
                    "宿主机已清空。恢复使用:zyctl drain --undo HOST"
                )
            );
            Ok(())
        }
        End::Cancelled(vms) => bail!(match context.language {
            Language::English =>
                format!("the drain of host {name} was taken back; {vms} VMs are on it"),
            Language::Chinese => format!("宿主机 {name} 的清空已被撤销;其上有 {vms} 台虚拟机"),
        }),
        End::Blocked(blocked) => {
            let blocked = blocked.iter().map(|why| told(context.language, why));
            let blocked = blocked.collect::<Vec<_>>().join("\n  ");
            bail!(match context.language {
                Language::English => format!("host {name} can not be emptied:\n  {blocked}"),
                Language::Chinese => format!("宿主机 {name} 无法清空:\n  {blocked}"),
            })
        }
    }
}

/// What the operator decided of an evacuation since the host has this generation: what it told before is about
/// another drain.
fn decided(host: &Host, generation: Option<i64>) -> Option<&Evacuation> {
    let evacuation = host.status.as_ref()?.evacuation.as_ref()?;
    let observed = evacuation.observed_generation?;
    generation
        .is_none_or(|generation| observed >= generation)
        .then_some(evacuation)
}

/// How an evacuation ended, if it has.
fn ended(evacuation: &Evacuation) -> Option<End> {
    match evacuation.phase.as_str() {
        "Done" => Some(End::Done),
        "Blocked" => Some(End::Blocked(evacuation.blocked.clone())),
        _ => None,
    }
}

/// How many VMs are left, and what is waited for.
fn progress(language: Language, name: &str, evacuation: &Evacuation) -> String {
    let vms = evacuation.remaining;
    let mut line = match language {
        Language::English => format!("{vms} VMs left on {name}"),
        Language::Chinese => format!("{name} 上还有 {vms} 台虚拟机"),
    };
    for sentence in &evacuation.blocked {
        line.push_str("\n  ");
        line.push_str(&told(language, sentence));
    }
    line
}

/// Why a VM stays, or is waited for, after its name; or why all of them do.
pub(super) fn told(language: Language, sentence: &str) -> String {
    match sentence.split_once(": ") {
        Some((vm, why)) if vm.contains('/') && !vm.contains(' ') => {
            let why = said::sentence(language, why);
            format!("{vm}{}{why}", language.pick(": ", ":"))
        }
        _ => said::sentence(language, sentence).into_owned(),
    }
}

/// Ends maintenance.
///
/// # Errors
/// Says why the host can not be changed.
pub async fn undo(context: &Context, name: &str) -> Result<()> {
    let hosts: Api<Host> = Api::all(context.client.clone());
    host::get(&hosts, name).await?;
    let patch = json!({"spec": {"maintenance": null}});
    hosts
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    println!(
        "{}",
        context.say("The host takes VMs again.", "宿主机已恢复接收虚拟机。")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(evacuation: serde_json::Value) -> Host {
        serde_json::from_value(json!({
            "metadata": {"name": "h", "generation": 7},
            "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
            "status": {"evacuation": evacuation}
        }))
        .expect("a host")
    }

    /// The host was emptied and taken back before: that it was done then does not end this drain.
    #[test]
    fn what_was_told_of_an_earlier_drain_ends_no_later_one() {
        let told = |phase: &str, generation: Option<i64>| {
            host(
                json!({"phase": phase, "remaining": 0, "blocked": [], "observedGeneration": generation}),
            )
        };
        for phase in ["Done", "Blocked"] {
            assert!(decided(&told(phase, Some(6)), Some(7)).is_none());
            assert!(decided(&told(phase, None), Some(7)).is_none());
            let host = told(phase, Some(7));
            let evacuation = decided(&host, Some(7)).expect("of this drain");
            assert!(ended(evacuation).is_some(), "{phase}");
        }
        let runs = told("Running", Some(8));
        assert!(ended(decided(&runs, Some(7)).expect("of this drain")).is_none());
    }

    #[test]
    fn what_is_waited_for_is_told_while_it_lasts() {
        let host = host(
            json!({"phase": "Running", "remaining": 1, "observedGeneration": 7,
            "blocked": ["oa/web: it is being started"]}),
        );
        let evacuation = decided(&host, Some(7)).expect("of this drain");
        assert_eq!(
            progress(Language::English, "h", evacuation),
            "1 VMs left on h\n  oa/web: it is being started"
        );
        assert_eq!(
            progress(Language::Chinese, "h", evacuation),
            "h 上还有 1 台虚拟机\n  oa/web:正在启动"
        );
    }
}
