//! Root causes that are no silence and no standing hardware fault: a guest that crashed or can not
//! be started, an agent that stands still, downtime by planned work or by storage that stalls. What
//! happens to a guest because its host died belongs to the incident of that host: one root cause,
//! one incident.

use model::{Assignment, FaultKind, HostName, NamespacedName};

use super::rules::{SILENT_CAUSES, STORM_CAUSE, fault_cause, fault_title, silent_cause};
use super::{CauseClass, Entry, Incident, IncidentState, Ledger, Opening, WallTime};
use crate::host::machine::EventKind;
use crate::reason::{Reason, Sentence};

/// What every cause of a guest begins with.
pub const GUEST_CAUSES: &str = "guest/";
/// What every cause of an agent that stands still begins with.
pub const AGENT_CAUSES: &str = "agent-down/";
/// What every cause of planned work begins with.
pub const PLANNED_CAUSES: &str = "maintenance/";

/// What the causes of one VM begin with; the epoch follows.
pub fn guest_causes(vm: &NamespacedName) -> String {
    format!("{GUEST_CAUSES}{vm}/")
}

/// Cause of the incident of an agent whose loop stands still.
pub fn agent_cause(host: &HostName, boot_id: &str) -> String {
    format!("{AGENT_CAUSES}{host}/{boot_id}")
}

/// Cause of the downtime that work on a host brings.
pub fn planned_cause(host: &HostName) -> String {
    format!("{PLANNED_CAUSES}{host}")
}

/// The step of a crash: stable, so that it is told once, whoever leads.
pub fn crash_step(vm: &NamespacedName, copy: &Assignment) -> String {
    format!("guest-crashed/{vm}/{}", copy.epoch)
}

/// A VM, its business system, and the copy that something happened to.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// The VM.
    pub vm: &'a NamespacedName,
    /// Its business system, if it belongs to one.
    pub system: Option<&'a NamespacedName>,
    /// The copy.
    pub copy: &'a Assignment,
}

/// A business system that does not answer.
#[derive(Clone, Debug)]
pub struct Interrupted<'a> {
    /// The system.
    pub name: &'a NamespacedName,
    /// Its official name.
    pub display_name: &'a str,
    /// Its VM that is touched by the cause.
    pub vm: &'a str,
    /// Since when.
    pub since: WallTime,
}

impl Ledger {
    /// The open incident that what happened to a guest belongs to: of the incarnation that carried
    /// it, of a storm, or one that names it and is not recovered.
    fn covering(&self, guest: &Guest<'_>) -> Option<String> {
        let silence = silent_cause(&guest.copy.host, &guest.copy.boot_id);
        if self.open.contains_key(&silence) {
            return Some(silence);
        }
        if self.open.contains_key(STORM_CAUSE) {
            return Some(STORM_CAUSE.to_owned());
        }
        let names = |incident: &&Incident| {
            let system = guest.system.and_then(|name| incident.systems.get(name));
            incident.cause.starts_with(SILENT_CAUSES)
                && incident.state == IncidentState::Open
                && system.is_some_and(|system| system.virtual_machines.contains(&guest.vm.name))
        };
        let covering = self.open.values().find(names);
        covering.map(|incident| incident.cause.clone())
    }

    /// Whether the open incident of a host's death, or of a storm, explains what happened to a guest.
    pub fn is_explained(&self, guest: &Guest<'_>) -> bool {
        self.covering(guest).is_some()
    }

    /// The open incident of a VM's own, whatever epoch it began with.
    fn own_of(&self, vm: &NamespacedName) -> Option<String> {
        let own = guest_causes(vm);
        let mut causes = self.open.range(own.clone()..).map(|(cause, _)| cause);
        causes
            .next()
            .filter(|cause| cause.starts_with(&own))
            .cloned()
    }

    /// Opens an incident at a host. What was seen of that host before tells of its silence, and is not
    /// this story.
    fn open_at(
        &mut self,
        cause: &str,
        class: CauseClass,
        title: Sentence,
        host: &HostName,
        at: WallTime,
    ) {
        let opening = Opening {
            cause: cause.to_owned(),
            class,
            title,
            host: None,
        };
        self.open_incident(opening, at);
        if let Some(incident) = self.open.get_mut(cause) {
            incident.host = Some(host.clone());
        }
    }

    /// The incident that a guest's story is told in; opened with that title if there is none.
    fn of_guest(&mut self, guest: &Guest<'_>, title: Sentence, at: WallTime) -> String {
        if let Some(cause) = self.covering(guest).or_else(|| self.own_of(guest.vm)) {
            return cause;
        }
        let cause = format!("{}{}", guest_causes(guest.vm), guest.copy.epoch);
        self.open_at(&cause, CauseClass::Software, title, &guest.copy.host, at);
        cause
    }

    /// QEMU of a guest crashed or was killed, while its host lived.
    pub fn guest_crashed(&mut self, guest: &Guest<'_>, at: WallTime) {
        let (vm, host) = (guest.vm, &guest.copy.host);
        let sentence = Sentence {
            english: format!("VM {vm} crashed on {host}"),
            chinese: format!("虚拟机 {vm} 在 {host} 上崩溃"),
        };
        let cause = self.of_guest(guest, sentence.clone(), at);
        let step = crash_step(vm, guest.copy);
        self.tell(&cause, told(at, EventKind::Seen, step, sentence));
    }

