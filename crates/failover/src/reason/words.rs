//! The sentence of each reason, in English and Chinese, by what it is about.

use super::{Reason, Sentence};
use crate::proof::evidence;
use crate::time::{lasted, left};

fn say(english: impl Into<String>, chinese: impl Into<String>) -> Sentence {
    Sentence {
        english: english.into(),
        chinese: chinese.into(),
    }
}

impl Reason {
    pub(super) fn of_host(&self) -> Option<Sentence> {
        Some(match self {
            Reason::NotRegistered => say("no agent has registered yet", "代理尚未登记"),
            Reason::Alive => say("renews its Lease", "租约正常续期"),
            Reason::MissedRenewal {
                silent_milliseconds,
            } => {
                let s = lasted(*silent_milliseconds);
                say(
                    format!("silent for {s} s; its power is being read"),
                    format!("已静默 {s} 秒,正在读取电源状态"),
                )
            }
            Reason::Unreachable {
                silent_milliseconds,
            } => {
                let s = lasted(*silent_milliseconds);
                say(
                    format!("last seen {s} s ago"),
                    format!("最后一次可见于 {s} 秒前"),
                )
            }
            Reason::Concluded { conclusion } => conclusion.sentence(),
            Reason::IdentityConflict { detail } => say(
                format!("identity conflict: {detail}; nothing new is placed here"),
                format!("身份冲突:{detail};不再放置新虚拟机"),
            ),
            Reason::AgentDown { age_milliseconds } => {
                let s = lasted(*age_milliseconds);
                say(
                    format!(
                        "the agent's loop stands still for {s} s; VMs run on, nothing new is placed here"
                    ),
                    format!("代理循环已停滞 {s} 秒;虚拟机继续运行,不再放置新虚拟机"),
                )
            }
            Reason::BootNotConfirmed => say(
                "its Lease does not carry the reported boot id yet",
                "租约尚未携带已上报的启动标识",
            ),
            Reason::NotKeptYet => say(
                "its finalizer is being written; nothing is placed here before",
                "正在写入终结器(finalizer);此前不放置任何虚拟机",
            ),
            Reason::BeingDeleted => say(
                "is being deleted: it goes once no VM, no volume job and no cut from storage is left of it; nothing new is placed here",
                "正在删除:待其上不再有虚拟机、卷任务和存储切断后移除;不再放置新虚拟机",
            ),
            Reason::Returned => say(
                "is back with a new boot; everything of the old one is dead",
                "已重新启动;旧实例上的一切均已停止",
            ),
            Reason::Reconciling { left } => say(
                format!("is back; {left} VMs of its former boot wait to be restarted"),
                format!("已恢复;旧启动实例的 {left} 台虚拟机等待重启"),
            ),
            Reason::InMaintenance => say("planned work", "计划维护中"),
            Reason::FaultsStand { count } => say(
                format!("{count} hardware faults stand; nothing new is placed here"),
                format!("存在 {count} 个硬件故障;不再放置新虚拟机"),
            ),
            Reason::ObserverPaused { milliseconds } => {
                let s = lasted(*milliseconds);
                say(
                    format!("this operator was paused for {s} s and starts its windows anew"),
                    format!("控制器曾暂停 {s} 秒,所有计时窗口重新开始"),
                )
            }
            _ => return None,
        })
    }

