//! What `failover` says of a frozen site and of a policy.

use super::Table;

/// What `failover` says of a frozen site and of a policy: agent/freeze.rs, freeze.rs, rebase.rs and policy.rs.
pub(super) const FAILOVER: Table = &[
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
        "the operator saw the API server hold less than before",
        "控制器发现 API 服务器的内容少于以往",
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
    (
        "every reading would be void before the next one comes",
        "每次读数会在下次读数之前失效",
    ),
    (
        "the intent would be void before one BMC has been tried",
        "尚未试完一个 BMC,隔离意图就已失效",
    ),
];

/// What goes wrong outside of a range: policy/ranges.rs.
pub(super) const RANGES: Table = &[
    (
        "the API server drowns in renewals, or three of them do not fit into a contract",
        "API 服务器会被续期请求淹没,或一个约定期内容不下三次续期",
    ),
    (
        "ordinary jitter would look like silence, or a death is noticed late",
        "正常抖动会被当作静默,或过晚发现宿主机故障",
    ),
    (
        "the pool drowns in writes, or three of them do not fit into a contract",
        "存储池会被写入淹没,或一个约定期内容不下三次写入",
    ),
    (
        "the BMC drowns in requests, or Off is read late",
        "BMC 会被请求淹没,或过晚读到关闭",
    ),
    (
        "every reading would be void at once, or an old one would prove something about now",
        "每次读数会立即失效,或以旧读数证明当前状态",
    ),
    (
        "every answer would be void before the next probe, or an old one would pass for life",
        "每次应答会在下次探测前失效,或旧应答被当作存活",
    ),
    (
        "a short stall would be fenced, or recovery comes late",
        "短暂停顿会导致隔离,或恢复过晚",
    ),
    (
        "a short cut would be fenced, or recovery comes late",
        "短暂断网会导致隔离,或恢复过晚",
    ),
    (
        "the guard would always or never stand",
        "风暴保护会始终生效,或从不生效",
    ),
    (
        "one dead host would be a storm",
        "一台宿主机故障就会被当作风暴",
    ),
    (
        "a storm would not be seen as one, or stand for ever",
        "风暴无法被识别,或永不结束",
    ),
    (
        "fences would follow each other too quickly, or never",
        "隔离会接连过快,或永不进行",
    ),
    (
        "fencing would never begin, or outlast its intent of 60 s",
        "隔离永不开始,或超出隔离意图的 60 秒有效期",
    ),
    (
        "no BMC could be tried, or a dead operator's intent keeps a host closed for long",
        "来不及尝试任何 BMC,或已停止的控制器留下的隔离意图使宿主机长期不接收虚拟机",
    ),
    (
        "no BMC answers that fast, or a slow one blocks recovery",
        "没有 BMC 能如此快应答,或缓慢的 BMC 会阻碍恢复",
    ),
    (
        "no power supply drains that fast, or a BMC that does nothing is waited for",
        "没有电源能如此快断电,或空等不起作用的 BMC",
    ),
    (
        "every busy moment would restart the windows, or a pause would look like silence",
        "每次繁忙都会使计时重新开始,或暂停会被当作静默",
    ),
    (
        "a busy agent would look down, or one that is stuck keeps taking VMs",
        "繁忙的代理会被当作停止,或卡住的代理继续接收虚拟机",
    ),
    (
        "a host would be Ready between two reports of a clone, or stay closed long after it has gone",
        "宿主机会在克隆机两次上报之间显示正常,或在克隆机消失后长期不接收虚拟机",
    ),
    (
        "a short cut would kill VMs, or VMs of a dead host stay down for too long",
        "短暂断网会终止虚拟机,或故障宿主机的虚拟机中断过久",
    ),
    (
        "a busy moment would reset the host, or VMs of a dead host stay down for too long",
        "短暂繁忙会使宿主机复位,或故障宿主机的虚拟机中断过久",
    ),
    (
        "a late kill might meet a restarted VM, or VMs of a dead host stay down for too long",
        "过晚的终止可能遇上已重启的虚拟机,或故障宿主机的虚拟机中断过久",
    ),
    (
        "a slow shutdown would fence its host, or a VM that can not be stopped is never told",
        "缓慢的关机会导致其宿主机被隔离,或无法停止的虚拟机永不上报",
    ),
    (
        "a crashing VM would burn the host, or stay down long",
        "反复崩溃的虚拟机会耗尽宿主机,或长时间中断",
    ),
    (
        "crashes in a row would never add up, or a crash of last week counts",
        "连续崩溃永不累计,或上周的崩溃也计入",
    ),
    (
        "nothing would start, or a broken VM is started for ever",
        "虚拟机都无法启动,或损坏的虚拟机被无休止地启动",
    ),
    (
        "nothing would start, or a host is overrun",
        "虚拟机都无法启动,或宿主机不堪重负",
    ),
    (
        "a fault that flaps would clear itself, or one that is gone keeps its host empty",
        "时有时无的故障会自行清除,或已消失的故障使宿主机长期空置",
    ),
    (
        "an alarm that flaps would move VMs all day, or a host that fails again is not emptied",
        "反复出现的告警会使虚拟机整日迁移,或再次故障的宿主机不被清空",
    ),
    (
        "no host would be emptied, or the whole site would move at once",
        "没有宿主机会被清空,或全站虚拟机同时迁移",
    ),
    (
        "no target could prepare in time, or a dead one holds a move up",
        "目标来不及准备,或已故障的目标拖住迁移",
    ),
    (
        "no VM could move, or a stuck move blocks a drain",
        "虚拟机无法迁移,或卡住的迁移阻碍清空",
    ),
    (
        "every hand-over would pass for an outage, or an outage for a hand-over",
        "每次交接都会被当作中断,或中断被当作交接",
    ),
];

#[cfg(test)]
mod tests {
    use failover::Policy;
    use serde_json::json;

    use crate::language::Language;
    use crate::said::sentence;

    /// Nought is outside of every range.
    #[test]
    fn whatever_a_policy_is_refused_for_is_told_in_chinese() {
        let document = serde_json::to_value(Policy::default()).expect("JSON");
        let fields = document.as_object().expect("an object").iter();
        for (field, _) in fields.filter(|(_, value)| value.is_number()) {
            let mut wrong = document.clone();
            wrong[field.as_str()] = json!(0);
            let policy: Policy = serde_json::from_value(wrong).expect("a policy");
            let refused = policy.check().expect_err(field);
            assert!(refused.iter().any(|error| error.field == field), "{field}");
            for error in refused {
                let told = sentence(Language::Chinese, error.because);
                assert_ne!(told, error.because, "{field}");
            }
        }
    }
}
