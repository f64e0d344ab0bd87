//! What a drill is, as data: which fault, what must follow and by when, what must not change.

use serde::{Deserialize, Serialize};

/// Drills that every site has. Others are read from files.
const BUILT_IN: [&str; 6] = [
    include_str!("../../../drills/host-power-loss.yaml"),
    include_str!("../../../drills/host-hang.yaml"),
    include_str!("../../../drills/management-cut.yaml"),
    include_str!("../../../drills/agent-restart.yaml"),
    include_str!("../../../drills/operator-restart.yaml"),
    include_str!("../../../drills/bmc-dead.yaml"),
];

/// One drill.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drill {
    /// Its name.
    pub name: String,
    /// What is tried.
    pub title: Text,
    /// When tests play it; they read it themselves.
    #[serde(default, rename = "tag")]
    _tag: Tag,
    /// VMs of the host stop, or may stop: the host's name must be typed on a lab too.
    #[serde(default)]
    pub stops_vms: bool,
    /// What is done and what must follow.
    pub steps: Vec<Step>,
}

/// When tests play a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tag {
    /// With every change.
    Fast,
    /// Before a release.
    #[default]
    Long,
}

/// A sentence in both languages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// English.
    pub en: String,
    /// 简体中文.
    pub zh: String,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The host of the drill.
    #[default]
    Host,
    /// The whole site.
    Site,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// Makes a fault.
    Fault {
        /// Its name, as `zylab fault` takes it.
        fault: String,
        /// Where.
        #[serde(default)]
        at: Place,
        /// What a person does to make it.
        say: Text,
    },
    /// Ends it.
    Heal {
        /// Its name.
        fault: String,
        /// Where.
        #[serde(default)]
        at: Place,
        /// What a person does to end it.
        say: Text,
    },
    /// Clears the host's faults, as `zyctl host clear` does, until it is Ready.
    Clear {
        /// Within so many seconds.
        within: f64,
        /// In words.
        say: Text,
    },
    /// Time passes.
    Pass {
        /// So many seconds.
        seconds: f64,
        /// In words.
        say: Text,
    },
    /// Something must come about; how long it takes since the last fault is measured.
    Until {
        /// What.
        what: Condition,
        /// Within so many seconds of the last fault or healing.
        within: f64,
        /// In words.
        say: Text,
    },
    /// Things must stay so for a while.
    Hold {
        /// For so many seconds.
        seconds: f64,
        /// What.
        what: Vec<Condition>,
        /// In words.
        say: Text,
    },
}

/// Something that is so or not. "The VMs" are those that stood on the host when the drill began.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase", deny_unknown_fields)]
pub enum Condition {
    /// The host is shown in one of these states.
    HostState {
        /// Which.
        states: Vec<String>,
    },
    /// The host is shown in none of these states.
    HostStateNot {
        /// Which.
        states: Vec<String>,
    },
    /// The reason of the host's state says this.
    ReasonSays {
        /// Part of the sentence.
        text: String,
    },
    /// A condition of the host stands so.
    HostSays {
        /// Its type.
        name: String,
        /// `True`, `False` or `Unknown`.
        status: String,
    },
    /// A fault of this component is reported by the host.
    FaultReported {
        /// Beginning of the component's name, such as `memory/`.
        component: String,
    },
    /// The first of the VMs is assigned anew.
    AssignedAnew,
    /// The first of the VMs runs under its new assignment.
    StartedAnew,
    /// None of the VMs is assigned to the host any more.
    Empty,
    /// None of the VMs has a copy on the way (in live migration).
    NothingMoves,
    /// Every VM stands where it stood, at the epoch that it had.
    Unchanged,
    /// Each of the VMs is shown in this phase.
    Phase {
        /// Which.
        phase: String,
    },
    /// An Incident about the host stands open, with a cause that begins so.
    Incident {
        /// Such as `host-silent/`.
        cause: String,
    },
    /// No Incident about the host was opened since the drill began.
    NoIncident,
    /// Every Incident since the drill began is closed.
    IncidentsClosed,
    /// Every business system answers.
    SystemsReady,
    /// A business system does not answer in part or at all.
    SystemsDisturbed,
    /// Every host is Ready, every VM runs, every system answers.
    AllWell,
}

/// Reads a drill by its name, or from a file when the name ends in `.yaml`.
///
/// # Errors
/// It is not known, or the file is no drill.
pub fn load(name: &str) -> anyhow::Result<Drill> {
    use anyhow::{Context as _, bail};
    if name.ends_with(".yaml") {
        let text =
            std::fs::read_to_string(name).with_context(|| format!("{name} can not be read"))?;
        return serde_yaml::from_str(&text).with_context(|| format!("{name} is no drill"));
    }
    let drills = built_in()?;
    let names: Vec<String> = drills.iter().map(|drill| drill.name.clone()).collect();
    match drills.into_iter().find(|drill| drill.name == name) {
        Some(drill) => Ok(drill),
        None => bail!(
            "drill {name} does not exist; there are: {}; or name a file that ends in .yaml",
            names.join(", ")
        ),
    }
}

/// The drills that every site has.
///
/// # Errors
/// One of them is damaged.
pub fn built_in() -> anyhow::Result<Vec<Drill>> {
    BUILT_IN
        .iter()
        .map(|text| Ok(serde_yaml::from_str(text)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_drill_ends_what_it_begins_and_checks_something() {
        for drill in built_in().expect("drills") {
            let mut open = Vec::new();
            let mut checks = 0;
            for step in &drill.steps {
                match step {
                    Step::Fault { fault, .. } => open.push(fault.clone()),
                    Step::Heal { fault, .. } => open.retain(|known| known != fault),
                    Step::Until { within, .. } => {
                        assert!(*within > 0.0);
                        checks += 1;
                    }
                    Step::Hold { what, .. } => checks += what.len(),
                    Step::Clear { .. } | Step::Pass { .. } => {}
                }
            }
            // What starts again by itself needs no healing.
            open.retain(|fault| !fault.ends_with("-kill"));
            assert!(open.is_empty(), "{}: {open:?} is left", drill.name);
            assert!(checks >= 2, "{}", drill.name);
            assert!(!drill.title.zh.is_empty() && !drill.title.en.is_empty());
        }
    }

    #[test]
    fn a_drill_that_does_not_exist_names_those_that_do() {
        let error = load("host-meteorite")
            .expect_err("no such drill")
            .to_string();
        assert!(error.contains("host-power-loss"), "{error}");
    }

    #[test]
    fn a_misspelt_step_is_refused() {
        let text = "{name: x, title: {en: a, zh: b}, steps: [{step: until, what: {is: allWel}, within: 1, say: {en: a, zh: b}}]}";
        assert!(serde_yaml::from_str::<Drill>(text).is_err());
    }
}