    pub(super) fn of_fencing(&self) -> Option<Sentence> {
        Some(match self {
            Reason::WaitsBeforeFence { left_milliseconds } => {
                let s = left(*left_milliseconds);
                say(
                    format!("is fenced in {s} s unless it comes back"),
                    format!("若不恢复,{s} 秒后将被隔离"),
                )
            }
            Reason::WatchesPowerOff => say(
                "reads Off; watched for signs of life before that counts",
                "电源读数为关闭;正在确认没有任何存活迹象",
            ),
            Reason::IsolatedKept => say(
                "is not fenced: the policy keeps isolated hosts running",
                "不执行隔离:策略要求保留被孤立的宿主机",
            ),
            Reason::Storm { silent, of } => say(
                format!(
                    "not forced off: {silent} of {of} hosts fell silent together, so the network is suspected"
                ),
                format!("不强制断电:{of} 台宿主机中有 {silent} 台同时静默,疑为网络故障"),
            ),
            Reason::StormReleases { other } => say(
                format!("not forced off yet: after a storm one host at a time, now {other}"),
                format!("暂不强制断电:风暴后逐台处理,当前为 {other}"),
            ),
            Reason::NoOtherHost => say(
                "not forced off: no other host is alive to restart its VMs, so the network is suspected",
                "不强制断电:没有其他存活的宿主机可重启其虚拟机,疑为网络故障",
            ),
            Reason::Disarmed => say(
                "not forced off: failover is disarmed",
                "不强制断电:故障切换已解除武装",
            ),
            Reason::CutsStorage => say(
                "no BMC helps: its pools' servers are told to cut it off from its VMs' disks",
                "BMC 无法使用:通知存储服务端切断该宿主机对虚拟机磁盘的访问",
            ),
            Reason::StorageIsCut => say(
                "its storage is cut off until it has booted anew or its BMC has proven it off; reboot it",
                "其存储访问已被切断,直至重新启动或由 BMC 证明关机;请重启该宿主机",
            ),
            Reason::Frozen => say(
                "frozen: the API server holds less than hosts remember (was etcd restored?); nothing is started, stopped, moved or forced off before zyctl failover rebase",
                "已冻结:API 服务器的数据早于宿主机的记忆(etcd 被恢复?);执行 zyctl failover rebase 前不启动、不停止、不迁移、不强制断电",
            ),
            Reason::CannotWrite => say(
                "not forced off: this operator cannot write to the API server",
                "不强制断电:控制器无法写入 API 服务器",
            ),
            Reason::FenceIntended => say("fencing intent is being written", "正在写入隔离意图"),
            Reason::PowerAlreadyOff => say(
                "the BMC reads Off already; no command is sent",
                "BMC 已读为关闭;不发送命令",
            ),
            Reason::ForcedOff { bmc, attempt } => say(
                format!("force-off sent through BMC {bmc}, attempt {attempt}"),
                format!("已通过 BMC {bmc} 发送强制断电,第 {attempt} 次"),
            ),
            Reason::StaysOn { bmc, attempts } => say(
                format!("BMC {bmc} still does not read Off after {attempts} attempts"),
                format!("BMC {bmc} 在 {attempts} 次尝试后仍未读为关闭"),
            ),
            Reason::OffNotProven { bmc } => say(
                format!(
                    "BMC {bmc} read Off, and that was not proven since: it answers no more, or the host shows life"
                ),
                format!("BMC {bmc} 曾读为关闭,但此后未得到证实:BMC 不再应答,或宿主机仍有存活迹象"),
            ),
            Reason::NextBmc { bmc } => say(format!("trying BMC {bmc}"), format!("改用 BMC {bmc}")),
            Reason::FenceFailed => say(
                "could not be forced off through any BMC",
                "所有 BMC 均无法强制断电",
            ),
            Reason::NoBmc => say(
                "has no BMC; its death can not be read",
                "没有 BMC;无法读取其电源状态",
            ),
            Reason::BmcOfOtherMachine => say(
                "its BMC reports the system UUID of another machine; correct spec.bmcs",
                "BMC 返回的系统 UUID 属于另一台机器;请更正 spec.bmcs",
            ),
            Reason::Proven { kind, evidence } => {
                let chinese = evidence::chinese(evidence);
                say(
                    format!("proven stopped ({kind:?}): {evidence}"),
                    format!(
                        "已证明停止({kind:?}):{}",
                        chinese.as_ref().unwrap_or(evidence)
                    ),
                )
            }
            Reason::WordIsVoid => say(
                "that a person called it off does not count: it showed life, or its BMC read On, after that was said",
                "人工的断电确认不予采信:此后该宿主机仍有存活迹象,或其 BMC 读为开启",
            ),
            Reason::NeedsPerson { host } => say(
                format!(
                    "needs a person: nothing proves that {host} is off; switch it off and run zyctl host confirm-dead {host} --reason ..."
                ),
                format!(
                    "需要人工:无法证明 {host} 已断电;请断电后执行 zyctl host confirm-dead {host} --reason ..."
                ),
            ),
            _ => return None,
        })
    }

