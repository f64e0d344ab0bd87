//! What a drill showed: plan, measured times, problems, conclusion; as Markdown or JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::definition::{Drill, Step, Text};
use crate::commands::incident;
use crate::language::{Language, local_time};

/// How a step went.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// In words: English.
    pub what: String,
    /// In Chinese.
    pub chinese: String,
    /// When it came about, seconds after the last fault; none: it never did.
    pub seconds: Option<f64>,
    /// The bar, seconds; none for what must stay so.
    pub bar: Option<f64>,
    /// It came about, or stayed so.
    pub held: bool,
    /// Why it did not.
    pub why: Option<Text>,
}

impl Outcome {
    /// Of a step that has not come about yet.
    pub fn of(say: &Text, bar: Option<f64>) -> Self {
        Self {
            what: say.en.clone(),
            chinese: say.zh.clone(),
            seconds: None,
            bar,
            held: false,
            why: None,
        }
    }

    /// What failed, and why; or what came late.
    pub fn told(&self, language: Language) -> String {
        let what = language.pick(&self.what, &self.chinese);
        match &self.why {
            Some(why) => format!(
                "{}{}{}",
                // What a step says is a sentence with its full stop.
                what.trim_end_matches(['.', '。']),
                language.pick(": ", ":"),
                language.pick(&why.en, &why.zh)
            ),
            None => what.to_owned(),
        }
    }

    fn late(&self) -> bool {
        matches!((self.seconds, self.bar), (Some(took), Some(bar)) if took > bar)
    }
}

/// Downtime of a system, from the Incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Downtime {
    /// Name of the Incident.
    pub incident: String,
    /// Official name of the system.
    pub system: String,
    /// Seconds down.
    pub down_seconds: f64,
    /// Seconds that nobody observed.
    pub unobserved_seconds: f64,
    /// The system declares no endpoint: nobody measured whether it was down.
    pub not_measured: bool,
}

/// The whole drill.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the drill.
    pub drill: String,
    /// The host.
    pub host: String,
    /// Who made the faults.
    pub by: String,
    /// When it began.
    pub began_at: jiff::Timestamp,
    /// How each step went.
    pub outcomes: Vec<Outcome>,
    /// What the fault ledger tells of it.
    pub downtimes: Vec<Downtime>,
    /// Something did not come about, or changed that must not.
    pub failed: bool,
    /// Something came about later than the bar.
    pub late: bool,
    /// What else went wrong.
    pub problems: Vec<String>,
}

impl Report {
    /// Draws the conclusion.
    pub fn conclude(&mut self) {
        self.failed =
            !self.problems.is_empty() || self.outcomes.iter().any(|outcome| !outcome.held);
        self.late = self.outcomes.iter().any(Outcome::late);
    }

    /// As Markdown.
    pub fn markdown(&self, drill: &Drill, language: Language) -> String {
        let say = |english: &'static str, chinese: &'static str| language.pick(english, chinese);
        let words = |text: &Text| language.pick(&text.en, &text.zh).to_owned();
        let mut page = format!("# {}\n\n", words(&drill.title));
        // Writing to a String can not fail.
        let _ = writeln!(
            page,
            "- {}: {}\n- {}: {}\n- {}: {}\n- {}: {}\n",
            say("Drill", "演练"),
            self.drill,
            say("Host", "宿主机"),
            self.host,
            say("Faults made by", "故障由谁制造"),
            self.by,
            say("Began", "开始时间"),
            local_time(self.began_at)
        );
        let _ = writeln!(page, "## {}\n", say("Plan", "方案"));
        for (number, step) in drill.steps.iter().enumerate() {
            let _ = writeln!(page, "{}. {}", number + 1, plan(step, language));
        }
        let _ = writeln!(page, "\n## {}\n", say("Measured", "实测"));
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |\n|---|---|---|---|",
            say("step", "步骤"),
            say("seconds", "用时(秒)"),
            say("bar", "指标(秒)"),
            say("result", "结果")
        );
        for outcome in &self.outcomes {
            let number = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.1}"));
            let result = match (outcome.held, outcome.late()) {
                (false, _) => say("failed", "未达到"),
                (true, true) => say("late", "超时达到"),
                (true, false) => say("met", "达到"),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {result} |",
                language.pick(&outcome.what, &outcome.chinese),
                number(outcome.seconds),
                number(outcome.bar)
            );
        }
        self.downtimes_and_end(&mut page, language);
        page
    }

    fn downtimes_and_end(&self, page: &mut String, language: Language) {
        let say = |english: &'static str, chinese: &'static str| language.pick(english, chinese);
        if !self.downtimes.is_empty() {
            let _ = writeln!(
                page,
                "\n## {}\n",
                say("Downtime by the fault ledger", "事件台账记录的中断")
            );
            for downtime in &self.downtimes {
                let _ = writeln!(
                    page,
                    "- {}: {} ({} {:.1} s), {}",
                    downtime.system,
                    incident::downtime(language, downtime.not_measured, downtime.down_seconds),
                    say("unobserved", "未观测"),
                    downtime.unobserved_seconds,
                    downtime.incident
                );
            }
        }
        let _ = writeln!(page, "\n## {}\n", say("Problems", "问题"));
        let failed = self.outcomes.iter().filter(|outcome| !outcome.held);
        let late = self.outcomes.iter().filter(|outcome| outcome.late());
        let mut problems: Vec<String> = failed
            .chain(late)
            .map(|outcome| outcome.told(language))
            .collect();
        problems.extend(self.problems.iter().cloned());
        if problems.is_empty() {
            problems.push(say("none", "无").to_owned());
        }
        problems.iter().for_each(|problem| {
            let _ = writeln!(page, "- {problem}");
        });
        let conclusion = match (self.failed, self.late) {
            (true, _) => say("Not passed.", "未通过。"),
            (false, true) => say("Passed, later than the bar.", "通过,但超出时间指标。"),
            (false, false) => say("Passed.", "通过。"),
        };
        let _ = writeln!(page, "\n## {}\n\n{conclusion}", say("Conclusion", "结论"));
    }
}

