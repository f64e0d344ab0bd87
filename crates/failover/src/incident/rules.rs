//! How events of hosts become incidents: a missed renewal alone is none; a host that is
//! unreachable, reads Off or is proven dead is one; many hosts at once are one together;
//! each standing hardware fault of a component is one. A host that falls silent while people work on
//! it is planned work, whatever it shows then.

use std::collections::BTreeMap;
use std::fmt::Display;

use model::{FaultKind, HostName, Severity, StopProofKind};

use super::{CauseClass, Entry, Ledger, Opening, WallTime};
use crate::guard::boot;
use crate::host::machine::{EventKind, HostEvent};
use crate::host::table::Conclusion;
use crate::reason::{Reason, Sentence};

/// Cause of the one incident of a storm.
pub const STORM_CAUSE: &str = "hosts-silent";

/// What causes of silent hosts' incidents begin with.
pub const SILENT_CAUSES: &str = "host-silent/";

/// Cause of the incident of a silent boot of a host: what its guard did in that boot began no other
/// ([`incarnation`](crate::guard::incarnation)), nor did a force-off that met the host as its network came back.
pub fn silent_cause(host: impl Display, boot_id: impl Display) -> String {
    format!("{SILENT_CAUSES}{host}/{}", boot(&boot_id.to_string()))
}

/// Cause of a silent host's incident.
pub fn host_cause(event: &HostEvent) -> String {
    silent_cause(&event.host, &event.boot_id)
}

/// Cause of a hardware fault's incident.
pub fn fault_cause(host: &HostName, component: &str, kind: FaultKind) -> String {
    format!("hardware/{host}/{component}/{kind:?}")
}

/// Title of a hardware fault's incident.
pub(super) fn fault_title(host: &HostName, component: &str, kind: FaultKind) -> Sentence {
    Sentence {
        english: format!("{host}: {kind:?} of {component}"),
        chinese: format!("{host}:{component} 发生 {kind:?}"),
    }
}

/// Stable key of what a host's event tells, in a timeline. Steps that can repeat with another value carry it.
pub fn host_step(event: &HostEvent) -> String {
    match &event.reason {
        Reason::Concluded { conclusion } if event.kind == EventKind::NotDone => {
            format!("{}/left-alone/{conclusion:?}", event.host)
        }
        Reason::Concluded { conclusion } => format!("{}/concluded/{conclusion:?}", event.host),
        Reason::ForcedOff { attempt, .. } => format!("{}/forced-off/{attempt}", event.host),
        Reason::StaysOn { bmc, .. } => format!("{}/stays-on/{bmc}", event.host),
        other => format!("{}/{:?}/{}", event.host, event.kind, other.key()),
    }
}

/// The entry of one event.
fn entry(event: &HostEvent, at: WallTime) -> Entry {
    let step = host_step(event);
    let Sentence { english, chinese } = match (&event.reason, event.kind) {
        // What was seen stands in an entry of its own.
        (Reason::Concluded { .. }, EventKind::NotDone) => Sentence {
            english: "is not forced off, as it shows life".to_owned(),
            chinese: "有存活迹象,不强制断电".to_owned(),
        },
        (reason, _) => reason.sentence(),
    };
    Entry {
        at,
        kind: event.kind,
        step,
        english: format!("{}: {english}", event.host),
        chinese: format!("{}:{chinese}", event.host),
    }
}

/// A class of cause, and what a host does then, in English and Chinese.
pub(super) type Meaning = (CauseClass, &'static str, &'static str);

/// What an event says about the cause.
fn meaning(reason: &Reason) -> Option<Meaning> {
    let conclusion = match reason {
        Reason::CloseStuck { .. } => {
            return Some((
                CauseClass::Software,
                "can not end the process of a VM",
                "无法结束虚拟机进程",
            ));
        }
        Reason::Concluded { conclusion } => conclusion,
        _ => return None,
    };
    Some(match conclusion {
        Conclusion::Dead | Conclusion::OffUndecided => (CauseClass::Hardware, "lost power", "断电"),
        Conclusion::Hung => (
            CauseClass::Unknown,
            "is powered on and shows no life",
            "已通电但无响应",
        ),
        Conclusion::NothingAnswers => (
            CauseClass::Unknown,
            "does not answer, nor does its BMC",
            "与其 BMC 均无应答",
        ),
        Conclusion::ManagementCut => (
            CauseClass::Network,
            "lost its management network",
            "管理网络中断",
        ),
        Conclusion::SwitchDead => (
            CauseClass::Network,
            "lost management network and BMC together",
            "管理网与 BMC 同时中断",
        ),
        Conclusion::Isolated | Conclusion::HalfAlive => (
            CauseClass::Network,
            "runs but is isolated",
            "运行中但被孤立",
        ),
        Conclusion::BmcContradicts => (
            CauseClass::Hardware,
            "has a BMC that contradicts it",
            "的 BMC 与实际状态矛盾",
        ),
        Conclusion::Unlisted => (
            CauseClass::Unknown,
            "is silent while its VMs answer",
            "静默但虚拟机仍应答",
        ),
        Conclusion::Alive | Conclusion::AliveWithoutStorage | Conclusion::PowerNotRead => {
            return None;
        }
    })
}

