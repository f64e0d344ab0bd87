//! What the operator says.

use super::Table;

/// What the operator decided about VMs and pools, and made of reasons.
pub(super) const OPERATOR: Table = &[
    ("VM {w}: {}", "虚拟机 {}:{}"),
    ("no replica answers: {}", "没有副本应答:{}"),
    ("waits for its endpoints to answer", "等待其端点应答"),
    ("can not be assigned: {}", "无法分配:{}"),
    (
        "spec.cloudInit.name: Secret {w} does not exist in {w}; make it (kubectl create secret generic {w} -n {w} --from-file=user-data=FILE), or name another",
        "spec.cloudInit.name:Secret {} 在 {} 中不存在;请创建(kubectl create secret generic {} -n {} --from-file=user-data=FILE),或改用其他 Secret",
    ),
    ("placed on {w}", "已放置到 {}"),
    ("assigned to {w}", "已分配到 {}"),
    (
        "N+1 of pool {w} would break: if host {w} failed, {w} would find no place; {}; add a host or remove a VM before starting {w}",
        "主机池 {} 的 N+1 将被破坏:若宿主机 {} 故障,{} 将找不到位置;{};启动 {} 之前请增加宿主机或移除虚拟机",
    ),
    (
        "N+1 of pool {w} could not be proven for the failure of host {w}; {}; add a host or remove a VM before starting {w}",
        "主机池 {} 在宿主机 {} 故障情形下的 N+1 无法得到证明;{};启动 {} 之前请增加宿主机或移除虚拟机",
    ),
    ("not registered", "尚未登记"),
    ("not watched yet", "尚未开始监视"),
    ("volume {w}", "卷 {}"),
    ("a volume of spec.disks", "spec.disks 中的一个卷"),
    (
        "volume {w} of spec.disks[{w}], which does not exist; create it or correct the name",
        "spec.disks[{1}] 的卷 {0} 不存在;请创建该卷或更正名称",
    ),
    (
        "any one host may fail and every VM finds a place",
        "任何一台宿主机故障,所有虚拟机都能找到新位置",
    ),
    (
        "spec.failuresToTolerate is 0",
        "spec.failuresToTolerate 为 0,未作承诺",
    ),
    (
        "if host {w} failed, {w} would find no place; add a host or remove a VM",
        "若宿主机 {} 故障,{} 将找不到位置;请增加宿主机或移除虚拟机",
    ),
    (
        "not proven for the failure of host {w}; add a host or remove a VM",
        "宿主机 {} 故障的情形未能证明;请增加宿主机或移除虚拟机",
    ),
    (
        "its VMs stay for now: with them elsewhere N+1 of pool {w} would break (if host {w} failed, {w} would find no place); add a host, or empty it with zyctl drain {w}",
        "其虚拟机暂不迁出:迁出后主机池 {} 的 N+1 将被破坏(若宿主机 {} 故障,{} 将找不到位置);请增加宿主机,或执行 zyctl drain {} 清空它",
    ),
    (
        "its VMs stay for now: with them elsewhere N+1 of pool {w} could not be proven for the failure of host {w}; add a host, or empty it with zyctl drain {w}",
        "其虚拟机暂不迁出:迁出后主机池 {} 的 N+1 在宿主机 {} 故障情形下无法得到证明;请增加宿主机,或执行 zyctl drain {} 清空它",
    ),
    ("survived", "可承受"),
    ("not proven", "未证明"),
    ("{w} would find no place", "{} 将找不到位置"),
    ("{n} more {w}", "{1} 还可 {0} 台"),
    ("0 more {w} fit", "{} 还可 0 台"),
    ("moves from {w} to {w}", "正从 {} 迁往 {}"),
    ("waits for {w}: {}", "等待 {}:{}"),
    (
        "its move failed {n} times and is tried again: {}",
        "其迁移已失败 {} 次,将再次尝试:{}",
    ),
    (
        "its move failed {n} times and is not tried again by itself: {}; it is tried anew when another host begins to take VMs, or with zyctl drain",
        "其迁移已失败 {} 次,不再自动重试:{};待有其他宿主机开始接收虚拟机,或执行 zyctl drain 后再试",
    ),
];