fn plan(step: &Step, language: Language) -> String {
    let words = |text: &Text| language.pick(&text.en, &text.zh).to_owned();
    match step {
        Step::Fault { say, .. } | Step::Heal { say, .. } => words(say),
        Step::Pass { say, seconds } => format!("{} ({seconds} s)", words(say)),
        Step::Clear { say, within } | Step::Until { say, within, .. } => match language {
            Language::English => format!("{} (within {within} s)", words(say)),
            Language::Chinese => format!("{}({within} 秒内)", words(say)),
        },
        Step::Hold { say, seconds, .. } => match language {
            Language::English => format!("{} (for {seconds} s)", words(say)),
            Language::Chinese => format!("{}(持续 {seconds} 秒)", words(say)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::drill::definition::load;

    fn report(seconds: Option<f64>, held: bool) -> Report {
        let mut report = Report {
            drill: "host-power-loss".to_owned(),
            host: "h2".to_owned(),
            by: "lab demo".to_owned(),
            began_at: jiff::Timestamp::UNIX_EPOCH,
            outcomes: vec![Outcome {
                what: "noticed".to_owned(),
                chinese: "发现".to_owned(),
                seconds,
                bar: Some(8.0),
                held,
                why: None,
            }],
            downtimes: Vec::new(),
            failed: false,
            late: false,
            problems: Vec::new(),
        };
        report.conclude();
        report
    }

    #[test]
    fn a_system_that_nobody_measured_is_not_told_as_up() {
        let drill = load("host-power-loss").expect("drill");
        let mut report = report(Some(3.0), true);
        report.downtimes = [("OA", 4.2, false), ("Mail", 0.0, true)]
            .map(|(system, down_seconds, not_measured)| Downtime {
                incident: "i".to_owned(),
                system: system.to_owned(),
                down_seconds,
                unobserved_seconds: 9.0,
                not_measured,
            })
            .into();
        let english = report.markdown(&drill, Language::English);
        assert!(
            english.contains("- OA: 4.2 s (unobserved 9.0 s), i"),
            "{english}"
        );
        let told = "- Mail: not measured (no endpoint declared) (unobserved 9.0 s), i";
        assert!(english.contains(told), "{english}");
        let chinese = report.markdown(&drill, Language::Chinese);
        assert!(chinese.contains("- Mail: 未测量"), "{chinese}");
    }

    #[test]
    fn why_a_step_failed_is_told_in_the_language_of_the_report() {
        let drill = load("host-power-loss").expect("drill");
        let mut report = report(None, false);
        report.outcomes[0].why = Some(Text {
            en: "nobody saw it".to_owned(),
            zh: "无人看到".to_owned(),
        });
        for (language, told) in [
            (Language::English, "- noticed: nobody saw it\n"),
            (Language::Chinese, "- 发现:无人看到\n"),
        ] {
            let page = report.markdown(&drill, language);
            assert!(page.contains(told), "{page}");
        }
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["outcomes"][0]["why"]["zh"], "无人看到");
        assert_eq!(json["beganAt"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn the_conclusion_follows_from_what_was_measured() {
        let drill = load("host-power-loss").expect("drill");
        for (seconds, held, english, chinese) in [
            (Some(3.0), true, "Passed.", "通过。"),
            (Some(9.0), true, "later than the bar", "超出时间指标"),
            (None, false, "Not passed.", "未通过。"),
        ] {
            let report = report(seconds, held);
            assert_eq!(report.failed, !held);
            assert!(report.markdown(&drill, Language::English).contains(english));
            assert!(report.markdown(&drill, Language::Chinese).contains(chinese));
        }
    }
}
