//! What the operator, `placement` and agents say in English, in Chinese.
//!
//! The API holds English sentences. Each is looked up among the sentences of those that say them, with places
//! for whatever differs; what stands in a place may be a sentence itself. One that is not known is shown as it
//! is: better than none.

mod reasons;
mod tables;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::LazyLock;

use crate::language::Language;

/// Between sentences that were put together.
const BETWEEN: &str = "; ";

/// All phrases, those that say the most by themselves first: a general one would hide a special one.
static BOOK: LazyLock<Vec<Phrase>> = LazyLock::new(|| {
    let tables = tables::all().into_iter();
    let all = tables.chain(placement::phrases()).chain(reasons::all());
    let mut book: Vec<Phrase> = all
        .map(|(english, chinese)| Phrase::new(&english, chinese))
        .collect();
    book.sort_by_key(|phrase| Reverse(phrase.own()));
    book
});

/// A sentence in this language.
pub fn sentence(language: Language, text: &str) -> Cow<'_, str> {
    match language {
        Language::English => Cow::Borrowed(text),
        Language::Chinese => Cow::Owned(chinese(text)),
    }
}

/// Several sentences in one line.
pub fn list(language: Language, texts: &[String]) -> String {
    let texts = texts.iter().map(|text| sentence(language, text));
    texts.collect::<Vec<_>>().join(language.pick(BETWEEN, ";"))
}

fn chinese(text: &str) -> String {
    if let Some(translated) = known(text) {
        return translated;
    }
    // The longest beginning that is known: sentences may have the separator within.
    let ends = text.match_indices(BETWEEN).map(|(at, _)| at);
    let ends: Vec<usize> = ends.collect();
    for at in ends.iter().rev() {
        if let Some(translated) = known(&text[..*at]) {
            return format!("{translated};{}", chinese(&text[at + BETWEEN.len()..]));
        }
    }
    let Some(at) = ends.first() else {
        return text.to_owned();
    };
    let (first, rest) = (&text[..*at], &text[at + BETWEEN.len()..]);
    match chinese(rest) {
        unknown if unknown == rest => text.to_owned(),
        translated => format!("{first};{translated}"),
    }
}

fn known(text: &str) -> Option<String> {
    let mut phrases = BOOK.iter();
    phrases.find_map(|phrase| {
        let values = phrase.values(text)?;
        let values: Vec<String> = values.into_iter().map(chinese).collect();
        Some(fill(&phrase.chinese, &values))
    })
}

/// What may stand in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `{}`: any text.
    Text,
    /// `{n}`: digits.
    Number,
    /// `{w}`: no blank.
    Word,
}

impl Place {
    fn takes(self, value: &str) -> bool {
        !value.is_empty()
            && match self {
                Place::Text => true,
                Place::Number => value.bytes().all(|byte| byte.is_ascii_digit()),
                Place::Word => !value.contains(char::is_whitespace),
            }
    }
}

/// A sentence with places for whatever differs.
struct Phrase {
    begins: String,
    /// Each place with what follows it.
    places: Vec<(Place, String)>,
    chinese: String,
}

impl Phrase {
    fn new(english: &str, chinese: String) -> Self {
        let (begins, pieces) = pieces(english);
        let kind = |name: &str| match name {
            "n" => Place::Number,
            "w" => Place::Word,
            _ => Place::Text,
        };
        let places = pieces.into_iter();
        Self {
            begins: begins.to_owned(),
            places: places
                .map(|(name, follows)| (kind(name), follows.to_owned()))
                .collect(),
            chinese,
        }
    }

    /// Bytes of it that stand beside its places.
    fn own(&self) -> usize {
        let follows = self.places.iter().map(|(_, follows)| follows.len());
        self.begins.len() + follows.sum::<usize>()
    }

    /// What stands in the places, if the text is this sentence.
    fn values<'a>(&self, text: &'a str) -> Option<Vec<&'a str>> {
        let mut values = Vec::with_capacity(self.places.len());
        let rest = text.strip_prefix(self.begins.as_str())?;
        stands(&self.places, rest, &mut values).then_some(values)
    }
}

/// Whether the text is made of these places, found from the left with as little as possible in each.
fn stands<'a>(places: &[(Place, String)], text: &'a str, values: &mut Vec<&'a str>) -> bool {
    let Some(((place, follows), later)) = places.split_first() else {
        return text.is_empty();
    };
    let mut ends: Vec<usize> = text
        .match_indices(follows.as_str())
        .map(|(at, _)| at)
        .collect();
    if later.is_empty() {
        // The last one takes all that is left.
        ends = text
            .strip_suffix(follows.as_str())
            .map(str::len)
            .into_iter()
            .collect();
    }
    for end in ends {
        if !place.takes(&text[..end]) {
            continue;
        }
        values.push(&text[..end]);
        if stands(later, &text[end + follows.len()..], values) {
            return true;
        }
        values.pop();
    }
    false
}