    pub(super) fn of_vm(&self) -> Option<Sentence> {
        Some(match self {
            Reason::Runs => say("runs", "运行中"),
            Reason::Starts => say("is being started", "正在启动"),
            Reason::Stops => say("is being shut down", "正在关机"),
            Reason::Stopped => say("is shut down", "已关机"),
            Reason::ShutDownInside => say(
                "was shut down from inside and is not started again",
                "由来宾系统内部关机,不再自动启动",
            ),
            Reason::Moves => say("moves to another host", "正在迁移"),
            Reason::NeedsHost => say("needs a host", "等待分配宿主机"),
            Reason::WaitsForVolumes { detail } => say(
                format!("waits for its volumes: {detail}"),
                format!("等待卷就绪:{detail}"),
            ),
            Reason::HostSilent { host } => say(
                format!("its host {host} is silent: nobody knows whether it runs"),
                format!("宿主机 {host} 静默:无法得知其是否在运行"),
            ),
            Reason::WaitsForProof { host } => say(
                format!(
                    "is not started elsewhere: nothing proves yet that its copy on {host} stopped"
                ),
                format!("不在别处启动:尚无证据表明 {host} 上的副本已停止"),
            ),
            Reason::PinnedTo { host } => say(
                format!("its only data lie on {host}; it waits for that host"),
                format!("唯一数据位于 {host};等待该宿主机恢复"),
            ),
            Reason::WaitsForItsHost { host } => say(
                format!("is not restarted elsewhere (highAvailability None); waits for {host}"),
                format!("未启用高可用,等待 {host} 恢复"),
            ),
            Reason::BacksOff {
                left_milliseconds,
                failures,
            } => {
                let s = left(*left_milliseconds);
                say(
                    format!("failed {failures} times in a row; next start in {s} s"),
                    format!("连续失败 {failures} 次;{s} 秒后再次启动"),
                )
            }
            Reason::KeepsFailing { failures } => say(
                format!("failed {failures} times in a row; look at the message of the last start"),
                format!("连续失败 {failures} 次;请查看最后一次启动的信息"),
            ),
            Reason::Restarts { kind } => say(
                format!("its former copy is proven stopped ({kind:?}); it is started anew"),
                format!("旧副本已证明停止({kind:?});重新启动"),
            ),
            Reason::CloseStuck { host } => say(
                format!("its copy on {host} does not stop; the host may have to be fenced"),
                format!("{host} 上的副本无法停止;可能需要隔离该宿主机"),
            ),
            Reason::StuckTogether { hosts } => say(
                format!(
                    "{hosts} hosts can not end copies at the same time; their storage is suspected, and none is forced off"
                ),
                format!("{hosts} 台宿主机同时无法结束副本;疑为共享存储故障,不强制断电"),
            ),
            Reason::Stalled { host } => say(
                format!(
                    "a disk of it failed on {host}; it stands still and runs on when its storage answers again"
                ),
                format!("{host} 上的磁盘读写出错;虚拟机已暂停,存储恢复后继续运行"),
            ),
            Reason::EpochsWentBack => say(
                "its epochs went back (a restored etcd?); nothing starts before a rebase",
                "纪元回退(etcd 被恢复?);重新定基前不启动",
            ),
            Reason::IncomingLeft { host } => say(
                format!("an incoming copy on {host} is not proven stopped yet"),
                format!("{host} 上的迁入副本尚未证明停止"),
            ),
            Reason::NotResumed { host } => say(
                format!(
                    "was handed over to {host} and does not run there yet; its move tells why (status.target.message)"
                ),
                format!("已移交给 {host},但尚未在那里恢复运行;原因见其迁移(status.target.message)"),
            ),
            Reason::WaitsForTier { order } => say(
                format!("waits until tier {order} of its system answers"),
                format!("等待本系统第 {order} 层应答"),
            ),
            Reason::WaitsForSlot { host, starting } => say(
                format!("waits: {host} starts {starting} VMs already"),
                format!("等待:{host} 正在启动 {starting} 台虚拟机"),
            ),
            _ => return None,
        })
    }

