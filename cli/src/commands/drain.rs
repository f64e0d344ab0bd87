//! `zyctl drain`: maintenance of a host, followed to its end.

use anyhow::{Result, bail};
use api::Host;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Context, follow, host};
use crate::options::Output;

/// How an evacuation ended.
enum End {
    Done,
    Blocked(Vec<String>),
    /// Somebody took it back.
    Cancelled(i32),
}

/// Sets maintenance and follows the evacuation.
///
/// # Errors
/// Names what can not move when the evacuation is blocked; tells when it was taken back.
pub async fn run(context: &Context, name: &str, reason: &str, wait: bool) -> Result<()> {
    let hosts: Api<Host> = Api::all(context.client.clone());
    host::get(&hosts, name).await?;
    let patch = json!({"spec": {"maintenance": {"reason": reason, "evacuate": true}}});
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
        let status = host.status.as_ref()?;
        let vms = status.virtual_machines.unwrap_or(0);
        let maintenance = host.spec.maintenance.as_ref();
        if !maintenance.is_some_and(|maintenance| maintenance.evacuate) {
            return Some(End::Cancelled(vms));
        }
        let line = match context.language {
            crate::language::Language::English => format!("{vms} VMs left on {name}"),
            crate::language::Language::Chinese => format!("{name} 上还有 {vms} 台虚拟机"),
        };
        if line != last && context.output == Output::Table {
            println!("{line}");
            last = line;
        }
        let evacuation = status.evacuation.as_ref();
        if vms == 0 {
            return Some(End::Done);
        }
        match evacuation {
            Some(evacuation) if evacuation.phase == "Blocked" => {
                Some(End::Blocked(evacuation.blocked.clone()))
            }
            _ => None,
        }
    })
    .await?;
    match end {
        End::Done if context.output == Output::Json => {
            context.print_json(&json!({"host": name, "phase": "Done"}))
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
            crate::language::Language::English =>
                format!("the drain of host {name} was taken back; {vms} VMs are on it"),
            crate::language::Language::Chinese =>
                format!("宿主机 {name} 的清空已被撤销;其上有 {vms} 台虚拟机"),
        }),
        End::Blocked(blocked) => bail!(match context.language {
            crate::language::Language::English => format!(
                "host {name} can not be emptied:\n  {}",
                blocked.join("\n  ")
            ),
            crate::language::Language::Chinese =>
                format!("宿主机 {name} 无法清空:\n  {}", blocked.join("\n  ")),
        }),
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
