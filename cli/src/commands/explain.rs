//! `zyctl explain vm`: why a VM is where it is, or why it is nowhere.

use anyhow::Result;
use api::VirtualMachine;
use serde_json::json;

use super::Context;
use crate::client::{find_vm, full_name_of};
use crate::language::Language;
use crate::options::Output;

/// Explains one VM from its status.
pub async fn run(context: &Context, vm: &str, namespace: Option<&str>) -> Result<()> {
    let vm = find_vm(&context.client, vm, namespace).await?;
    if context.output == Output::Json {
        let status = vm.status.clone().unwrap_or_default();
        return context.print_json(
            &json!({"virtualMachine": full_name_of(&vm), "phase": status.phase,
            "message": status.message, "assignment": status.assignment, "incoming": status.incoming,
            "placement": status.placement, "proofs": status.proofs, "runtime": status.runtime}),
        );
    }
    print!("{}", text(context.language, &vm));
    Ok(())
}

/// The explanation as text.
fn text(language: Language, vm: &VirtualMachine) -> String {
    let status = vm.status.clone().unwrap_or_default();
    let mut lines = Vec::new();
    let phase = status
        .phase
        .map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}"));
    let mut head = format!("{}: {}", full_name_of(vm), language.state(&phase));
    if let Some(message) = &status.message {
        head.push_str(&format!(" ({message})"));
    }
    lines.push(head);
    if let Some(assignment) = &status.assignment {
        lines.push(format!(
            "{}{} ({} {})",
            language.pick("  host: ", "  宿主机:"),
            assignment.host,
            language.pick("epoch", "代次"),
            assignment.epoch
        ));
    }
    if let Some(incoming) = &status.incoming {
        lines.push(format!(
            "{}{}",
            language.pick("  moves to: ", "  正在迁往:"),
            incoming.host
        ));
    }
    if let Some(placement) = &status.placement {
        lines.push(format!(
            "{}{}",
            language.pick("  decision: ", "  决定:"),
            placement.message
        ));
        for reason in &placement.reasons {
            lines.push(format!("    + {reason}"));
        }
        for removed in &placement.removed {
            lines.push(format!("    - {removed}"));
        }
    }
    for proof in &status.proofs {
        lines.push(format!(
            "{}{:?} {}/{}: {}",
            language.pick("  stop proof: ", "  停机证明:"),
            proof.kind,
            proof.assignment.host,
            proof.assignment.epoch,
            proof.evidence
        ));
    }
    if let Some(message) = status.runtime.and_then(|runtime| runtime.message) {
        lines.push(format!(
            "{}{message}",
            language.pick("  agent: ", "  代理:")
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_many_hosts_each_rule_removed() {
        let vm: VirtualMachine = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "oa"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
            "status": {"phase": "Pending", "message": "no host fits",
                "placement": {"message": "refused", "removed": ["3 hosts: not enough memory", "1 host: Maintenance"]}}
        })).expect("a VM");
        let text = text(Language::Chinese, &vm);
        assert!(text.contains("oa/web-1: 等待 (no host fits)"), "{text}");
        assert!(text.contains("    - 3 hosts: not enough memory"), "{text}");
    }
}