/// The text before the first place, and each place's name with the text that follows it.
fn pieces(text: &str) -> (&str, Vec<(&str, &str)>) {
    let mut parts = text.split('{');
    let begins = parts.next().unwrap_or_default();
    let places = parts.map(|part| part.split_once('}').unwrap_or(("", part)));
    (begins, places.collect())
}

fn fill(chinese: &str, values: &[String]) -> String {
    let (begins, places) = pieces(chinese);
    let mut text = begins.to_owned();
    for (index, (name, follows)) in places.into_iter().enumerate() {
        let index = name.parse().unwrap_or(index);
        text.push_str(values.get(index).map_or("", String::as_str));
        text.push_str(follows);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        sentence(Language::Chinese, text).into_owned()
    }

    #[test]
    fn what_is_known_is_told_in_chinese_with_its_values() {
        let lost = "the ledger in the run folder was lost: it has no entry for epoch 7 of VM oa/web-0, which runs here; move the VMs away and boot this host anew";
        let chinese = told(lost);
        assert!(
            chinese.contains("纪元 7") && chinese.contains("虚拟机 oa/web-0"),
            "{chinese}"
        );
        assert_eq!(sentence(Language::English, lost), lost);
        let fails = "the qemu hook /etc/hook fails on reconnect, so a restart of libvirtd would kill VMs: no; no; install zhengyun-qemu-hook there";
        let chinese = told(fails);
        assert!(chinese.contains("会终止虚拟机:no; no;请"), "{chinese}");
        let unknown = "the ledger in the run folder was lost: somehow";
        assert_eq!(told(unknown), unknown);
    }

    #[test]
    fn sentences_within_sentences_are_told_too() {
        for (english, chinese) in [
            (
                "no host fits (3 hosts: not enough memory; 1 host: silent for 3.4 s; its power is being read)",
                "没有满足条件的宿主机(3 台宿主机:内存不足;1 台宿主机:已静默 3.4 秒,正在读取电源状态)",
            ),
            (
                "2 of its 3 wishes about other VMs are met there, more on none of the hosts that fit",
                "在该宿主机上满足其 3 项亲和性偏好中的 2 项,满足条件的宿主机中没有一台能满足更多",
            ),
            (
                "no host can be emptied; a stays: oa/v0 can not leave: no host fits (1 host: not enough CPU); b stays: N+1 of the pool would not be proven without it",
                "没有可以清空的宿主机;a 保留:oa/v0 无法迁出:没有满足条件的宿主机(1 台宿主机:CPU 不足);b 保留:没有它,主机池的 N+1 无法得到证明",
            ),
            (
                "no replica answers: database, portal",
                "没有副本应答:database, portal",
            ),
            (
                "VM oa-web-0: its host h4 is silent: nobody knows whether it runs",
                "虚拟机 oa-web-0:宿主机 h4 静默:无法得知其是否在运行",
            ),
            (
                "1 host: somebody closed it; it is bound to this host",
                "1 台宿主机:somebody closed it;已绑定该宿主机",
            ),
            (
                "spec.affinity[0] of oa/web-0 (together with app=web) and spread of tier web of oa/site contradict each other for web-0 and web-1; remove one of them",
                "oa/web-0 的 spec.affinity[0](与 app=web 同宿主机)与业务系统 oa/site 的层 web 的分散规则相互矛盾(涉及 web-0 与 web-1);请去掉其中之一",
            ),
        ] {
            assert_eq!(told(english), chinese);
            assert_eq!(sentence(Language::English, english), english);
        }
    }

    #[test]
    fn guards_a_refused_policy_and_a_frozen_site_are_told_too() {
        for (english, chinese) in [
            (
                "kills after 20 s without Lease and without heartbeat on a, b; watchdog 15 s",
                "租约与 a, b 上的心跳中断 20 秒后终止虚拟机;看门狗 15 秒",
            ),
            (
                "the host did not opt in; set spec.selfFencing to true: a dead host whose BMC is silent waits for a person",
                "该宿主机未选择自我隔离;请将 spec.selfFencing 设为 true:该宿主机故障而 BMC 无应答时,须等待人工处理",
            ),
            (
                "spec.failover.contractSeconds: 5 is refused, because two missed renewals would kill every VM of a healthy host; safe: at least 6 (three times the longer of spec.failover.leaseIntervalSeconds and spec.failover.heartbeatIntervalSeconds); spec.recovery.restartBackOffMaximumSeconds: 1 is refused, because the longest wait would be shorter than the first; safe: at least 5 (spec.recovery.restartBackOffSeconds); until it is corrected the defaults are in force",
                "spec.failover.contractSeconds:不接受 5,因为错过两次续期就会终止正常宿主机上的全部虚拟机;安全范围:不小于 6(spec.failover.leaseIntervalSeconds 与 spec.failover.heartbeatIntervalSeconds 中较长者的三倍);spec.recovery.restartBackOffMaximumSeconds:不接受 1,因为最长等待时间会短于首次等待时间;安全范围:不小于 5(spec.recovery.restartBackOffSeconds);更正之前按默认值运行",
            ),
            (
                "host h2: the API server is at version 7 and was at 9 before; was etcd restored?; VM oa/db runs on h1 and on h2; destroy the copy with the older data by hand",
                "宿主机 h2:API 服务器的版本为 7,此前曾为 9;是否恢复过 etcd?;虚拟机 oa/db 同时在 h1 和 h2 上运行;请手动销毁数据较旧的副本",
            ),
        ] {
            assert_eq!(told(english), chinese);
        }
    }

    #[test]
    fn what_keeps_a_vm_and_why_it_moved_is_told_too() {
        for (english, chinese) in [
            (
                "it is being started (no host fits (1 host: it runs there))",
                "正在启动(没有满足条件的宿主机(1 台宿主机:虚拟机正在该处运行))",
            ),
            ("it is being started", "正在启动"),
            (
                "its move web-1, which was asked for before, is not over (waits for its turn: host h1 sends and receives 2 VMs already): wait for it, or cancel it (spec.cancel of web-1)",
                "此前发起的迁移 web-1 尚未结束(等待轮到它:宿主机 h1 已在迁出和接收 2 台虚拟机):请等待,或取消它(web-1 的 spec.cancel)",
            ),
            (
                "its move web-1, which was asked for before, is not over: wait for it, or cancel it (spec.cancel of web-1)",
                "此前发起的迁移 web-1 尚未结束:请等待,或取消它(web-1 的 spec.cancel)",
            ),
            (
                "moved from h1 to h2: the host's hardware fails",
                "已从 h1 迁往 h2:宿主机硬件故障",
            ),
            (
                "waits for h2: alive, but its storage paths fail",
                "等待 h2:正常,但存储路径失效",
            ),
        ] {
            assert_eq!(told(english), chinese);
        }
    }

    #[test]
    fn whatever_is_wrong_with_a_business_system_is_told() {
        for (english, chinese) in [
            (
                "spec.tiers[web].flavor: Flavor big does not exist; create it, or name another here: nothing of this tier is made yet; spec.tiers[web].name: VM a-web-0 of this tier exists already and belongs to business system b; names are SYSTEM-TIER-REPLICA, give the tier another name",
                "spec.tiers[web].flavor:Flavor big 不存在;请创建,或在此改用其他名称(该层尚未创建任何对象);spec.tiers[web].name:该层的 VM a-web-0 已存在,属于业务系统 b;名称按 系统-层-序号 构成,请为该层另取名称",
            ),
            (
                "spec.tiers[web].networks: no host pool serves Common (公用网络区) and Dedicated (专用网络区); let a pool serve it, or replace this tier by a new one with networks of one zone",
                "spec.tiers[web].networks:没有主机池服务于 Common (公用网络区)与 Dedicated (专用网络区);请让某个主机池服务于该区,或以只用同一区网络的新层替换该层",
            ),
            (
                "spec.tiers[web].replicas: 3 replicas must be on different racks and the pool has 2; lower replicas, add racks (spec.rack of the hosts), or set spread.required to false",
                "spec.tiers[web].replicas:3 个副本须分布在不同机架上,而主机池只有 2 个;请减少 replicas、增加机架(宿主机的 spec.rack),或将 spread.required 设为 false",
            ),
        ] {
            assert_eq!(told(english), chinese);
        }
    }

    #[test]
    fn a_special_sentence_goes_before_a_general_one() {
        assert_eq!(
            told("c stays: it is not an open host of pool main"),
            "c 保留:它不是主机池 main 中可用的宿主机"
        );
        assert_eq!(
            told("c stays: no move gains enough"),
            "c 保留:没有收益足够的迁移"
        );
    }

    #[test]
    fn a_place_takes_only_what_belongs_there() {
        assert_eq!(told("host h 1"), "host h 1", "a word has no blank");
        assert_eq!(
            told("many hosts: not enough memory"),
            "many hosts: not enough memory"
        );
        assert_eq!(told("host h1"), "宿主机 h1");
    }
}
