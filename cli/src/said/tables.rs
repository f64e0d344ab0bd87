//! Sentences of agents, of the operator and of `fleet`, by who says them: `{}` is any text, which may be a sentence
//! itself, `{n}` digits, `{w}` a word. Places of the Chinese are filled in order, or name one of the English: `{1}`.

use fleet::quota::Exceeded;

type Table = &'static [(&'static str, &'static str)];

/// All tables.
pub fn all() -> Vec<(String, String)> {
    let owned = |(english, chinese): &(&str, &str)| ((*english).to_owned(), (*chinese).to_owned());
    let tables = [AGENTS, OPERATOR, SITE, BMCS, FAILOVER, RULES, COMPOSED];
    let all = tables.into_iter().flatten().map(owned);
    let evidence = failover::proof::evidence::phrases();
    let evidence = evidence.map(|(english, chinese)| (english.to_owned(), chinese.to_owned()));
    all.chain([quota()]).chain(evidence).collect()
}

/// A quota that is exceeded; `fleet` has both languages.
fn quota() -> (String, String) {
    let place = |number: usize| format!("{{{number}}}");
    let told = |places: [String; 4]| {
        let [field, department, needed, allowed] = places;
        Exceeded {
            department,
            field,
            needed,
            allowed,
        }
    };
    let english = told([
        "{w}".to_owned(),
        "{w}".to_owned(),
        "{}".to_owned(),
        "{}".to_owned(),
    ]);
    let chinese = told([place(0), place(1), place(2), place(3)]);
    (english.english(), chinese.chinese())
}

/// Why a host starts nothing: agent/src/hook_check.rs and alarm.rs.
const AGENTS: Table = &[
    ("the qemu hook was not checked yet", "尚未检查 qemu 钩子"),
    (
        "the qemu hook {w} lets a start pass that no ledger allows; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 放行了账本未允许的启动;请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the qemu hook {w} is not zhengyun-qemu-hook; install it there",
        "qemu 钩子 {} 不是 zhengyun-qemu-hook;请在该处安装它",
    ),
    (
        "the qemu hook {w} fails on reconnect, so a restart of libvirtd would kill VMs: {}; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 在重连时失败,重启 libvirtd 会终止虚拟机:{};请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the qemu hook {w} did not answer {} within {n} s",
        "qemu 钩子 {} 未应答 {}(时限 {} 秒)",
    ),
    (
        "the qemu hook {w} can not be run: {}; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 无法运行:{};请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the ledger in the run folder was lost: it has no entry for epoch {n} of VM {w}/{w}, which runs here; move the VMs away and boot this host anew",
        "运行目录中的账本已丢失:其中没有纪元 {} 的记录,而虚拟机 {}/{} 正以该纪元在此运行;请迁走虚拟机并重启该宿主机",
    ),
    (
        "the ledger in the run folder was lost: it has no entry for epoch {n} of VM {w}/{w}, of which this host has reported {w}; move the VMs away and boot this host anew",
        "运行目录中的账本已丢失:其中没有纪元 {} 的记录,而本宿主机曾就虚拟机 {}/{} 的该纪元上报 {};请迁走虚拟机并重启该宿主机",
    ),
    ("the copy can not be let run: {}", "无法恢复运行该副本:{}"),
    ("not started within {n} s: {}", "{} 秒内未能启动:{}"),
];

