//! Words in English and Chinese. One word per thing, as in the glossary.

use crate::options::LanguageChoice;

/// Language of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// 简体中文.
    Chinese,
}

impl Language {
    /// The language asked for, else that of the locale.
    pub fn choose(
        choice: Option<LanguageChoice>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        match choice {
            Some(LanguageChoice::En) => Language::English,
            Some(LanguageChoice::ZhCn) => Language::Chinese,
            None => {
                let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
                    .into_iter()
                    .filter_map(variable)
                    .find(|value| !value.is_empty());
                match locale {
                    Some(locale) if locale.starts_with("zh") => Language::Chinese,
                    _ => Language::English,
                }
            }
        }
    }

    /// Picks one of two texts.
    pub fn pick<'a>(self, english: &'a str, chinese: &'a str) -> &'a str {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    /// A state word of the API (`Ready`, `Suspect`, `Running` …) in this language. A word that
    /// is not known is shown as it is.
    pub fn state(self, word: &str) -> String {
        if self == Language::English {
            return word.to_owned();
        }
        STATES
            .iter()
            .find(|(english, _)| *english == word)
            .map_or_else(|| word.to_owned(), |(_, chinese)| (*chinese).to_owned())
    }
}

/// A moment in the time zone of whoever reads it.
pub fn local_time(at: jiff::Timestamp) -> String {
    local(at, "%Y-%m-%d %H:%M:%S")
}

/// The same on a day that is known, with milliseconds.
pub fn local_time_milliseconds(at: jiff::Timestamp) -> String {
    local(at, "%H:%M:%S%.3f")
}

fn local(at: jiff::Timestamp, form: &str) -> String {
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime(form).to_string()
}

/// State words of hosts and their power, VMs, systems, migrations and incidents.
const STATES: [(&str, &str); 50] = [
    ("NotRegistered", "未注册"),
    ("Ready", "正常"),
    ("Suspect", "疑似故障"),
    ("Unreachable", "失联"),
    ("Fencing", "隔离中"),
    ("Fenced", "已隔离"),
    ("Recovering", "恢复中"),
    ("Maintenance", "维护模式"),
    ("Quarantined", "停用待查"),
    ("On", "开启"),
    ("Off", "关闭"),
    ("NoAnswer", "无应答"),
    ("OtherMachine", "属于他机"),
    ("Progressing", "部署中"),
    ("Degraded", "降级"),
    ("Down", "中断"),
    ("Invalid", "声明有误"),
    ("Pending", "等待"),
    ("Starting", "启动中"),
    ("Running", "运行中"),
    ("Migrating", "热迁移中"),
    ("Stopping", "关机中"),
    ("Stopped", "已关机"),
    ("Unknown", "未知"),
    ("Pinned", "绑定宿主机"),
    ("Failed", "失败"),
    ("Stalled", "磁盘故障暂停"),
    ("Preparing", "准备中"),
    ("Completing", "切换中"),
    ("Succeeded", "成功"),
    ("Cancelling", "取消中"),
    ("Cancelled", "已取消"),
    ("User", "人工"),
    ("HardwareFault", "硬件故障"),
    ("Rebalance", "负载均衡"),
    ("Proven", "已证明"),
    ("Broken", "不满足"),
    ("NotPromised", "未承诺"),
    ("Open", "处理中"),
    ("Recovered", "业务已恢复"),
    ("Closed", "已关闭"),
    ("Hardware", "硬件"),
    ("Software", "软件"),
    ("Network", "网络"),
    ("Planned", "计划内"),
    ("Critical", "紧急"),
    ("Info", "提示"),
    ("High", "高"),
    ("Normal", "一般"),
    ("Low", "低"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_locale_and_the_option_wins() {
        let locale = |wanted: &'static str, value: &'static str| {
            move |name: &str| (name == wanted).then(|| value.to_owned())
        };
        assert_eq!(
            Language::choose(None, locale("LANG", "zh_CN.UTF-8")),
            Language::Chinese
        );
        assert_eq!(
            Language::choose(None, locale("LC_ALL", "en_US.UTF-8")),
            Language::English
        );
        assert_eq!(Language::choose(None, |_| None), Language::English);
        assert_eq!(
            Language::choose(Some(LanguageChoice::En), locale("LANG", "zh_CN.UTF-8")),
            Language::English
        );
    }

    #[test]
    fn every_state_of_a_host_and_a_vm_has_a_chinese_word() {
        for word in [
            "NotRegistered",
            "Ready",
            "Suspect",
            "Unreachable",
            "Fencing",
            "Fenced",
            "Recovering",
            "Maintenance",
            "Quarantined",
            "On",
            "Off",
            "NoAnswer",
            "OtherMachine",
            "Pending",
            "Starting",
            "Running",
            "Migrating",
            "Stopping",
            "Stopped",
            "Unknown",
            "Pinned",
            "Failed",
            "Stalled",
        ] {
            assert_ne!(Language::Chinese.state(word), word);
        }
    }
}
