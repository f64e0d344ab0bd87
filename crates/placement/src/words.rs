//! What this crate says, in Chinese.
//!
//! Reasons and refusals are English sentences: they stand in the status of VMs and pools, in events and in the
//! journal of decisions. Whoever shows them in Chinese looks them up here, also those that an operator wrote long ago.

use crate::filter::Filter;

/// Sentences of this crate and their Chinese, with places for whatever differs: `{}` any text, which may be a
/// sentence itself, `{n}` digits, `{w}` a word. Places of the Chinese are filled in order, or name the place
/// of the English by its number: `{1}`.
pub fn phrases() -> Vec<(String, String)> {
    let filters = filters().into_iter();
    let filters = filters.map(|filter| (filter.english(), filter.chinese()));
    let others = SENTENCES.iter().chain(FORMER);
    let others = others.map(|(english, chinese)| ((*english).to_owned(), (*chinese).to_owned()));
    filters.chain(others).collect()
}

/// Every rule that speaks for itself.
fn filters() -> [Filter; 15] {
    [
        Filter::Pinned,
        Filter::NoPool,
        Filter::Zone,
        Filter::Architecture,
        Filter::CpuModel("{}".to_owned()),
        Filter::Grade,
        Filter::Storage,
        Filter::StorageRoom,
        Filter::Network,
        Filter::NoRack,
        Filter::Together,
        Filter::Apart,
        Filter::Cpu,
        Filter::Memory,
        Filter::Headroom,
    ]
}

/// What nobody says any more and still stands in statuses, events and journals of before.
const FORMER: &[(&str, &str)] = &[("not attached to the business network", "未接入业务网络")];