    pub(super) fn of_migration(&self) -> Sentence {
        match self {
            Reason::NeedsTarget => say("needs a target", "等待选择目标宿主机"),
            Reason::NotRunning => say(
                "the VM does not run, so it can not move",
                "虚拟机未运行,无法迁移",
            ),
            Reason::TargetPrepares => say("the target prepares", "目标端准备中"),
            Reason::MemoryCopied => say("memory is being copied", "正在复制内存"),
            Reason::TargetResumes => {
                say("handed over; the target takes over", "已移交;目标端接管中")
            }
            Reason::ResumedTooLate => say(
                "the target could not let it run in time; it gives up its copy, and the VM is started anew",
                "目标端未能及时恢复运行;放弃其副本,虚拟机将重新启动",
            ),
            Reason::CancelRequested => say("cancelled", "已请求取消"),
            Reason::NoLongerWanted => say(
                "the VM is to stop, so it does not move",
                "虚拟机将停止,不再迁移",
            ),
            Reason::PreparedTooLate => say(
                "the target was not prepared in time",
                "目标端未能及时准备好",
            ),
            Reason::TookTooLong => say("took longer than the policy allows", "超过策略允许的时间"),
            Reason::TargetLost { host } => say(
                format!("the target {host} is lost"),
                format!("目标宿主机 {host} 失联"),
            ),
            Reason::SourceLost { host } => say(
                format!("the source {host} is lost"),
                format!("源宿主机 {host} 失联"),
            ),
            Reason::SourceRunsOn => say(
                "the move failed; as last heard, the VM runs on where it was",
                "迁移失败;据最后消息,虚拟机在原处继续运行",
            ),
            Reason::SourceStopped => say(
                "the source stopped without handing over; the target must not resume",
                "源端未移交即停止;目标端不得恢复运行",
            ),
            Reason::TargetRefused => say("the target gave up its copy", "目标端已放弃其副本"),
            Reason::WaitsForSource => say(
                "waits until the source says whether it runs",
                "等待源端说明其是否在运行",
            ),
            Reason::WaitsForRefusal => say(
                "waits until the target has given up its copy",
                "等待目标端放弃其副本",
            ),
            Reason::ColdStart => say(
                "both copies are proven stopped; the VM is started anew",
                "两个副本均已证明停止;重新冷启动",
            ),
            Reason::WaitsForOtherMove => say(
                "waits until another move of this VM is over",
                "等待该虚拟机的另一次迁移结束",
            ),
            Reason::Moved => say("moved", "迁移完成"),
            Reason::RunsThere { host } => say(
                format!("the VM runs on {host} already"),
                format!("虚拟机已在 {host} 上运行"),
            ),
            Reason::SourceProvenStopped { host, kind } => say(
                format!(
                    "not moved: its copy on {host} is proven stopped ({kind:?}); it runs again once it was started anew"
                ),
                format!("未迁移:{host} 上的副本已证明停止({kind:?});重新启动后恢复运行"),
            ),
            Reason::RestartedElsewhere { host } => say(
                format!("not moved: the VM was started anew on {host} meanwhile"),
                format!("未迁移:虚拟机已在 {host} 另行重新启动"),
            ),
            Reason::EvacuatedRecently { left_milliseconds } => {
                let s = left(*left_milliseconds);
                say(
                    format!("was evacuated a short while ago; the next one may begin in {s} s"),
                    format!("刚刚疏散过;{s} 秒后可再次开始"),
                )
            }
            Reason::TooManyEvacuations { at_once } => say(
                format!("{at_once} hosts are being emptied already"),
                format!("已有 {at_once} 台宿主机正在疏散"),
            ),
            other => say(other.key(), other.key()),
        }
    }
}