/// What the operator decided about VMs and pools, and made of reasons.
const OPERATOR: Table = &[
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

/// Why a BMC can not be read: crates/bmc/src/lib.rs.
const BMCS: Table = &[
    ("{w} did not answer within {n} s", "{} 在 {} 秒内无应答"),
    (
        "{w} refuses the login; correct the Secret that spec.bmcs.credentials names",
        "{} 拒绝登录;请更正 spec.bmcs.credentials 所指的 Secret",
    ),
    ("{w} can not be reached", "无法连接 {}"),
    ("{w} answered {}", "{} 的应答不可用:{}"),
];

/// What the operator says of guards, of BMCs, of the policy and of a frozen site: operator/src/hosts/show.rs and
/// test_read.rs, reconcile/policies.rs and freeze.rs.
const SITE: Table = &[
    (
        "spec.bmcs: none is declared, so this host can not be fenced",
        "spec.bmcs:未声明 BMC,因此无法隔离该宿主机",
    ),
    (
        "the last reading of its BMC failed: this host can not be fenced; check spec.bmcs, its Secret and the cable",
        "最近一次读取其 BMC 失败:无法隔离该宿主机;请检查 spec.bmcs、其 Secret 与网线",
    ),
    ("spec.bmcs[{n}]: {}", "spec.bmcs[{}]:{}"),
    (
        "the test-read failed; see the operator's log",
        "试读失败;请查看 operator 日志",
    ),
    (
        "it belongs to the machine with system UUID {w}, this host has {w}; correct its address",
        "它属于系统 UUID 为 {} 的机器,而该宿主机为 {};请更正其地址",
    ),
    (
        "it does not say which machine it belongs to, so it proves nothing",
        "它未说明属于哪台机器,因此不能作为证明",
    ),
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
        "the operator saw the API server hold less than before",
        "operator 发现 API 服务器的内容少于以往",
    ),
    (
        "the API server has forgotten that the site is frozen",
        "API 服务器遗忘了站点已冻结",
    ),
    ("host {w}: {}", "宿主机 {}:{}"),
    (
        "host {w} remembers version {w} of the API server, which is at {n}",
        "宿主机 {} 记得 API 服务器的版本 {},而其当前版本为 {}",
    ),
    (
        "every host was heard or is off: zyctl failover rebase",
        "所有宿主机均已报告或已关机:请执行 zyctl failover rebase",
    ),
    ("the rebase is being carried out", "正在执行重新定基"),
];

/// What `failover` says of a frozen site and of a policy: agent/freeze.rs, rebase.rs and policy.rs.
const FAILOVER: Table = &[
    (
        "the API server is at version {n} and was at {n} before; was etcd restored?",
        "API 服务器的版本为 {},此前曾为 {};是否恢复过 etcd?",
    ),
    (
        "VM {w} runs here under epoch {n}, and the API has issued none above {n}; was etcd restored?",
        "虚拟机 {} 以纪元 {} 在此运行,而 API 签发的纪元不超过 {};是否恢复过 etcd?",
    ),
    ("the site is frozen", "站点已冻结"),
    (
        "the API has forgotten the rebase of {}; was etcd restored?",
        "API 遗忘了 {} 的重新定基;是否恢复过 etcd?",
    ),
    (
        "host {w} has not told what runs there; wait for its agent, or switch it off: its BMC is read, or say zyctl host confirm-dead {w}",
        "宿主机 {} 尚未报告其上运行的虚拟机;请等待其代理,或将其关机:可读取其 BMC,或执行 zyctl host confirm-dead {}",
    ),
    (
        "VM {w} runs on {w} and on {w}; destroy the copy with the older data by hand",
        "虚拟机 {} 同时在 {} 和 {} 上运行;请手动销毁数据较旧的副本",
    ),
    (
        "host {w} tells of epoch {n}, and none above {n} is ever issued; its ledger is damaged: empty the host and reboot it, or switch it off",
        "宿主机 {} 报告纪元 {},而签发的纪元不会超过 {};其账本已损坏:请清空并重启该宿主机,或将其关机",
    ),
    (
        "on {w} runs VM {w} (uid {w}), which the API does not hold; copy what is needed out of it and shut it down by hand",
        "宿主机 {} 上运行着 API 中没有的虚拟机 {}(uid {});请复制所需数据并手动关机",
    ),
    (
        "{w}: {n} is refused, because {}; safe: {}",
        "{}:不接受 {},因为{};安全范围:{}",
    ),
    ("{n} to {n}", "{} 至 {}"),
    (
        "a host must be Suspect, and its BMC read, before it is unreachable",
        "宿主机须先判为疑似故障并读取其 BMC,才能判定失联",
    ),
    (
        "a host that still runs must not be fenced sooner than one that shows no life",
        "仍在运行的宿主机不得早于毫无响应的宿主机被隔离",
    ),
    (
        "contract, watchdog and margin together would keep VMs down for too long",
        "约定、看门狗与余量之和会使虚拟机中断过久",
    ),
    (
        "two missed renewals would kill every VM of a healthy host",
        "错过两次续期就会终止正常宿主机上的全部虚拟机",
    ),
    (
        "the longest wait would be shorter than the first",
        "最长等待时间会短于首次等待时间",
    ),
];

