//! A page of metrics as Prometheus reads them (text format 0.0.4): each family once, with its samples.

use std::fmt::Write;

/// The page.
#[derive(Default)]
pub struct Page(String);

impl Page {
    /// Begins with what is encoded already.
    pub fn beginning(text: String) -> Self {
        Self(text)
    }

    /// Begins a family; its samples follow. Its kind follows from the name: counters end in `_total`.
    pub fn family(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        // Writing into memory does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
            .collect();
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{}}} {value}", labels.join(","))
        };
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_by_name_and_labels_can_not_break_out() {
        let mut page = Page::default();
        page.family("a_total", "of a");
        page.sample("a_total", &[("name", "x\"}\n\\")], 2.0);
        page.family("b", "of b");
        page.sample("b", &[], 0.5);
        assert_eq!(
            page.into_text(),
            "# HELP a_total of a\n# TYPE a_total counter\na_total{name=\"x\\\"}\\n\\\\\"} 2\n# HELP b of b\n# TYPE b gauge\nb 0.5\n"
        );
    }
}
