//! What `fleet` says of VMs.

use super::Table;

/// Rules of VMs about one another, and what keeps a VM from moving: crates/fleet/src/affinity.rs and readiness.rs.
pub(super) const RULES: Table = &[
    (
        "its volume {w} is claimed by VM {w}: detach it from one of the two",
        "其卷 {} 已被虚拟机 {} 占用:请从两者之一卸载该卷",
    ),
    (
        "its volume {w} is claimed by a job on host {w}: it can be moved when that is over",
        "其卷 {} 正由宿主机 {} 上的作业占用:作业结束后即可迁移",
    ),
    (
        "{} and {} contradict each other for {w} and {w}; remove one of them",
        "{}与{}相互矛盾(涉及 {} 与 {});请去掉其中之一",
    ),
    (
        "{} names no other VM of the namespace; correct matchLabels, or make the VM",
        "{}未指向命名空间中的任何其他虚拟机;请更正 matchLabels,或创建该虚拟机",
    ),
    (
        "spec.spread of {w}/{w} names no other VM: it is about VMs of one system and tier, and the VM has no labels {w} and {w}; remove it, and ask with spec.affinity instead",
        "{}/{} 的 spec.spread 未指向任何其他虚拟机:该规则针对同一业务系统同一层的虚拟机,而该虚拟机没有标签 {} 和 {};请去掉它,改用 spec.affinity",
    ),
    (
        "spec.spread of {w}/{w} (over {w}, required {w}) is less strict than that of another VM of its tier (over {w}, required {w}), which holds for all of them; make them alike",
        "{}/{} 的 spec.spread(over {},required {})比同层另一台虚拟机的(over {},required {})宽松,后者适用于该层所有虚拟机;请统一设置",
    ),
    (
        "spread of tier {w} of {w}/{w}",
        "业务系统 {1}/{2} 的层 {0} 的分散规则",
    ),
    ("it is being deleted", "正在被删除"),
    ("it is being moved", "正在迁移"),
    (
        "it stands still since a disk failed: it can be moved when its storage answers again, or stop it",
        "因磁盘故障而暂停:其存储恢复应答后即可迁移,也可将其关机",
    ),
];

/// What keeps a VM from moving, with or without what its status says in brackets: crates/fleet/src/readiness.rs.
pub(super) const PHASES: Table = &[
    ("it is being started", "正在启动"),
    ("it is being shut down", "正在关机"),
    ("it is being started anew", "正在重新启动"),
    ("it is not started yet", "尚未启动"),
    (
        "nobody knows whether it runs: it can be moved when its host answers",
        "无法得知其是否在运行:其宿主机恢复应答后即可迁移",
    ),
    (
        "its only data is on its failed host",
        "其唯一的数据在已故障的宿主机上",
    ),
    (
        "it can not be started, and is tried again elsewhere: look at it, or stop it",
        "无法启动,将在其他宿主机重试:请检查该虚拟机,或将其关机",
    ),
];
