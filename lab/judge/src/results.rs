//! What the prober is told and what it writes down: the configuration and the lines of a results
//! file. One JSON object a line; a file may hold several runs, each begun by a `run` line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Shortest interval that may be asked for, milliseconds.
const INTERVAL_MINIMUM: u64 = 20;
/// Most targets of one prober.
const TARGETS_MAXIMUM: usize = 2_000;

/// What to probe and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Time between two probes of one target, milliseconds.
    #[serde(default = "default_interval")]
    pub interval_milliseconds: u64,
    /// Time within which the whole answer must come, milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_milliseconds: u64,
    /// What to probe.
    pub targets: Vec<Target>,
}

fn default_interval() -> u64 {
    200
}
fn default_timeout() -> u64 {
    1000
}

/// One address that must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Unique name, such as `website-group/portal@web-0`.
    pub id: String,
    /// Name of the business system.
    pub system: String,
    /// Address and port, such as `10.100.1.10:80` or `[fd00::10]:80`.
    pub address: std::net::SocketAddr,
    /// Path to ask for.
    #[serde(default = "default_path")]
    pub path: String,
    /// Host header; default: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_header: Option<String>,
    /// Endpoint that this target is one replica of. The endpoint is up when any replica answers.
    /// Default: the target is an endpoint by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<String>,
    /// Interval of this target, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_milliseconds: Option<u64>,
    /// Path of a connection to hold open beside the probes, such as `/hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_path: Option<String>,
}

fn default_path() -> String {
    "/".to_owned()
}

impl Target {
    /// Name of the endpoint that this target belongs to.
    pub fn endpoint(&self) -> &str {
        self.replica_of.as_deref().unwrap_or(&self.id)
    }

    /// Interval of this target, milliseconds.
    pub fn interval(&self, config: &Config) -> u64 {
        self.interval_milliseconds
            .unwrap_or(config.interval_milliseconds)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A number is out of bounds.
    #[error("{field}: {value} is out of bounds; write {bounds}")]
    Bounds {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        bounds: &'static str,
    },
    /// Two targets have one id.
    #[error("targets.id: {0:?} stands twice; each target needs its own")]
    Twice(String),
    /// A text that would break the request.
    #[error("targets: {field} of {id:?} must be plain and printable, and a path begin with '/'")]
    Text {
        /// Which target.
        id: String,
        /// Which field.
        field: &'static str,
    },
}

impl Config {
    /// Checks bounds, unique ids, and that nothing can smuggle a line into a request.
    pub fn check(&self) -> Result<(), ConfigError> {
        let intervals = self
            .targets
            .iter()
            .filter_map(|target| target.interval_milliseconds);
        for value in intervals.chain([self.interval_milliseconds]) {
            if !(INTERVAL_MINIMUM..=3_600_000).contains(&value) {
                return Err(ConfigError::Bounds {
                    field: "interval_milliseconds",
                    value,
                    bounds: "20 to 3600000",
                });
            }
        }
        if !(1..=600_000).contains(&self.timeout_milliseconds) {
            let value = self.timeout_milliseconds;
            return Err(ConfigError::Bounds {
                field: "timeout_milliseconds",
                value,
                bounds: "1 to 600000",
            });
        }
        if self.targets.is_empty() || self.targets.len() > TARGETS_MAXIMUM {
            let value = self.targets.len() as u64;
            return Err(ConfigError::Bounds {
                field: "targets",
                value,
                bounds: "1 to 2000 of them",
            });
        }
        let mut ids = BTreeSet::new();
        for target in &self.targets {
            if !ids.insert(&target.id) {
                return Err(ConfigError::Twice(target.id.clone()));
            }
            let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
            let paths = [Some(&target.path), target.hold_path.as_ref()];
            if paths
                .into_iter()
                .flatten()
                .any(|path| !plain(path) || !path.starts_with('/'))
            {
                return Err(ConfigError::Text {
                    id: target.id.clone(),
                    field: "path",
                });
            }
            if target
                .host_header
                .as_deref()
                .is_some_and(|host| !plain(host))
            {
                return Err(ConfigError::Text {
                    id: target.id.clone(),
                    field: "host_header",
                });
            }
        }
        Ok(())
    }
}

/// One line of a results file. Times are nanoseconds since 1970, from one reading of the wall clock
/// when the run began and a monotonic clock since: a jump of the wall clock moves no downtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// A run begins.
    Run {
        /// When.
        at: u64,
        /// What it probes.
        config: Config,
    },
    /// A probe has ended.
    Probe(Sample),
    /// A held connection has said something or broken.
    Hold(HoldEvent),
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it began.
    pub at: u64,
    /// Id of the target.
    pub target: String,
    /// Answered with a status from 200 to 399 within the time-out.
    pub ok: bool,
    /// How long it took, nanoseconds.
    pub took: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the guest said about itself, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestWord>,
}