/// By who says them.
const SENTENCES: &[(&str, &str)] = &[
    // place.rs
    ("it is bound to this host", "已绑定该宿主机"),
    (
        "VMs that must share its host are there",
        "须与其同宿主机的虚拟机已在该宿主机上",
    ),
    ("the hosts that fit", "满足条件的宿主机"),
    (
        "the hosts that fit and on which no start of it failed",
        "满足条件且未曾启动失败的宿主机",
    ),
    (
        "the hosts that fit, without those on which N+1 would break",
        "满足条件且不破坏 N+1 的宿主机",
    ),
    (
        "starts of it failed on every host that fits",
        "在每台满足条件的宿主机上都曾启动失败",
    ),
    (
        "its wish about other VMs is met there",
        "在该宿主机上满足其对其他虚拟机的亲和性偏好",
    ),
    (
        "its {n} wishes about other VMs are met there",
        "在该宿主机上满足其对其他虚拟机的全部 {} 项亲和性偏好",
    ),
    (
        "no wish of it about other VMs is met on any of {}",
        "{}中没有一台能满足其对其他虚拟机的亲和性偏好",
    ),
    (
        "{n} of its {n} wishes about other VMs are met there, more on none of {}",
        "在该宿主机上满足其 {1} 项亲和性偏好中的 {0} 项,{2}中没有一台能满足更多",
    ),
    (
        "most free memory of {} ({n} MiB)",
        "{}中空闲内存最多({} MiB)",
    ),
    (
        "most free memory where as many wishes are met ({n} MiB)",
        "满足同样多偏好的宿主机中空闲内存最多({} MiB)",
    ),
    ("{n} host: {}", "{} 台宿主机:{}"),
    ("{n} hosts: {}", "{} 台宿主机:{}"),
    ("no host is registered", "没有已登记的宿主机"),
    ("no host fits ({})", "没有满足条件的宿主机({})"),
    // engine/place.rs
    (
        "fullest host that has room ({n} MiB)",
        "容得下它的宿主机中最满的一台(空闲 {} MiB)",
    ),
    // rules.rs
    (
        "{w} must share a host with {w} and {}",
        "{} 须与 {} 同宿主机,但{}",
    ),
    ("must be kept apart from it", "两者又须分开"),
    ("has another architecture", "两者 CPU 架构不同"),
    ("has its data on another host", "两者的数据在不同的宿主机上"),
    // evacuation/targets.rs
    (
        "it is moving from {w} to {w}: wait for that move to end, or cancel it",
        "正从 {} 迁往 {}:请等待该迁移结束,或取消它",
    ),
    (
        "it is being received by {w}: wait for that move to end, or cancel it",
        "正由 {} 接收:请等待该迁移结束,或取消它",
    ),
    (
        "its data lies only on {w}: move its volumes to a shared pool, or stop it",
        "数据只在 {} 上:请将其卷移到共享存储池,或将其关机",
    ),
    (
        "so that all find a place without moving others",
        "使全部虚拟机都有位置,且不必移动其他虚拟机",
    ),
    ("is being emptied", "正在清空"),
    (
        "{w}, which must share its host, can not leave it",
        "须与其同宿主机的 {} 无法迁出",
    ),
    (
        "{w}, which must share its host, finds no place with it on {w}",
        "须与其同宿主机的 {} 在 {} 上没有位置",
    ),
    ("shares its host with {w}", "须与 {} 同宿主机"),
    ("its link is faster than others'", "其链路比其他宿主机快"),
    ("makes room on {w} for {w}", "在 {} 上为 {} 腾出位置"),
    ("fits once {w} has left", "{} 迁出后可容纳"),
    // rebalance
    (
        "imbalance of the pool falls from {n} to {n} per mille",
        "主机池不均衡度由 {} ‰ 降至 {} ‰",
    ),
    ("in exchange for {w}: {}", "与 {} 互换:{}"),
    ("rebalancing is off", "负载均衡已关闭"),
    (
        "imbalance of {n} per mille is not worth a move",
        "不均衡度 {} ‰,不值得迁移",
    ),
    (
        "no better place can be looked for: {}",
        "无法寻找更好的位置:{}",
    ),
    (
        "the moves that gain enough would break N+1",
        "收益足够的迁移会破坏 N+1",
    ),
    ("no move gains enough", "没有收益足够的迁移"),
    ("1 move gains enough", "有 1 次迁移收益足够"),
    ("{n} moves gain enough", "有 {} 次迁移收益足够"),
    (
        "N+1 of the pool would not be proven without it",
        "没有它,主机池的 N+1 无法得到证明",
    ),
    ("{w} stays: {}", "{} 保留:{}"),
    (
        "it is not an open host of pool {w}",
        "它不是主机池 {} 中可用的宿主机",
    ),
    ("no host can be emptied", "没有可以清空的宿主机"),
    ("1 host can be emptied", "有 1 台宿主机可以清空"),
    ("{n} hosts can be emptied", "有 {} 台宿主机可以清空"),
    ("{w} can not leave: {}", "{} 无法迁出:{}"),
    ("{w} is moving already", "{} 已在迁移"),
    (
        "{n} moves would be needed and {n} are allowed",
        "需要 {} 次迁移,只允许 {} 次",
    ),
    (
        "{w} moved a short while ago or can not move now",
        "{} 不久前迁移过,或当前无法迁移",
    ),
    ("so more hosts can be emptied", "以便清空更多宿主机"),
    ("so that more hosts are empty", "以便更多宿主机空出"),
    (
        "makes room, so that more hosts are empty",
        "腾出位置,以便更多宿主机空出",
    ),
    // admit.rs
    (
        "no host of {} that fits would keep N+1",
        "{}中没有一台满足条件的宿主机能保持 N+1",
    ),
    (
        "none of {n} hosts tried in {} would keep N+1; others were not tried",
        "在{1}中试过的 {0} 台宿主机都不能保持 N+1;其余未试",
    ),
    ("pool {w}", "主机池 {}"),
    ("pools {}", "主机池 {}"),
    // what_if.rs
    ("it failed", "已故障"),
    // headroom
    ("host {w}", "宿主机 {}"),
    ("rack {w}", "机架 {}"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// What says something to people; the judges, the benchmark and the general search do not.
    const SPEAKERS: [&str; 9] = [
        "admit.rs",
        "place.rs",
        "plan.rs",
        "rules.rs",
        "what_if.rs",
        "engine",
        "evacuation",
        "rebalance",
        "headroom",
    ];

    /// Source text of a file, or of all files of a folder, without tests.
    fn source(path: &Path) -> String {
        if path.is_file() {
            let text = std::fs::read_to_string(path).expect("a source file");
            let code = text.split("#[cfg(test)]\nmod tests {").next();
            return code.unwrap_or_default().to_owned();
        }
        let files = std::fs::read_dir(path).expect("a folder of sources");
        let files = files.map(|file| file.expect("a file").path());
        let files = files.filter(|file| !file.ends_with("tests.rs"));
        files.map(|file| source(&file)).collect()
    }

    /// String literals outside comments and attributes, every place as `{}`.
    fn literals(source: &str) -> Vec<String> {
        let code: String = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//") && !line.starts_with("#["))
            .collect::<Vec<_>>()
            .join("\n");
        let pieces = code.split('"').skip(1).step_by(2);
        pieces.map(with_places).collect()
    }

    fn with_places(text: &str) -> String {
        let mut all = text.split('{');
        let mut plain = all.next().unwrap_or_default().to_owned();
        for part in all {
            let (_, rest) = part.split_once('}').unwrap_or(("", part));
            plain.push_str("{}");
            plain.push_str(rest);
        }
        plain
    }

    /// A sentence that was changed where it is said, or that is new, has no Chinese any more.
    #[test]
    fn all_that_is_said_has_its_chinese_and_nothing_else() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let said: BTreeSet<String> = SPEAKERS
            .iter()
            .flat_map(|speaker| literals(&source(&folder.join(speaker))))
            // Words and separators are no sentences; a list of lines is told by its lines.
            .filter(|text| text.trim().contains(' ') && text != "; ")
            .collect();
        let known: BTreeSet<String> = SENTENCES
            .iter()
            .map(|(english, _)| with_places(english))
            .collect();
        // Composed of a number, `host` or `hosts`, and why; of `pool` or `pools` and names.
        let composed = ["{} host: {}", "{} hosts: {}", "pool {}", "pools {}"].map(str::to_owned);
        let counted = BTreeSet::from(["{} {}: {}", "{} {}"].map(str::to_owned));
        let lacking: Vec<_> = said
            .difference(&known)
            .filter(|text| !counted.contains(*text))
            .collect();
        assert!(lacking.is_empty(), "without Chinese: {lacking:?}");
        let stale: Vec<_> = known
            .difference(&said)
            .filter(|text| !composed.contains(text))
            .collect();
        assert!(stale.is_empty(), "nobody says: {stale:?}");
    }

    #[test]
    fn each_rule_is_told_in_both_languages() {
        let all: BTreeSet<Filter> = filters().into();
        let source = include_str!("filter.rs");
        let declared = source.split("pub enum Filter {").nth(1).unwrap_or_default();
        let declared = declared.split("\n}").next().unwrap_or_default();
        let variants = declared.lines().filter(|line| line.ends_with(',')).count();
        assert_eq!(
            all.len() + 2,
            variants,
            "but Closed and Contradiction, which others word"
        );
        let mut told = BTreeSet::new();
        for filter in all {
            assert!(!filter.chinese().is_ascii(), "{filter:?}");
            assert!(
                told.insert(filter.chinese()),
                "{filter:?} is told like another"
            );
        }
    }

    #[test]
    fn places_of_both_languages_are_the_same() {
        for (english, chinese) in phrases() {
            let places = with_places(&english).matches("{}").count();
            assert_eq!(
                with_places(&chinese).matches("{}").count(),
                places,
                "{english}"
            );
            assert!(!chinese.is_empty() && chinese != english, "{english}");
        }
    }
}