/// What an incident begins with whose cause nothing was concluded about.
fn unexplained(reason: &Reason) -> Meaning {
    match reason {
        Reason::Proven {
            kind: StopProofKind::Rebooted,
            ..
        } => (
            CauseClass::Unknown,
            "has booted anew, and its VMs died",
            "已重新启动,其上的虚拟机随之停止",
        ),
        _ => (CauseClass::Unknown, "is silent", "静默"),
    }
}

/// Class and title of a silence. One that began while people worked on the host is theirs, whatever the host
/// shows then; that it can not end a VM is nobody's plan.
fn classed(
    event: &HostEvent,
    (class, english, chinese): Meaning,
    is_planned: bool,
) -> (CauseClass, Sentence) {
    let host = &event.host;
    let is_planned = is_planned && !matches!(event.reason, Reason::CloseStuck { .. });
    let (class, in_english, in_chinese) = if is_planned {
        (CauseClass::Planned, " (in maintenance)", "(维护期间)")
    } else {
        (class, "", "")
    };
    let title = Sentence {
        english: format!("{host} {english}{in_english}"),
        chinese: format!("{host} {chinese}{in_chinese}"),
    };
    (class, title)
}

/// Why a silence counts as planned work.
fn in_maintenance(host: &HostName, reason: &str, at: WallTime) -> Entry {
    Entry {
        at,
        kind: EventKind::Seen,
        step: format!("{host}/in-maintenance"),
        english: format!("{host}: is in maintenance, so its silence is planned work: {reason}"),
        chinese: format!("{host}:处于维护模式,其静默属计划内:{reason}"),
    }
}

fn opens(event: &HostEvent) -> bool {
    match &event.reason {
        Reason::Unreachable { .. } | Reason::Proven { .. } | Reason::CloseStuck { .. } => true,
        Reason::Concluded { conclusion } => {
            matches!(conclusion, Conclusion::Dead | Conclusion::BmcContradicts)
        }
        reason => event.kind == EventKind::NotDone || matches!(reason, Reason::FenceIntended),
    }
}

impl Ledger {
    /// Takes note of the work that people have declared on hosts, with its reason: all that stands, and before
    /// events are told.
    pub fn work_declared(&mut self, work: BTreeMap<HostName, String>) {
        self.work = work;
    }

    /// What an event says about the cause of an incident: a host that we forced off ourselves did not lose
    /// its power.
    fn meaning_now(&self, cause: &str, event: &HostEvent) -> Option<Meaning> {
        let told = |prefix: String| {
            self.open.get(cause).is_some_and(|incident| {
                let mut steps = incident.timeline.iter().map(|entry| &entry.step);
                steps.any(|step| step.starts_with(&prefix))
            })
        };
        // It was forced off for that; what it shows then is no cause.
        if told(format!("{}/Seen/CloseStuck", event.host)) {
            return None;
        }
        let is_forced = told(format!("{}/forced-off/", event.host));
        match &event.reason {
            Reason::Concluded {
                conclusion: Conclusion::Dead | Conclusion::OffUndecided,
            } if is_forced => Some((
                CauseClass::Unknown,
                "showed no life while powered on, and was forced off",
                "通电但无响应,已被强制断电",
            )),
            other => meaning(other),
        }
    }

