//! The sentences of evidence, one table for both languages. The record of a proof holds the English one;
//! whoever reads it in Chinese finds its sentence here again.

use std::fmt::Display;

/// A sentence with places (`{}`), which both languages fill in the same order.
pub(super) struct Template {
    english: &'static str,
    chinese: &'static str,
}

pub(super) const CRASHED_COPY: Template = Template {
    english: "agent of {} reports epoch {} closed: its QEMU crashed or was killed",
    chinese: "{} 的代理报告纪元 {} 已关闭:其 QEMU 崩溃或被终止",
};
pub(super) const CLOSED: Template = Template {
    english: "agent of {} reports epoch {} closed",
    chinese: "{} 的代理报告纪元 {} 已关闭",
};
pub(super) const HANDED_OVER: Template = Template {
    english: "agent of {} reports epoch {} handed over",
    chinese: "{} 的代理报告纪元 {} 已移交",
};
pub(super) const REBOOTED: Template = Template {
    english: "{} runs boot {}, boot {} is retired",
    chinese: "{} 运行启动实例 {},启动实例 {} 已作废",
};
pub(super) const POWERED_OFF: Template = Template {
    english: "BMC with system UUID {} read Off and again Off {} s later; no sign of life in between",
    chinese: "系统 UUID 为 {} 的 BMC 读为关闭,{} 秒后再次读为关闭;其间没有任何存活迹象",
};
pub(super) const SELF_FENCED: Template = Template {
    english: "armed guard; no Lease and no heartbeat on {} for {} s, watched by {}",
    chinese: "守护进程已武装;租约及 {} 上的心跳均已中断 {} 秒,由 {} 观察",
};
pub(super) const STORAGE_FENCED: Template = Template {
    english: "servers of {} read back as cut off from {}",
    chinese: "{} 的存储服务端已读回确认切断 {}",
};
pub(super) const CONFIRMED: Template = Template {
    english: "{} confirmed power-off: {}",
    chinese: "{} 确认已断电:{}",
};

/// All of them; those that say more come before those that take any text.
const ALL: [Template; 8] = [
    CRASHED_COPY,
    CLOSED,
    HANDED_OVER,
    REBOOTED,
    POWERED_OFF,
    SELF_FENCED,
    STORAGE_FENCED,
    CONFIRMED,
];

impl Template {
    /// The English sentence.
    pub(super) fn told(&self, values: &[&dyn Display]) -> String {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        fill(self.english, values.iter().map(String::as_str))
    }

    /// What stands in the places, if the text is this sentence: as little as possible in each but the last.
    fn values<'a>(&self, text: &'a str) -> Option<Vec<&'a str>> {
        let mut pieces = self.english.split("{}");
        let mut rest = text.strip_prefix(pieces.next()?)?;
        let mut values = Vec::new();
        let mut pieces = pieces.peekable();
        while let Some(piece) = pieces.next() {
            let at = match pieces.peek() {
                Some(_) => rest.find(piece)?,
                None => rest.strip_suffix(piece)?.len(),
            };
            values.push(&rest[..at]);
            rest = &rest[at + piece.len()..];
        }
        Some(values)
    }
}

fn fill<'a>(template: &str, mut values: impl Iterator<Item = &'a str>) -> String {
    let mut pieces = template.split("{}");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(values.next().unwrap_or_default());
        text.push_str(piece);
    }
    text
}

/// A sentence of evidence in Chinese; none where the text is no such sentence.
pub fn chinese(english: &str) -> Option<String> {
    ALL.iter().find_map(|template| {
        let values = template.values(english)?;
        Some(fill(template.chinese, values.into_iter()))
    })
}

/// English and Chinese of every sentence, with `{}` for what differs.
pub fn phrases() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter()
        .map(|template| (template.english, template.chinese))
}

#[cfg(test)]
mod tests {
    use super::super::CRASHED;
    use super::*;

    #[test]
    fn every_sentence_is_found_again_with_its_places() {
        for template in &ALL {
            let places = template.english.matches("{}").count();
            assert_eq!(template.chinese.matches("{}").count(), places);
            let values: Vec<String> = (0..places).map(|place| format!("p{place}, q")).collect();
            let shown: Vec<&dyn Display> = values.iter().map(|value| value as _).collect();
            let english = template.told(&shown);
            let wanted = fill(template.chinese, values.iter().map(String::as_str));
            assert_eq!(chinese(&english), Some(wanted), "{english}");
        }
        assert_eq!(chinese("read Off twice"), None);
        assert_eq!(chinese(""), None);
    }

    #[test]
    fn a_crash_is_told_by_the_end_that_others_look_for() {
        assert!(CRASHED_COPY.english.ends_with(CRASHED));
        assert_eq!(format!("{}{CRASHED}", CLOSED.english), CRASHED_COPY.english);
    }
}
