//! `zyctl explain vm`: why a VM is where it is, or why it is nowhere.

use anyhow::Result;
use api::{
    Condition, MigrationTarget, VirtualMachine, VirtualMachineMigration, VirtualMachinePhase,
    VirtualMachineStatus,
};
use kube::Api;
use serde_json::json;

use super::Context;
use crate::client::{find_vm, full_name_of};
use crate::language::Language;
use crate::options::Output;
use crate::said;

/// Explains one VM from its status.
pub async fn run(context: &Context, vm: &str, namespace: Option<&str>) -> Result<()> {
    let vm = find_vm(&context.client, vm, namespace).await?;
    let arriving = arriving(context, &vm).await?;
    if context.output == Output::Json {
        let status = vm.status.clone().unwrap_or_default();
        return context.print_json(
            &json!({"virtualMachine": full_name_of(&vm), "phase": status.phase,
            "message": status.message, "assignment": status.assignment, "incoming": status.incoming,
            "placement": status.placement, "conditions": status.conditions,
            "proofs": status.proofs, "runtime": status.runtime, "arriving": arriving}),
        );
    }
    print!("{}", text(context.language, &vm, arriving.as_ref()));
    Ok(())
}

/// What the target of a VM's move says of the copy that arrives there.
async fn arriving(context: &Context, vm: &VirtualMachine) -> Result<Option<MigrationTarget>> {
    let status = vm.status.as_ref();
    let (Some(incoming), Some(namespace)) = (
        status.and_then(|status| status.incoming.as_ref()),
        vm.metadata.namespace.as_deref(),
    ) else {
        return Ok(None);
    };
    let moves: Api<VirtualMachineMigration> = Api::namespaced(context.client.clone(), namespace);
    let moves = moves.list(&Default::default()).await?;
    let mut targets = moves
        .into_iter()
        .filter_map(|migration| migration.status?.target);
    Ok(targets.find(|target| target.assignment == *incoming))
}