impl Sample {
    /// When it ended.
    pub fn ended(&self) -> u64 {
        self.at.saturating_add(self.took)
    }
}

/// What a guest says about itself in an answer. Fields that a judge does not need are not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestWord {
    /// Its name.
    pub name: String,
    /// Boots of its system disk.
    pub boot_count: u64,
    /// Seconds since its kernel booted.
    pub uptime_seconds: f64,
    /// Its data disk, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskWord>,
}

/// What a guest says about its data disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWord {
    /// Last write that the disk has acknowledged; 0: none yet.
    pub counter: u64,
    /// Random number of this boot's writer.
    pub writer: String,
    /// Foreign records met.
    pub conflicts: u64,
}

/// Something on a held connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldEvent {
    /// When.
    pub at: u64,
    /// Id of the target.
    pub target: String,
    /// Number of the connection, from 1; a new one means that the former broke.
    pub connection: u64,
    /// Lines received on it so far.
    pub lines: u64,
    /// Why it broke, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A results file in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Targets of all runs, by id; of two runs' targets with one id the later.
    pub targets: std::collections::BTreeMap<String, (Target, u64)>,
    /// Probes, in the order of the file.
    pub samples: Vec<Sample>,
    /// Held connections, in the order of the file.
    pub holds: Vec<HoldEvent>,
}

/// Why a results file can not be read.
#[derive(Debug, Error)]
pub enum ResultsError {
    /// The file can not be read.
    #[error("{path}: reading failed")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no result.
    #[error("{path}: line {line} is no result of zy-prober")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Results {
    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        match line {
            Line::Run { config, .. } => {
                for target in &config.targets {
                    self.targets.insert(
                        target.id.clone(),
                        (target.clone(), target.interval(&config)),
                    );
                }
            }
            Line::Probe(sample) => self.samples.push(sample),
            Line::Hold(event) => self.holds.push(event),
        }
    }

    /// Reads a file. Its last line may be cut short, when the prober was killed in the middle of it.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let wrap = |source| ResultsError::Read {
            path: path.to_owned(),
            source,
        };
        let mut reader = BufReader::new(File::open(path).map_err(wrap)?);
        let mut results = Results::default();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            if reader.read_line(&mut text).map_err(wrap)? == 0 || !text.ends_with('\n') {
                break;
            }
            let parsed = serde_json::from_str(&text).map_err(|source| ResultsError::Line {
                path: path.to_owned(),
                line,
                source,
            })?;
            results.push(parsed);
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn defaults_are_five_probes_a_second_and_one_second() {
        let config =
            config(r#"{"targets": [{"id": "a", "system": "oa", "address": "10.0.0.1:80"}]}"#)
                .unwrap();
        assert_eq!(
            (config.interval_milliseconds, config.timeout_milliseconds),
            (200, 1000)
        );
        assert_eq!(
            (
                config.targets[0].endpoint(),
                config.targets[0].path.as_str()
            ),
            ("a", "/")
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            (r#"{"targets": []}"#, "targets"),
            (
                r#"{"targets": [{"id": "a", "system": "s", "address": "x"}]}"#,
                "address",
            ),
            (
                r#"{"interval_milliseconds": 1, "targets": [{"id": "a", "system": "s", "address": "10.0.0.1:80"}]}"#,
                "interval",
            ),
            (
                r#"{"targets": [{"id": "a", "system": "s", "address": "10.0.0.1:80", "adress": 1}]}"#,
                "adress",
            ),
            (
                r#"{"targets": [{"id": "a", "system": "s", "address": "10.0.0.1:80", "host_header": "a\r\nb"}]}"#,
                "host_header",
            ),
            (
                r#"{"targets": [{"id": "a", "system": "s", "address": "10.0.0.1:80", "path": "x"}]}"#,
                "path",
            ),
            (
                r#"{"targets": [{"id": "a", "system": "s", "address": "10.0.0.1:80"}, {"id": "a", "system": "s", "address": "10.0.0.1:80"}]}"#,
                "twice",
            ),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_file_cut_short_in_its_last_line_is_read_up_to_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sample = Sample {
            at: 5,
            target: "a".into(),
            ok: true,
            took: 1,
            error: None,
            guest: None,
        };
        let line = serde_json::to_string(&Line::Probe(sample.clone())).unwrap();
        std::fs::write(file.path(), format!("{line}\n{}", &line[..20])).unwrap();
        assert_eq!(Results::read(file.path()).unwrap().samples, [sample]);
        std::fs::write(file.path(), format!("{line}\n{}\n", &line[..20])).unwrap();
        assert!(
            Results::read(file.path())
                .unwrap_err()
                .to_string()
                .contains("line 2")
        );
    }
}
