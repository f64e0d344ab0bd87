//! What is so of hosts, VMs and systems, whoever leads, as time passes that is given: for tests.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use api::{BusinessSystem, Host, Incident, VirtualMachine};
use failover::Moment;
use failover::host::incarnation::Identity;
use failover::host::machine::HostFacts;
use failover::proof::power::{PowerAnswer, PowerReading};
use failover::severity::ReportedFault;
use failover::signs::Sign;
use jiff::{SignedDuration, Timestamp};
use model::HostName;
use serde_json::{Value, json};

use crate::context_in_memory::BOOT;
use crate::probes::Seen;

/// A look at hosts and a turn of the ledger, milliseconds.
pub(super) const STEP: u64 = 1_000;
/// The same by the wall clock: not in whole seconds, which names of Incidents carry.
const STEP_OF_WALL: SignedDuration = SignedDuration::from_micros(1_000_017);
thread_local! {
    static WALL: Cell<Option<Timestamp>> = const { Cell::new(None) };
}

/// The wall clock: as it was set in this thread, or the real one.
pub(super) fn wall() -> Timestamp {
    WALL.get().unwrap_or_else(Timestamp::now)
}

/// What the API holds.
#[derive(Default)]
pub(super) struct Shown {
    /// Changes of the world and writes that made it so.
    pub(super) version: (u64, u64),
    pub(super) hosts: Vec<Host>,
    pub(super) vms: Vec<VirtualMachine>,
    pub(super) systems: Vec<BusinessSystem>,
    pub(super) incidents: Vec<Incident>,
}

/// What is so, whoever leads.
pub(super) struct World {
    pub(super) now: Moment,
    /// Nobody's Lease can change.
    pub(super) api_is_away: bool,
    /// When the API server answered last.
    pub(super) heard_at: Moment,
    pub(super) changes: u64,
    pub(super) facts: BTreeMap<HostName, HostFacts>,
    silent: BTreeSet<HostName>,
    off: BTreeSet<HostName>,
    pub(super) faults: BTreeMap<HostName, Vec<ReportedFault>>,
    hosts: BTreeMap<String, Value>,
    vms: BTreeMap<String, Value>,
    system: Value,
    pub(super) endpoint: (Timestamp, Seen),
    /// Each time that the endpoint failed, and answered again.
    pub(super) outages: Vec<(Timestamp, Option<Timestamp>)>,
}

impl World {
    /// Four hosts, and a system whose two VMs are on the first.
    pub(super) fn new() -> Self {
        WALL.set(Some("2026-01-01T00:00:00Z".parse().expect("a time")));
        let names = ["h1", "h2", "h3", "h4"];
        let mut world = Self {
            now: Moment(86_400_000),
            api_is_away: false,
            heard_at: Moment(86_400_000),
            changes: 1,
            facts: BTreeMap::new(),
            silent: BTreeSet::new(),
            off: BTreeSet::new(),
            faults: BTreeMap::new(),
            hosts: BTreeMap::new(),
            vms: BTreeMap::new(),
            system: json!({
                "metadata": {"name": "oa", "namespace": "oa", "uid": "oa"},
                "spec": {"displayName": "OA", "tiers": [],
                         "endpoints": [{"name": "portal", "tier": "web", "port": 80, "path": "/"}]},
                "status": {"state": "Ready"}
            }),
            endpoint: (wall() - SignedDuration::from_secs(60), Seen::Up),
            outages: Vec::new(),
        };
        for name in names {
            let host = crate::context_in_memory::host(name, Value::Null, Value::Null);
            world.hosts.insert(name.to_owned(), json!(*host));
            world.facts.insert(name.into(), HostFacts::default());
            world.is(name, "Ready");
            world.boots(name, BOOT);
        }
        for vm in ["oa-web-0", "oa-web-1"] {
            world.runs(vm, "h1", 1, json!([]));
        }
        world
    }

    fn facts_of(&mut self, host: &str) -> &mut HostFacts {
        let facts = self.facts.get_mut(&HostName::from(host));
        facts.expect("a host")
    }

    fn host(&mut self, name: &str) -> &mut Value {
        self.hosts.get_mut(name).expect("a host")
    }

    /// A state that the API shows of a host.
    pub(super) fn is(&mut self, host: &str, state: &str) {
        self.host(host)["status"]["state"] = json!(state);
    }

    /// What the API shows of a host's evacuation.
    pub(super) fn evacuation(&mut self, host: &str, evacuation: Value) {
        self.host(host)["status"]["evacuation"] = evacuation;
    }

    /// A person writes a word into the spec of a host.
    pub(super) fn word(&mut self, host: &str, field: &str, word: Value) {
        self.host(host)["spec"][field] = word;
    }

    /// A host registers and renews under a boot.
    pub(super) fn boots(&mut self, host: &str, boot: &str) {
        let facts = self.facts_of(host);
        let before = facts.identity.take().map(|identity| identity.boot_id);
        facts.retired.extend(before);
        facts.identity = Some(Identity {
            boot_id: boot.into(),
            system_uuid: host.to_owned(),
            mac_addresses: BTreeSet::new(),
        });
        facts.lease_boot_id = Some(boot.into());
        facts.bmcs = 1;
        self.host(host)["status"]["reported"]["incarnation"]["bootId"] = json!(boot);
        self.off.remove(&HostName::from(host));
        self.renews(host);
    }