/// The explanation as text; `arriving`: what the target of its move says.
fn text(language: Language, vm: &VirtualMachine, arriving: Option<&MigrationTarget>) -> String {
    let status = vm.status.clone().unwrap_or_default();
    let told = |text: &str| said::sentence(language, text).into_owned();
    let phase = status
        .phase
        .map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}"));
    let mut head = format!("{}: {}", full_name_of(vm), language.state(&phase));
    if let Some(message) = &status.message {
        head.push_str(&format!(" ({})", told(message)));
    }
    let mut lines = vec![head];
    if let Some(assignment) = &status.assignment {
        lines.push(format!(
            "{}{} ({} {})",
            language.pick("  host: ", "  宿主机:"),
            assignment.host,
            language.pick("epoch", "纪元"),
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
    if let Some(message) = arriving.and_then(|target| target.message.as_ref()) {
        lines.push(format!(
            "{}{}",
            language.pick("  target's agent: ", "  目标端代理:"),
            told(message)
        ));
    }
    if let Some(placement) = &status.placement {
        lines.push(format!(
            "{}{}",
            language.pick("  decision: ", "  决定:"),
            told(&placement.message)
        ));
        let reasons = placement.reasons.iter();
        lines.extend(reasons.map(|reason| format!("    + {}", told(reason))));
        let removed = placement.removed.iter();
        lines.extend(removed.map(|removed| format!("    - {}", told(removed))));
    }
    lines.extend(wrong(language, &status));
    for proof in &status.proofs {
        lines.push(format!(
            "{}{:?} {}/{}: {}",
            language.pick("  stop proof: ", "  停机证明:"),
            proof.kind,
            proof.assignment.host,
            proof.assignment.epoch,
            told(&proof.evidence)
        ));
    }
    if let Some(message) = status.runtime.and_then(|runtime| runtime.message) {
        lines.push(format!(
            "{}{}",
            language.pick("  agent: ", "  代理:"),
            told(&message)
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Conditions that are not as they should be, a line each. All of a VM's are good when they are `True`; one that is
/// shut down as its user wants has no host and is not ready, and that is no fault.
fn wrong(language: Language, status: &VirtualMachineStatus) -> Vec<String> {
    let stopped = status.phase == Some(VirtualMachinePhase::Stopped);
    let fault = |one: &&Condition| {
        one.status != "True" && !(stopped && matches!(one.type_.as_str(), "Scheduled" | "Ready"))
    };
    let wrong = status.conditions.iter().filter(fault);
    wrong
        .map(|one| {
            format!(
                "{}{}={} ({}){}{}",
                language.pick("  condition: ", "  状况:"),
                one.type_,
                one.status,
                one.reason,
                language.pick(": ", ":"),
                said::sentence(language, &one.message)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> VirtualMachine {
        let at = "2026-11-25T08:00:00Z";
        let words = "spec.affinity[0] of oa/web-1 (apart from app=db) names no other VM of the namespace; correct matchLabels, or make the VM";
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "oa"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
            "status": {"phase": "Pending", "message": "no host fits (3 hosts: not enough memory; 1 host: planned work)",
                "conditions": [
                    {"type": "Scheduled", "status": "False", "reason": "NotPlaced", "message": "needs a host", "lastTransitionTime": at},
                    {"type": "Ready", "status": "True", "reason": "Running", "message": "runs", "lastTransitionTime": at},
                    {"type": "RulesObeyed", "status": "False", "reason": "NamesNothing", "message": words, "lastTransitionTime": at}],
                "placement": {"message": "no host fits (3 hosts: not enough memory; 1 host: planned work)",
                    "removed": ["3 hosts: not enough memory", "1 host: planned work"]}}
        }))
        .expect("a VM")
    }

    #[test]
    fn says_in_english_why_a_vm_is_nowhere_and_what_is_wrong_with_it() {
        assert_eq!(
            text(Language::English, &vm(), None),
            "oa/web-1: Pending (no host fits (3 hosts: not enough memory; 1 host: planned work))\n\
            \x20 decision: no host fits (3 hosts: not enough memory; 1 host: planned work)\n\
            \x20   - 3 hosts: not enough memory\n\
            \x20   - 1 host: planned work\n\
            \x20 condition: Scheduled=False (NotPlaced): needs a host\n\
            \x20 condition: RulesObeyed=False (NamesNothing): spec.affinity[0] of oa/web-1 (apart from app=db) names no other VM of the namespace; correct matchLabels, or make the VM\n"
        );
    }

    #[test]
    fn says_in_chinese_why_a_vm_is_nowhere_and_what_is_wrong_with_it() {
        assert_eq!(
            text(Language::Chinese, &vm(), None),
            "oa/web-1: 等待 (没有满足条件的宿主机(3 台宿主机:内存不足;1 台宿主机:计划维护中))\n\
            \x20 决定:没有满足条件的宿主机(3 台宿主机:内存不足;1 台宿主机:计划维护中)\n\
            \x20   - 3 台宿主机:内存不足\n\
            \x20   - 1 台宿主机:计划维护中\n\
            \x20 状况:Scheduled=False (NotPlaced):等待分配宿主机\n\
            \x20 状况:RulesObeyed=False (NamesNothing):oa/web-1 的 spec.affinity[0](与 app=db 分开)未指向命名空间中的任何其他虚拟机;请更正 matchLabels,或创建该虚拟机\n"
        );
    }

    #[test]
    fn that_a_vm_is_shut_down_as_wanted_is_no_fault() {
        let mut vm = vm();
        vm.status.as_mut().expect("a status").phase = Some(VirtualMachinePhase::Stopped);
        let text = text(Language::English, &vm, None);
        assert!(
            !text.contains("Scheduled=") && !text.contains("Ready="),
            "{text}"
        );
        assert!(text.contains("RulesObeyed=False"), "{text}");
    }

    #[test]
    fn a_choice_is_told_with_its_reasons() {
        let mut vm = vm();
        vm.status = serde_json::from_value(json!({"phase": "Running", "message": "runs",
            "assignment": {"host": "h1", "bootId": "b", "epoch": 3},
            "placement": {"host": "h1", "message": "placed on h1", "reasons": [
                "its 2 wishes about other VMs are met there",
                "most free memory where as many wishes are met (4096 MiB)"]}}))
        .expect("a status");
        assert_eq!(
            text(Language::Chinese, &vm, None),
            "oa/web-1: 运行中 (运行中)\n\
            \x20 宿主机:h1 (纪元 3)\n\
            \x20 决定:已放置到 h1\n\
            \x20   + 在该宿主机上满足其对其他虚拟机的全部 2 项亲和性偏好\n\
            \x20   + 满足同样多偏好的宿主机中空闲内存最多(4096 MiB)\n"
        );
    }

    #[test]
    fn why_a_copy_that_was_handed_over_does_not_run_is_told() {
        let mut vm = vm();
        let incoming = json!({"host": "h3", "bootId": "b", "epoch": 2});
        vm.status = serde_json::from_value(json!({"phase": "Recovering",
            "message": "was handed over to h3 and does not run there yet; its move tells why (status.target.message)",
            "assignment": {"host": "h1", "bootId": "b", "epoch": 1}, "incoming": incoming}))
        .expect("a status");
        let target = serde_json::from_value(json!({"assignment": incoming, "phase": "Arrived",
            "message": "the copy can not be let run: resume: an I/O error"}))
        .expect("a target");
        assert_eq!(
            text(Language::Chinese, &vm, Some(&target)),
            "oa/web-1: 恢复中 (已移交给 h3,但尚未在那里恢复运行;原因见其迁移(status.target.message))\n\
            \x20 宿主机:h1 (纪元 1)\n\
            \x20 正在迁往:h3\n\
            \x20 目标端代理:无法恢复运行该副本:resume: an I/O error\n"
        );
    }
}