    /// A guest keeps failing and is left in error; `message` tells why.
    pub fn guest_in_error(&mut self, guest: &Guest<'_>, message: &str, at: WallTime) {
        let vm = guest.vm;
        let title = Sentence {
            english: format!("VM {vm} can not be started"),
            chinese: format!("虚拟机 {vm} 无法启动"),
        };
        let cause = self.of_guest(guest, title.clone(), at);
        if cause.starts_with(GUEST_CAUSES) {
            self.reclassify(&cause, CauseClass::Software, title);
        }
        let sentence = Sentence {
            english: format!("VM {vm} is left in error: {message}"),
            chinese: format!("虚拟机 {vm} 停在故障状态:{message}"),
        };
        let step = format!("in-error/{vm}");
        self.tell(&cause, told(at, EventKind::NotDone, step, sentence));
    }

    /// A guest's only data lies on a dead host: it waits, and the incident of that host names it.
    pub fn guest_pinned(&mut self, guest: &Guest<'_>, at: WallTime) {
        let Some(cause) = self.covering(guest) else {
            return;
        };
        let (vm, host) = (guest.vm, &guest.copy.host);
        let sentence = Sentence {
            english: format!(
                "VM {vm} is not restarted elsewhere: the only copy of its data is on {host}; it waits for that host"
            ),
            chinese: format!("虚拟机 {vm} 未在别处重启:其数据仅存于 {host},等待该宿主机恢复"),
        };
        let step = format!("pinned/{vm}");
        self.tell(&cause, told(at, EventKind::NotDone, step, sentence));
    }

    /// An agent's loop stands still for longer than the policy allows, while its guard lives.
    pub fn agent_down(
        &mut self,
        host: &HostName,
        boot_id: &str,
        age_milliseconds: u64,
        at: WallTime,
    ) {
        let cause = agent_cause(host, boot_id);
        let title = Sentence {
            english: format!("the agent of {host} stands still"),
            chinese: format!("{host} 的代理停滞"),
        };
        self.open_at(&cause, CauseClass::Software, title, host, at);
        let sentence = Reason::AgentDown { age_milliseconds }.sentence();
        let seen = told(at, EventKind::Seen, "agent-down".to_owned(), sentence);
        self.tell(&cause, seen);
        let sentence = Sentence {
            english: format!(
                "{host} is not fenced: its guard lives and its VMs run on; nothing new is placed there until its agent is started again"
            ),
            chinese: format!("未隔离 {host}:其守护进程与虚拟机均正常;代理恢复前不再放置虚拟机"),
        };
        let left = told(at, EventKind::NotDone, "not-fenced".to_owned(), sentence);
        self.tell(&cause, left);
    }

    /// Whether an open incident of another cause explains that a business system does not answer.
    fn explains_downtime(&self, cause: &str, system: &NamespacedName) -> bool {
        self.open.values().any(|incident| {
            incident.cause != cause
                && incident.state == IncidentState::Open
                && (incident.systems.contains_key(system) || incident.cause == STORM_CAUSE)
        })
    }

    /// A business system does not answer while people work on the host of one of its VMs, and
    /// nothing else explains it.
    pub fn planned_downtime(&mut self, host: &HostName, system: &Interrupted<'_>) {
        let cause = planned_cause(host);
        let title = Sentence {
            english: format!("planned work on {host} interrupted business systems"),
            chinese: format!("{host} 的计划内维护造成业务中断"),
        };
        let name = system.display_name;
        let sentence = Sentence {
            english: format!("{name} does not answer while {host} is in maintenance"),
            chinese: format!("{host} 维护期间,{name} 无应答"),
        };
        let step = format!("planned/{}", system.name);
        self.interrupted(
            (&cause, CauseClass::Planned, title),
            host,
            system,
            (step, sentence),
        );
    }

    /// A business system does not answer while a host's storage does not, and nothing else explains it. The incident is that
    /// of storage that is lost there: the guests feel it before the probes call it so, and it may be over by then.
    pub fn storage_stalled(&mut self, host: &HostName, component: &str, system: &Interrupted<'_>) {
        let cause = fault_cause(host, component, FaultKind::StorageLost);
        let title = fault_title(host, component, FaultKind::StorageLost);
        let name = system.display_name;
        let sentence = Sentence {
            english: format!("{name} does not answer while {component} does not answer {host}"),
            chinese: format!("{host} 的 {component} 无应答期间,{name} 无应答"),
        };
        let step = format!("stalled/{}", system.name);
        self.interrupted(
            (&cause, CauseClass::Hardware, title),
            host,
            system,
            (step, sentence),
        );
    }

    /// Opens an incident of a downtime that no other one explains, or opens it anew where it had recovered.
    fn interrupted(
        &mut self,
        (cause, class, title): (&str, CauseClass, Sentence),
        host: &HostName,
        system: &Interrupted<'_>,
        (step, sentence): (String, Sentence),
    ) {
        if self.explains_downtime(cause, system.name) {
            return;
        }
        let at = system.since;
        self.open_at(cause, class, title, host, at);
        self.affect(cause, system.name.clone(), system.display_name, system.vm);
        self.tell(cause, told(at, EventKind::Seen, step, sentence));
        self.reopen(cause);
    }
}

fn told(at: WallTime, kind: EventKind, step: String, sentence: Sentence) -> Entry {
    Entry {
        at,
        kind,
        step,
        english: sentence.english,
        chinese: sentence.chinese,
    }
}

#[cfg(test)]
#[path = "causes_tests.rs"]
mod tests;