/// Rules of VMs about one another, and claims that keep a VM from moving: crates/fleet/src/affinity.rs and readiness.rs.
const RULES: Table = &[
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
];

/// Sentences that are put together of several pieces.
const COMPOSED: Table = &[
    (
        "spec.affinity[{n}] of {w} (together with {w})",
        "{1} 的 spec.affinity[{0}](与 {2} 同宿主机)",
    ),
    (
        "spec.affinity[{n}] of {w} (apart from {w})",
        "{1} 的 spec.affinity[{0}](与 {2} 分开)",
    ),
    ("rack {w}: {}", "机架 {}:{}"),
    // What is safe beside other fields of the policy.
    ("at least {n} ({w})", "不小于 {}({})"),
    (
        "at least {n} (three times the longer of {w} and {w})",
        "不小于 {}({} 与 {} 中较长者的三倍)",
    ),
    (
        "more than {n} (the sum of {w} and the constant {w})",
        "大于 {}({} 与常量 {} 之和)",
    ),
    (
        "{w}, {w} and {w} together at most {n}, now {n}",
        "{}、{} 与 {} 之和不大于 {},当前为 {}",
    ),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Source text, or a sentence, with every place as `{}`.
    fn with_places(source: &str) -> String {
        let mut text = String::new();
        for (index, part) in source.split('{').enumerate() {
            match part.split_once('}') {
                _ if index == 0 => text.push_str(part),
                Some((name, rest)) if !name.contains(char::is_whitespace) => {
                    text.push_str(&format!("{{}}{rest}"))
                }
                _ => text.push_str(&format!("{{{part}")),
            }
        }
        text
    }

    /// Source text of a folder, every place as `{}`.
    fn source(folder: &Path) -> String {
        let files = std::fs::read_dir(folder).expect("a folder of sources");
        let files = files.map(|file| file.expect("a file").path());
        files
            .map(|file| match file.is_dir() {
                true => source(&file),
                false => with_places(&std::fs::read_to_string(file).expect("a source file")),
            })
            .collect()
    }

    /// A sentence that was changed where it is said has no Chinese any more.
    #[test]
    fn every_sentence_is_said_by_somebody() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (table, folder) in [
            (AGENTS, "agent/src"),
            (OPERATOR, "operator/src"),
            (SITE, "operator/src"),
            (BMCS, "crates/bmc/src"),
            (FAILOVER, "crates/failover/src"),
            (RULES, "crates/fleet/src"),
        ] {
            let source = source(&root.join(folder));
            for (english, chinese) in table {
                let english = with_places(english);
                assert!(source.contains(&format!("\"{english}\"")), "{english}");
                let places = |text: &str| with_places(text).matches("{}").count();
                assert_eq!(places(&english), places(chinese), "{english}");
            }
        }
        let rules = source(&root.join("crates/fleet/src"));
        for piece in [
            "spec.affinity[{}] of {}/{} ({} {})",
            "together with",
            "apart from",
        ] {
            assert!(rules.contains(&format!("\"{piece}\"")), "{piece}");
        }
    }

    #[test]
    fn a_quota_is_told_as_fleet_tells_it() {
        let exceeded = Exceeded {
            department: "tourism".to_owned(),
            field: "memory".to_owned(),
            needed: "17.0 GiB".to_owned(),
            allowed: "16.0 GiB".to_owned(),
        };
        let told = crate::said::sentence(crate::language::Language::Chinese, &exceeded.english())
            .into_owned();
        assert_eq!(told, exceeded.chinese());
    }
}
