//! Sentences of agents, of the operator and of `fleet`, by who says them: `{}` is any text, which may be a sentence
//! itself, `{n}` digits, `{w}` a word. Places of the Chinese are filled in order, or name one of the English: `{1}`.

mod bmcs;
mod operator;
mod policy;
mod rights;
mod vms;

use fleet::quota::Exceeded;

use self::bmcs::{BMCS, FOUND};
use self::operator::{MOVES, OPERATOR, SITE, SYSTEMS};
use self::policy::{FAILOVER, RANGES};
use self::rights::RIGHTS;
use self::vms::{PHASES, RULES};

type Table = &'static [(&'static str, &'static str)];

/// All tables.
pub fn all() -> Vec<(String, String)> {
    let owned = |(english, chinese): &(&str, &str)| ((*english).to_owned(), (*chinese).to_owned());
    let tables = [
        AGENTS, OPERATOR, MOVES, SYSTEMS, SITE, FOUND, BMCS, FAILOVER, RANGES, RIGHTS, RULES,
        PHASES, COMPOSED,
    ];
    let all = tables.into_iter().flatten().map(owned);
    let evidence = failover::proof::evidence::phrases();
    let evidence = evidence.map(|(english, chinese)| (english.to_owned(), chinese.to_owned()));
    let phases = PHASES.iter();
    let phases =
        phases.map(|(english, chinese)| (format!("{english} ({{}})"), format!("{chinese}({{}})")));
    all.chain(phases).chain([quota()]).chain(evidence).collect()
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
    // A move that was asked for before, with or without what its status says.
    (
        "its move {w}, which was asked for before, is not over: wait for it, or cancel it (spec.cancel of {w})",
        "此前发起的迁移 {} 尚未结束:请等待,或取消它({} 的 spec.cancel)",
    ),
    (
        "its move {w}, which was asked for before, is not over ({}): wait for it, or cancel it (spec.cancel of {w})",
        "此前发起的迁移 {} 尚未结束({}):请等待,或取消它({} 的 spec.cancel)",
    ),
    // What a business system's tier names, and what a person can do about it.
    ("{w} ({w}) and {w} ({w})", "{} ({})与 {} ({})"),
    (
        "spec.tiers[{w}].name: {w} {w} of this tier exists already and belongs to business system {w}; names are SYSTEM-TIER-REPLICA, give the tier another name",
        "spec.tiers[{}].name:该层的 {} {} 已存在,属于业务系统 {};名称按 系统-层-序号 构成,请为该层另取名称",
    ),
    (
        "spec.tiers[{w}].name: {w} {w} of this tier exists already and belongs to no business system; names are SYSTEM-TIER-REPLICA, give the tier another name",
        "spec.tiers[{}].name:该层的 {} {} 已存在,不属于任何业务系统;名称按 系统-层-序号 构成,请为该层另取名称",
    ),
    (
        "{w}: {n} replicas must be on different hosts and the pool has {n}; lower replicas, add hosts, or set spread.required to false",
        "{}:{} 个副本须分布在不同宿主机上,而主机池只有 {} 台;请减少 replicas、增加宿主机,或将 spread.required 设为 false",
    ),
    (
        "{w}: {n} replicas must be on different racks and the pool has {n}; lower replicas, add racks (spec.rack of the hosts), or set spread.required to false",
        "{}:{} 个副本须分布在不同机架上,而主机池只有 {} 个;请减少 replicas、增加机架(宿主机的 spec.rack),或将 spread.required 设为 false",
    ),
    (
        "name another here: nothing of this tier is made yet",
        "在此改用其他名称(该层尚未创建任何对象)",
    ),
    (
        "name networks of one zone here: nothing of this tier is made yet",
        "在此只用同一区的网络(该层尚未创建任何对象)",
    ),
    (
        "name another image here: nothing of this tier is made yet",
        "在此改用其他镜像(该层尚未创建任何对象)",
    ),
    (
        "replace this tier by a new one that names another",
        "以使用其他名称的新层替换该层",
    ),
    (
        "replace this tier by a new one with networks of one zone",
        "以只用同一区网络的新层替换该层",
    ),
    (
        "replace this tier by a new one with another image",
        "以使用其他镜像的新层替换该层",
    ),
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

    /// What the sentences of `COMPOSED` are put together of, by folder.
    const PIECES: [(&str, &[&str]); 2] = [
        (
            "crates/fleet/src",
            &[
                "spec.affinity[{}] of {}/{} ({} {})",
                "together with",
                "apart from",
                "its move {}, which was asked for before, is not over{}: wait for it, or cancel it (spec.cancel of {})",
                "{} ({})",
            ],
        ),
        (
            "operator/src",
            &[
                "{} ({})",
                " and ",
                "spec.tiers[{}].name: {} {} of this tier exists already and belongs to {}; names are SYSTEM-TIER-REPLICA, give the tier another name",
                "no business system",
                "business system {}",
                "{} replicas must be on different {} and the pool has {}; lower replicas, add {}{}, or set spread.required to false",
                "hosts",
                "racks",
                " (spec.rack of the hosts)",
                "{} here: nothing of this tier is made yet",
                "replace this tier by a new one {}",
                "name another",
                "that names another",
                "name networks of one zone",
                "with networks of one zone",
                "name another image",
                "with another image",
            ],
        ),
    ];

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
            (MOVES, "operator/src"),
            (SYSTEMS, "operator/src"),
            (SITE, "operator/src"),
            (FOUND, "operator/src"),
            (BMCS, "crates/bmc/src"),
            (FAILOVER, "crates/failover/src"),
            (RANGES, "crates/failover/src"),
            (RIGHTS, "crates/failover/src"),
            (RULES, "crates/fleet/src"),
            (PHASES, "crates/fleet/src"),
        ] {
            let source = source(&root.join(folder));
            for (english, chinese) in table {
                let english = with_places(english);
                assert!(source.contains(&format!("\"{english}\"")), "{english}");
                let places = |text: &str| with_places(text).matches("{}").count();
                assert_eq!(places(&english), places(chinese), "{english}");
            }
        }
        for (folder, pieces) in PIECES {
            let source = source(&root.join(folder));
            for piece in pieces {
                assert!(source.contains(&format!("\"{piece}\"")), "{piece}");
            }
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
