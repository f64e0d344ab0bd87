//! What whoever watches the site reads of host pools; alerting rules in `charts/zhengyun/alerts`.

use std::sync::LazyLock;

use api::Headroom;
use prometheus::{IntGaugeVec, register_int_gauge_vec};

/// Failures that are neither proven nor refuted, by pool.
static UNKNOWN: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "zhengyun_host_pool_unknown_failures",
        "Failures of hosts and racks of a pool of which nothing could be proven in time",
        &["pool"]
    )
    .ok()
});

/// 1 while N+1 of a pool is proven, or was not promised; 0 while it is broken or unknown.
static REDUNDANT: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "zhengyun_host_pool_redundant",
        "1 while N+1 of the pool is proven or was not promised, 0 while it is broken or unknown",
        &["pool"]
    )
    .ok()
});

fn gauges() -> impl Iterator<Item = &'static IntGaugeVec> {
    [UNKNOWN.as_ref(), REDUNDANT.as_ref()].into_iter().flatten()
}

/// Whether the promise of N+1 stands, or none was given.
pub fn is_redundant(headroom: &Headroom) -> bool {
    headroom.state == "Proven" || headroom.state == "NotPromised"
}

/// Measures a pool.
pub fn set(pool: &str, headroom: &Headroom) {
    if let Some(gauge) = UNKNOWN.as_ref() {
        let unknown = headroom.unknown_failures.into();
        gauge.with_label_values(&[pool]).set(unknown);
    }
    if let Some(gauge) = REDUNDANT.as_ref() {
        let redundant = is_redundant(headroom).into();
        gauge.with_label_values(&[pool]).set(redundant);
    }
}

/// A pool is gone: it raises no alarm any more.
pub fn remove(pool: &str) {
    for gauge in gauges() {
        // One that was never measured has nothing to be removed.
        let _ = gauge.remove_label_values(&[pool]);
    }
}

/// Another operator leads and measures: what this one knew grows old.
pub fn forget() {
    gauges().for_each(IntGaugeVec::reset);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct File {
        groups: Vec<Group>,
    }

    #[derive(Deserialize)]
    struct Group {
        rules: Vec<Rule>,
    }

    #[derive(Deserialize)]
    struct Rule {
        alert: String,
        expr: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }

    fn rules() -> Vec<Rule> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = std::fs::read_dir(root.join("charts/zhengyun/alerts")).expect("alerts");
        let rules = files.flat_map(|file| {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            let file: File = serde_yaml::from_str(&text).expect("rules");
            file.groups.into_iter().flat_map(|group| group.rules)
        });
        rules.collect()
    }

    fn expression(alert: &str) -> String {
        let mut rules = rules().into_iter();
        let rule = rules.find(|rule| rule.alert == alert);
        rule.expect(alert).expr
    }

    /// When many hosts fall silent, what is told of each single one is held back.
    #[test]
    fn a_storm_is_one_alert() {
        assert_eq!(expression("StormGuard"), "zhengyun_storm == 1");
        for alert in ["HostUnreachable", "BmcNotReady", "AgentDown"] {
            let expression = expression(alert);
            let held = expression.ends_with(" unless on() zhengyun_storm == 1");
            assert!(held, "{alert}: {expression}");
        }
    }

    /// A condition that nobody judges would never be told.
    #[test]
    fn alerts_read_conditions_that_are_judged() {
        let judges = [
            include_str!("../../hosts/show.rs"),
            include_str!("../../hosts/test_read.rs"),
            include_str!("../policies.rs"),
        ]
        .concat();
        let told = rules().into_iter().filter_map(|rule| {
            let (_, after) = rule.expr.split_once("type=")?;
            let kind = after.split('"').nth(1)?.to_owned();
            assert!(judges.contains(&format!("\"{kind}\"")), "{kind}");
            Some(kind)
        });
        let told: BTreeSet<String> = told.collect();
        for kind in ["BmcReady", "HardwareHealthy", "StartsPermitted", "Valid"] {
            assert!(told.contains(kind), "{kind}");
        }
    }

    /// What agents' metrics are made from: their names stand in it as they are scraped.
    fn sources_of_agents() -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/metrics");
        let files = std::fs::read_dir(folder).expect("the agent's metrics");
        files
            .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text"))
            .collect()
    }

    /// Metrics as they are scraped, by name: label and value of each series.
    fn scraped() -> BTreeMap<String, BTreeMap<String, f64>> {
        let families = prometheus::gather();
        let series = |family: &prometheus::proto::MetricFamily| {
            let metrics = family.get_metric().iter();
            let series = metrics.filter_map(|metric| {
                let label = metric.get_label().first()?;
                Some((
                    format!("{}={}", label.name(), label.value()),
                    metric.get_gauge().get_value(),
                ))
            });
            series.collect()
        };
        let families = families.iter();
        families
            .map(|family| (family.name().to_owned(), series(family)))
            .collect()
    }

    /// One test, since gauges are one for the whole process.
    #[test]
    fn alerts_read_what_is_measured_and_each_has_a_runbook() {
        let unknown = Headroom {
            state: "Unknown".to_owned(),
            unknown_failures: 2,
            ..Headroom::default()
        };
        set("main", &unknown);
        set("gone", &unknown);
        remove("gone");
        crate::writer::count("ok");
        let metrics = scraped();
        let value = |name: &str, pool: &str| metrics[name].get(&format!("pool={pool}")).copied();
        assert_eq!(
            value("zhengyun_host_pool_unknown_failures", "main"),
            Some(2.0)
        );
        assert_eq!(value("zhengyun_host_pool_redundant", "main"), Some(0.0));
        assert_eq!(value("zhengyun_host_pool_redundant", "gone"), None);
        let (of_agents, of_site) = (sources_of_agents(), crate::metrics::tests::names());
        let mut alarmed = BTreeSet::new();
        for rule in rules() {
            let words = rule
                .expr
                .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            for name in words.filter(|word| word.starts_with("zhengyun_")) {
                let told = metrics.contains_key(name)
                    || of_site.contains(name)
                    || of_agents.contains(&format!("\"{name}\""));
                assert!(told, "{}: {name}", rule.alert);
                alarmed.insert(name.to_owned());
            }
            assert!(rule.labels.contains_key("severity"), "{}", rule.alert);
            for text in ["summary", "summary_zh", "remedy", "remedy_zh"] {
                let told = rule
                    .annotations
                    .get(text)
                    .is_some_and(|text| !text.is_empty());
                assert!(told, "{}: {text}", rule.alert);
            }
            let runbook = format!("docs/runbooks/{}.md", rule.alert);
            assert_eq!(rule.annotations["runbook"], runbook);
            let file = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(&runbook);
            assert!(file.is_file(), "{runbook}");
        }
        for name in [
            "zhengyun_host_pool_unknown_failures",
            "zhengyun_agent_turns_total",
            "zhengyun_business_system_state",
            "zhengyun_storm",
        ] {
            assert!(alarmed.contains(name), "{name}");
        }
        forget();
        let metrics = scraped();
        assert!(
            metrics
                .get("zhengyun_host_pool_redundant")
                .is_none_or(BTreeMap::is_empty)
        );
    }
}
