//! Why a VM gets no new right to run.

use super::Table;

/// What `failover` refuses: crates/failover/src/assignment.rs.
pub(super) const RIGHTS: Table = &[
    (
        "VM {w} is assigned to {w} already; give a stop proof and restart it, or migrate it",
        "虚拟机 {} 已分配到 {};请提供停机证明后重新启动,或迁移它",
    ),
    (
        "VM {w} has no assignment; make a first one",
        "虚拟机 {} 尚未分配;请先作首次分配",
    ),
    (
        "VM {w} is moving to {w} already; end that migration first",
        "虚拟机 {} 正在迁往 {};请先结束该迁移",
    ),
    (
        "VM {w} has no incoming assignment",
        "虚拟机 {} 没有迁入的分配",
    ),
    (
        "VM {w} runs on {w} already; choose another target",
        "虚拟机 {} 已在 {} 上运行;请另选目标",
    ),
    (
        "VM {w}: the stop proof covers epoch {n}, needed is one for epoch {n}",
        "虚拟机 {}:停机证明针对纪元 {},而所需的是针对纪元 {} 的",
    ),
    (
        "VM {w}: epoch {n} is incoming on {w} and has no stop proof",
        "虚拟机 {0}:纪元 {1} 正迁入 {2},尚无停机证明",
    ),
    (
        "VM {w}: a proof of kind {w} does not allow a resume on the target; only HandedOver does",
        "虚拟机 {}:类型为 {} 的证明不允许在目标上恢复运行,只有 HandedOver 允许",
    ),
    (
        "VM {w}: lastEpoch {n} is below the epoch {n} of a standing assignment; rebase the fleet before anything starts",
        "虚拟机 {}:lastEpoch {} 低于现有分配的纪元 {};请先重新定基,再启动任何虚拟机",
    ),
];

#[cfg(test)]
mod tests {
    use failover::assignment::AssignmentError;
    use model::{Epoch, StopProofKind, VmUid};

    use crate::language::Language;
    use crate::said::sentence;

    /// Whatever `failover` refuses is told in Chinese.
    #[test]
    fn every_refusal_is_known() {
        let (vm, host) = (VmUid::from("u1"), model::HostName::from("h1"));
        let (one, two) = (Epoch(7), Epoch(8));
        let all = [
            AssignmentError::AlreadyAssigned {
                vm: vm.clone(),
                host: host.clone(),
            },
            AssignmentError::NotAssigned { vm: vm.clone() },
            AssignmentError::AlreadyMoving {
                vm: vm.clone(),
                host: host.clone(),
            },
            AssignmentError::NotMoving { vm: vm.clone() },
            AssignmentError::SameHost {
                vm: vm.clone(),
                host: host.clone(),
            },
            AssignmentError::WrongProof {
                vm: vm.clone(),
                proven: one,
                needed: two,
            },
            AssignmentError::IncomingUnproven {
                vm: vm.clone(),
                host,
                epoch: one,
            },
            AssignmentError::WrongKind {
                vm: vm.clone(),
                kind: StopProofKind::PoweredOff,
            },
            AssignmentError::EpochsWentBack {
                vm,
                last: one,
                seen: two,
            },
        ];
        for error in all {
            let told = sentence(Language::Chinese, &error.to_string()).into_owned();
            assert!(told.starts_with("虚拟机 u1"), "{error}: {told}");
        }
    }
}