/// What is told of moves, and of what keeps them: operator/src/migrations.rs, migrations, evacuation/tries.rs and
/// vms/claims.rs.
pub(super) const MOVES: Table = &[
    ("moved from {w} to {w}: {}", "已从 {} 迁往 {}:{}"),
    ("someone asked for it", "人工发起"),
    ("the host is emptied for maintenance", "宿主机因维护而清空"),
    ("the host's hardware fails", "宿主机硬件故障"),
    (
        "the pool is better balanced afterwards",
        "迁移后主机池更均衡",
    ),
    ("its move names this host", "其迁移指定了该宿主机"),
    ("waits for its turn: {}", "等待轮到它:{}"),
    (
        "host {w} sends and receives {n} VMs already",
        "宿主机 {} 已在迁出和接收 {} 台虚拟机",
    ),
    (
        "{n} VMs of the site move already",
        "站点已有 {} 台虚拟机在迁移",
    ),
    ("it runs there", "虚拟机正在该处运行"),
    (
        "not the host that spec.targetHost names",
        "不是 spec.targetHost 指定的宿主机",
    ),
    ("planned anew: {}", "将重新规划:{}"),
    (
        "volume {w} is claimed by {w} {w}; detach it there first",
        "卷 {} 已被 {} {} 占用;请先在该处卸载",
    ),
    (
        "spec.virtualMachine: the VM does not exist",
        "spec.virtualMachine:虚拟机不存在",
    ),
    (
        "the API server does not take it ({})",
        "API 服务器不接受({})",
    ),
];

/// What a business system, or a network, names that is not there or does not fit: operator/src/reconcile/systems/validate.rs
/// and networks.rs. What a person can do about a tier stands in `COMPOSED`.
pub(super) const SYSTEMS: Table = &[
    (
        "{w}: {w} {w} does not exist; create it, or {}",
        "{}:{} {} 不存在;请创建,或{}",
    ),
    ("{w}: Network {w} is not ready: {}", "{}:网络 {} 未就绪:{}"),
    (
        "spec.vxlan.vni: {n} is the VNI of network {w}; make network {w} anew with a VNI of its own",
        "spec.vxlan.vni:{} 是网络 {} 的 VNI;请重新创建网络 {} 并使用独有的 VNI",
    ),
    (
        "spec.vlan.id: {n} is the VLAN id of network {w}; make network {w} anew with an id of its own",
        "spec.vlan.id:{} 是网络 {} 的 VLAN 号;请重新创建网络 {} 并使用独有的 VLAN 号",
    ),
    (
        "spec.subnets.cidr: {w} overlaps with {w} of network {w}; make network {w} anew with a range of its own",
        "spec.subnets.cidr:{0} 与网络 {2} 的 {1} 重叠;请重新创建网络 {3} 并使用独有的网段",
    ),
    (
        "{w}: no host pool serves {}; let a pool serve it, or {}",
        "{}:没有主机池服务于 {};请让某个主机池服务于该区,或{}",
    ),
    (
        "spec.mlpsGrade: {n} is above the grade of every host pool of that zone; lower it or raise a pool's mlpsGrade",
        "spec.mlpsGrade:{} 高于该区所有主机池的等级;请降低它,或提高某个主机池的 mlpsGrade",
    ),
    (
        "spec.mlpsGrade: {n} is above grade {n} of host pool {w}, where VM {w} stands; lower it or raise the pool's mlpsGrade",
        "spec.mlpsGrade:{0} 高于虚拟机 {3} 所在主机池 {2} 的等级 {1};请降低它,或提高该主机池的 mlpsGrade",
    ),
    (
        "{w}: image {w} is for {w}, and no host pool of that zone is; {}",
        "{}:镜像 {} 适用于 {},而该区没有此架构的主机池;请{}",
    ),
];

/// What the operator says of guards, of the policy and of a frozen site: operator/src/hosts/show.rs, reconcile/policies.rs
/// and freeze.rs.
pub(super) const SITE: Table = &[
    ("its guard was never heard of", "从未收到其守护进程的消息"),
    (
        "its guard tells no reason that is known here",
        "其守护进程未给出此处已知的原因",
    ),
    (
        "kills after {n} s without Lease and without heartbeat on {}; watchdog {n} s",
        "租约与 {1} 上的心跳中断 {0} 秒后终止虚拟机;看门狗 {2} 秒",
    ),
    (
        "{}: a dead host whose BMC is silent waits for a person",
        "{}:该宿主机故障而 BMC 无应答时,须等待人工处理",
    ),
    (
        "spec.failover.disarmed.until: {w} by {} is more than a day ahead and is not followed: dead hosts are fenced; for work on the network: zyctl failover disarm --for 2h --reason ...",
        "spec.failover.disarmed.until:{1} 设置的 {0} 超出一天,不予采纳:故障宿主机仍会被隔离;网络作业请用 zyctl failover disarm --for 2h --reason ...",
    ),
    (
        "{}; until it is corrected the defaults are in force",
        "{};更正之前按默认值运行",
    ),
    (
        "every host was heard or is off: zyctl failover rebase",
        "所有宿主机均已报告或已关机:请执行 zyctl failover rebase",
    ),
    ("the rebase is being carried out", "正在执行重新定基"),
];