    /// A host renews its Lease.
    pub(super) fn renews(&mut self, host: &str) {
        self.silent.remove(&HostName::from(host));
    }

    /// A host falls silent, and its BMC with it.
    pub(super) fn falls_silent(&mut self, host: &str) {
        self.silent.insert(host.into());
    }

    /// The BMC of a silent host answers, and reads Off.
    pub(super) fn reads_off(&mut self, host: &str) {
        self.off.insert(host.into());
    }

    /// Agents report these faults of a host.
    pub(super) fn reports(&mut self, host: &str, faults: Vec<ReportedFault>) {
        self.faults.insert(host.into(), faults);
    }

    /// A host reports how its storage pool answers it.
    pub(super) fn pool_is(&mut self, host: &str, state: &str) {
        let pool =
            json!({"name": "shared", "state": state, "capacityBytes": 2, "availableBytes": 1});
        self.host(host)["status"]["reported"]["storagePools"] = json!([pool]);
    }

    /// A VM runs on a host under an epoch, with the proofs of its former copies.
    pub(super) fn runs(&mut self, vm: &str, host: &str, epoch: i64, proofs: Value) {
        self.assign(vm, (host, epoch), proofs, ("Running", "Running"));
    }

    /// A VM is being started on a host under an epoch.
    pub(super) fn starts(&mut self, vm: &str, host: &str, epoch: i64, proofs: Value) {
        self.assign(vm, (host, epoch), proofs, ("Recovering", "Preparing"));
    }

    fn assign(
        &mut self,
        vm: &str,
        (host, epoch): (&str, i64),
        proofs: Value,
        (phase, reported): (&str, &str),
    ) {
        let right = json!({"host": host, "bootId": BOOT, "epoch": epoch});
        let since = wall().to_string();
        let started = (phase == "Running").then_some(&since);
        let object = json!({
            "metadata": {"name": vm, "namespace": "oa", "uid": vm, "resourceVersion": "1",
                         "labels": {api::names::LABEL_SYSTEM: "oa", api::names::LABEL_TIER: "web"}},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
            "status": {"phase": phase, "assignment": right, "lastEpoch": epoch, "proofs": proofs,
                       "runtime": {"assignment": right, "phase": reported, "since": since, "startedAt": started}}
        });
        self.vms.insert(vm.to_owned(), object);
    }

    /// The system does not answer since a second ago: probes fail before a silence is noticed.
    pub(super) fn goes_down(&mut self) {
        let at = wall() - SignedDuration::from_secs(1);
        self.endpoint = (at, Seen::Down);
        self.outages.push((at, None));
        self.system["status"] = json!({"state": "Down", "endpoints": [endpoint("Down", at)]});
    }

    /// The system answers again.
    pub(super) fn comes_up(&mut self) {
        let at = wall();
        self.endpoint = (at, Seen::Up);
        let outage = self.outages.last_mut();
        outage.expect("it was down").1 = Some(at);
        self.system["status"] = json!({"state": "Ready", "endpoints": [endpoint("Up", at)]});
    }

    /// Time passes.
    pub(super) fn step(&mut self) {
        self.now = self.now.plus(STEP);
        let now = self.now;
        if !self.api_is_away {
            self.heard_at = now;
        }
        WALL.set(Some(wall() + STEP_OF_WALL));
        for (host, facts) in &mut self.facts {
            let is_silent = self.silent.contains(host);
            if !is_silent && !self.api_is_away {
                let changes = facts.signs.lease.map_or(0, |sign| sign.changes) + 1;
                facts.signs.lease = Some(Sign {
                    changes,
                    changed_at: now,
                });
            }
            let answer = match (self.off.contains(host), is_silent) {
                (true, _) => PowerAnswer::Off,
                (false, true) => PowerAnswer::NoAnswer,
                (false, false) => PowerAnswer::On,
            };
            facts.reading = Some(PowerReading {
                answer,
                system_uuid: Some(host.to_string()),
                unanimous: true,
                contradicted: false,
                sent_at: now,
                received_at: now,
            });
        }
    }

    pub(super) fn shown(&self, written: u64, incidents: Vec<Incident>) -> Shown {
        Shown {
            version: (self.changes, written),
            hosts: all(self.hosts.values()),
            vms: all(self.vms.values()),
            systems: all(std::iter::once(&self.system)),
            incidents,
        }
    }
}

fn endpoint(state: &str, since: Timestamp) -> Value {
    json!({"name": "portal", "state": state, "since": since.to_string(), "replicasUp": 0, "replicas": 2})
}

fn all<'a, K: serde::de::DeserializeOwned>(objects: impl Iterator<Item = &'a Value>) -> Vec<K> {
    let typed = |object: &Value| serde_json::from_value(object.clone()).expect("an object");
    objects.map(typed).collect()
}