    /// Takes one event of a host. While the incident of a storm is open, hosts without an
    /// incident of their own tell their story there: one root cause, one incident.
    pub fn host_event(&mut self, event: &HostEvent, at: WallTime) {
        let entry = entry(event, at);
        let own = host_cause(event);
        let is_back = matches!(event.reason, Reason::Returned | Reason::Alive);
        if is_back {
            // A silence to come has a cause of its own. Of one that ended by a new boot it may yet turn out that VMs died.
            self.shown.remove(&event.host);
        }
        if event.reason == Reason::Alive {
            self.before.remove(&event.host);
        }
        // What a returning host tells belongs to the incident of its former boot.
        let returned = event.reason == Reason::Returned;
        let former = returned.then(|| self.open_of_host(&event.host)).flatten();
        let cause = if self.open.contains_key(&own) {
            own
        } else if let Some(former) = former {
            former
        } else if self.storm_takes(event, is_back) {
            STORM_CAUSE.to_owned()
        } else if opens(event) {
            // What was concluded before the silence was long enough for an incident is told only once.
            let shown = self.shown.remove(&event.host);
            let meaning = meaning(&event.reason).or(shown);
            let meaning = meaning.unwrap_or_else(|| unexplained(&event.reason));
            let (class, title) = classed(event, meaning, self.work.contains_key(&event.host));
            self.open_incident(
                Opening {
                    cause: own.clone(),
                    class,
                    title,
                    host: Some(event.host.clone()),
                },
                at,
            );
            own
        } else {
            if !is_back {
                if let Some(meaning) = meaning(&event.reason) {
                    self.shown.insert(event.host.clone(), meaning);
                }
                let before = self.before.entry(event.host.clone()).or_default();
                before.push(entry);
            }
            return;
        };
        if cause != STORM_CAUSE {
            self.sharpen(&cause, event, at);
        }
        self.tell(&cause, entry);
    }

    /// Whether the incident of a storm tells what is told of a host without one of its own. Of a host that was not
    /// silent in it, as far as anybody heard, it does not tell that it is back.
    fn storm_takes(&self, event: &HostEvent, is_back: bool) -> bool {
        let storm = self.open.get(STORM_CAUSE);
        storm.is_some_and(|storm| !is_back || storm.dropped > 0 || storm.tells_of(&event.host))
    }

    /// Class and title of a host's incident, now that this event is known. What was planned when it was opened
    /// stays so, whoever leads and though the work is over.
    fn sharpen(&mut self, cause: &str, event: &HostEvent, at: WallTime) {
        let incident = self.open.get(cause);
        let is_planned = incident.is_some_and(|incident| incident.class == CauseClass::Planned);
        if is_planned && let Some(reason) = self.work.get(&event.host) {
            let entry = in_maintenance(&event.host, reason, at);
            self.tell(cause, entry);
        }
        if let Some(meaning) = self.meaning_now(cause, event) {
            let (class, title) = classed(event, meaning, is_planned);
            self.reclassify(cause, class, title);
        }
    }

    fn open_of_host(&self, host: &HostName) -> Option<String> {
        let prefix = format!("{SILENT_CAUSES}{host}/");
        self.open
            .range(prefix.clone()..)
            .next()
            .map(|(cause, _)| cause.clone())
            .filter(|cause| cause.starts_with(&prefix))
    }

    /// A storm began: one incident for all hosts in it.
    pub fn storm(&mut self, silent: u32, of: u32, at: WallTime) {
        let title = Sentence {
            english: format!("{silent} of {of} hosts fell silent together"),
            chinese: format!("{of} 台宿主机中有 {silent} 台同时静默"),
        };
        self.open_incident(
            Opening {
                cause: STORM_CAUSE.to_owned(),
                class: CauseClass::Network,
                title,
                host: None,
            },
            at,
        );
        let Sentence { english, chinese } = Reason::Storm { silent, of }.sentence();
        let entry = Entry {
            at,
            kind: EventKind::NotDone,
            step: "storm".to_owned(),
            english,
            chinese,
        };
        self.tell(STORM_CAUSE, entry);
        self.shown.clear();
        for (host, entries) in std::mem::take(&mut self.before) {
            for entry in entries {
                debug_assert!(entry.step.starts_with(host.as_str()));
                self.tell(STORM_CAUSE, entry);
            }
        }
    }

    /// A hardware fault was raised.
    pub fn fault(
        &mut self,
        host: &HostName,
        component: &str,
        kind: FaultKind,
        severity: Severity,
        evidence: &str,
        at: WallTime,
    ) {
        let cause = fault_cause(host, component, kind);
        let title = fault_title(host, component, kind);
        self.open_incident(
            Opening {
                cause: cause.clone(),
                class: CauseClass::Hardware,
                title,
                host: Some(host.clone()),
            },
            at,
        );
        let (english, chinese) = (
            format!("{severity:?}: {evidence}"),
            format!("{severity:?}:{evidence}"),
        );
        self.tell(
            &cause,
            Entry {
                at,
                kind: EventKind::Seen,
                step: format!("fault/{severity:?}"),
                english,
                chinese,
            },
        );
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
