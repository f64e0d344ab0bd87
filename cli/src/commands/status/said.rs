//! What agents say in English, in Chinese: why a host starts nothing (agent/src/hook_check.rs and alarm.rs).

use std::borrow::Cow;

use crate::language::Language;

/// Each sentence with a place (`{}`) for whatever differs, and its Chinese with those places in the same order.
const SENTENCES: [(&str, &str); 7] = [
    ("the qemu hook was not checked yet", "尚未检查 qemu 钩子"),
    (
        "the qemu hook {} lets a start pass that no ledger allows; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 放行了账本未允许的启动;请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the qemu hook {} is not zhengyun-qemu-hook; install it there",
        "qemu 钩子 {} 不是 zhengyun-qemu-hook;请在该处安装它",
    ),
    (
        "the qemu hook {} fails on reconnect, so a restart of libvirtd would kill VMs: {}; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 在重连时失败,重启 libvirtd 会终止虚拟机:{};请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the qemu hook {} did not answer {} within {} s",
        "qemu 钩子 {} 未应答 {}(时限 {} 秒)",
    ),
    (
        "the qemu hook {} can not be run: {}; install zhengyun-qemu-hook there",
        "qemu 钩子 {} 无法运行:{};请在该处安装 zhengyun-qemu-hook",
    ),
    (
        "the ledger in the run folder was lost: it has no entry for epoch {} of VM {}/{}, which runs here; move the VMs away and boot this host anew",
        "运行目录中的账本已丢失:其中没有纪元 {} 的记录,而虚拟机 {}/{} 正以该纪元在此运行;请迁走虚拟机并重启该宿主机",
    ),
];

/// A sentence of an agent in this language; one that is not known is shown as it is.
pub fn sentence(language: Language, text: &str) -> Cow<'_, str> {
    let translated = SENTENCES
        .iter()
        .filter(|_| language == Language::Chinese)
        .find_map(|(english, chinese)| Some(fill(chinese, &found(english, text)?)));
    translated.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// What stands in the places of a sentence, if the text is that sentence.
fn found<'a>(sentence: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = sentence.split("{}").peekable();
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut found = Vec::new();
    while let Some(part) = parts.next() {
        let (value, after) = match parts.peek() {
            Some(_) => rest.split_once(part)?,
            None => (rest.strip_suffix(part)?, ""),
        };
        found.push(value);
        rest = after;
    }
    rest.is_empty().then_some(found)
}

fn fill(sentence: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let mut text = String::new();
    for (index, part) in sentence.split("{}").enumerate() {
        if index > 0 {
            text.push_str(values.next().copied().unwrap_or_default());
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source text with every `{name}` as `{}`.
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

    #[test]
    fn every_sentence_is_an_agents() {
        let sources = [
            include_str!("../../../../agent/src/hook_check.rs"),
            include_str!("../../../../agent/src/alarm.rs"),
        ];
        let sources = with_places(&sources.concat());
        for (english, chinese) in SENTENCES {
            assert!(sources.contains(&format!("\"{english}\"")), "{english}");
            let places = |text: &str| text.matches("{}").count();
            assert_eq!(places(english), places(chinese), "{english}");
        }
    }

    #[test]
    fn what_is_known_is_told_in_chinese_with_its_values() {
        let lost = "the ledger in the run folder was lost: it has no entry for epoch 7 of VM oa/web-0, which runs here; move the VMs away and boot this host anew";
        let told = sentence(Language::Chinese, lost);
        assert!(
            told.contains("纪元 7") && told.contains("虚拟机 oa/web-0"),
            "{told}"
        );
        assert_eq!(sentence(Language::English, lost), lost);
        let fails = "the qemu hook /etc/hook fails on reconnect, so a restart of libvirtd would kill VMs: no; no; install zhengyun-qemu-hook there";
        let told = sentence(Language::Chinese, fails);
        assert!(told.contains("会终止虚拟机:no; no;请"), "{told}");
        let unknown = "the ledger in the run folder was lost: somehow";
        assert_eq!(sentence(Language::Chinese, unknown), unknown);
    }
}
