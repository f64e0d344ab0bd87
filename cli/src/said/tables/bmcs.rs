//! What is wrong with a host's BMC: operator/src/hosts/test_read.rs, crates/bmc.

use super::Table;

/// Why a BMC can not be read: crates/bmc/src/lib.rs.
pub(super) const BMCS: Table = &[
    ("{w} did not answer within {n} s", "{} 在 {} 秒内无应答"),
    (
        "{w} refuses the login; correct the Secret that spec.bmcs.credentials names",
        "{} 拒绝登录;请更正 spec.bmcs.credentials 所指的 Secret",
    ),
    ("{w} can not be reached", "无法连接 {}"),
    ("{w} answered {}", "{} 的应答不可用:{}"),
];

/// What the operator found of a BMC: operator/src/hosts/test_read.rs.
pub(super) const FOUND: Table = &[
    (
        "spec.bmcs: none is declared, so this host can not be fenced",
        "spec.bmcs:未声明 BMC,因此无法隔离该宿主机",
    ),
    (
        "the last reading of its BMC failed: this host can not be fenced; check spec.bmcs, its Secret and the cable",
        "最近一次读取其 BMC 失败:无法隔离该宿主机;请检查 spec.bmcs、其 Secret 与网线",
    ),
    (
        "its BMC read Off while this host lived: it is wrong or another host's, and proves nothing until every BMC of this host has read On; check spec.bmcs and the BMC",
        "该宿主机存活时其 BMC 读为关闭:BMC 有误或属于他机,该宿主机的全部 BMC 均读为开启之前不作为证据;请检查 spec.bmcs 与 BMC",
    ),
    ("spec.bmcs[{n}]: {}", "spec.bmcs[{}]:{}"),
    (
        "the test-read failed; see the operator's log",
        "试读失败;请查看控制器日志",
    ),
    (
        "it belongs to the machine with system UUID {w}, this host has {w}; correct its address",
        "它属于系统 UUID 为 {} 的机器,而该宿主机为 {};请更正其地址",
    ),
    (
        "it reads Off, and another BMC of this host reads On: one of them is wrong; check spec.bmcs and the BMC",
        "它读为关闭,而该宿主机的另一 BMC 读为开启:二者必有一误;请检查 spec.bmcs 与 BMC",
    ),
    (
        "it does not say which machine it belongs to, so it proves nothing",
        "它未说明属于哪台机器,因此不能作为证明",
    ),
];
