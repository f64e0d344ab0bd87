//! A site for tests in which operators take turns as the leader: what is so of hosts, VMs and systems, an API server that
//! keeps Incidents, and a death of the leader at one of its writes. Time is given, that of the wall clock too.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::{BusinessSystem, Host, Incident, VirtualMachine};
use axum::http::Method;
use jiff::Timestamp;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::Observer;
use super::world_in_memory::{STEP, Shown, World, wall};
use crate::api_in_memory::{Answer, Kept, client, failure};
use crate::context_in_memory::context;
use crate::hosts::HostWatch;
use crate::leader::Leader;
use crate::probes::Seen;
use crate::runtime::Context;
use crate::store::Stores;
use crate::writer::Writer;

/// Steps in which everything settles that follows from a change: a silence is told to its end.
const STEPS: usize = 13;

/// Key of the one endpoint that is probed.
pub(super) const ENDPOINT: &str = "oa/oa/portal";

/// The leader dies at a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// Which one.
    pub(super) write: usize,
    /// The API server took it, and the answer was lost.
    pub(super) arrived: bool,
}

/// Who leads after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// An operator that saw everything and did not lead.
    Standby,
    /// One that begins then.
    New,
    /// The same one, which did not die: it lost its Lease and took it again.
    Itself,
}

/// How a story is played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) death: Option<Death>,
    pub(super) successor: Successor,
    /// Caches show what was so a turn ago.
    pub(super) late: bool,
    /// Steps in which nobody leads after a death.
    pub(super) nobody: usize,
    /// As the API server is away for all of them.
    pub(super) is_away: bool,
}

/// The API server and what is to happen to its leader.
#[derive(Default)]
struct Server {
    kept: Kept,
    writes: usize,
    death: Option<Death>,
    is_dead: bool,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> Answer {
        let lost = || failure(503, "the connection is gone");
        if self.is_dead {
            return lost();
        }
        if method == Method::GET {
            return self.kept.answer(method, path, body);
        }
        let write = self.writes;
        self.writes += 1;
        let death = self.death.filter(|death| death.write == write);
        let Some(death) = death else {
            return self.kept.answer(method, path, body);
        };
        if death.arrived {
            let _ = self.kept.answer(method, path, body);
        }
        (self.death, self.is_dead) = (None, true);
        lost()
    }

    fn incidents(&self) -> Vec<Incident> {
        let typed = |object: &Value| serde_json::from_value(object.clone()).expect("an Incident");
        self.kept.objects().map(typed).collect()
    }
}

/// A cache that shows what it is told to.
struct Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    writer: reflector::store::Writer<K>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    fn new() -> Self {
        let (store, writer) = reflector::store();
        Self { store, writer }
    }

    fn show(&mut self, objects: &[K]) {
        self.writer.apply_watcher_event(&Event::Init);
        for object in objects {
            let event = Event::InitApply(object.clone());
            self.writer.apply_watcher_event(&event);
        }
        self.writer.apply_watcher_event(&Event::InitDone);
    }
}

struct Caches {
    hosts: Cache<Host>,
    vms: Cache<VirtualMachine>,
    systems: Cache<BusinessSystem>,
    incidents: Cache<Incident>,
}

/// One operator.
struct Operator {
    context: Arc<Context>,
    leader: Arc<Leader>,
    caches: Caches,
    /// What its probes saw.
    probed: Vec<(Timestamp, Seen)>,
    /// What its caches show.
    shows: Option<(u64, u64)>,
}

impl Operator {
    /// One whose probes see since then.
    fn new(client: Client, begun: Timestamp, world: &World) -> Self {
        let caches = Caches {
            hosts: Cache::new(),
            vms: Cache::new(),
            systems: Cache::new(),
            incidents: Cache::new(),
        };
        let mut stores = Stores::holding(&Default::default(), &[], Default::default());
        stores.hosts = caches.hosts.store.clone();
        stores.vms = caches.vms.store.clone();
        stores.systems = caches.systems.store.clone();
        stores.incidents = caches.incidents.store.clone();
        let leader = Arc::new(Leader::new("a".to_owned()));
        let writer = Writer::new(client, leader.clone());
        Self {
            context: Arc::new(context(writer, HostWatch::default(), stores)),
            leader,
            caches,
            probed: vec![(begun, world.endpoint.1)],
            shows: None,
        }
    }

    /// Looks at the world and, if it leads, tells it.
    async fn step(&mut self, world: &World, shown: &Shown) {
        if self.shows != Some(shown.version) {
            self.caches.hosts.show(&shown.hosts);
            self.caches.vms.show(&shown.vms);
            self.caches.systems.show(&shown.systems);
            self.caches.incidents.show(&shown.incidents);
            self.shows = Some(shown.version);
        }
        if self
            .probed
            .last()
            .is_some_and(|(_, seen)| *seen != world.endpoint.1)
        {
            self.probed.push(world.endpoint);
            self.probed.sort_unstable_by_key(|(at, _)| *at);
        }
        self.context.probes.saw(ENDPOINT, &self.probed);
        let leads = self.leader.leads();
        let (events, storm) = {
            let mut watch = self.context.hosts.lock().expect("hosts");
            for (host, faults) in &world.faults {
                watch.report(host, faults, world.now);
            }
            watch.look(&world.facts, (leads, !world.api_is_away), world.now)
        };
        let observer = Observer {
            leads,
            hears: !world.api_is_away,
            heard_at: world.heard_at,
            followed: self.leader.followed(),
            now: world.now,
        };
        self.context.incidents.note(&observer, events, storm);
        if leads {
            super::turn(&self.context).await;
        }
    }
}

/// A story while it is played.
pub(super) struct Play {
    plan: Plan,
    server: Arc<Mutex<Server>>,
    client: Client,
    pub(super) world: World,
    shown: Arc<Shown>,
    leader: Operator,
    /// None once it leads, or was lost too.
    standby: Option<Operator>,
}

impl Play {
    pub(super) async fn new(plan: Plan) -> Self {
        let server = Arc::new(Mutex::new(Server {
            death: plan.death,
            ..Server::default()
        }));
        let answers = server.clone();
        let client = client(move |method, path, body| {
            let mut server = answers.lock().unwrap_or_else(PoisonError::into_inner);
            std::future::ready(server.answer(&method, &path, &body))
        });
        let world = World::new();
        let begun = world.endpoint.0;
        let leader = Operator::new(client.clone(), begun, &world);
        leader.leader.set_leading(true);
        let standby = Some(Operator::new(client.clone(), begun, &world));
        let mut play = Self {
            plan,
            server,
            client,
            shown: Arc::default(),
            world,
            leader,
            standby,
        };
        play.pass(plan.nobody).await;
        play
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changes, and what follows from it settles.
    pub(super) async fn then(&mut self, change: impl FnOnce(&mut World)) {
        change(&mut self.world);
        self.world.changes += 1;
        self.settle().await;
    }

    /// A person's word that closes every Incident that is open.
    pub(super) async fn closes(&mut self, closure: Value) {
        {
            let mut server = self.server();
            let open = server.incidents().into_iter();
            let open: Vec<_> = open.filter(|one| !one.is_closed()).collect();
            for incident in open {
                let name = incident.metadata.name.unwrap_or_default();
                let path = format!("/apis/zhengyun.io/v1alpha1/incidents/{name}");
                let word = json!({"spec": {"closure": closure}});
                let _ = server.kept.answer(&Method::PATCH, &path, &word);
            }
        }
        self.settle().await;
    }

    async fn settle(&mut self) {
        self.pass(STEPS).await;
        if self.server().is_dead {
            self.take_over().await;
            self.pass(STEPS).await;
        }
    }

    /// Steps until the leader dies, if it does.
    async fn pass(&mut self, steps: usize) {
        for _ in 0..steps {
            self.world.step();
            let late = self.shown.clone();
            self.show();
            let shown = if self.plan.late {
                late
            } else {
                self.shown.clone()
            };
            self.leader.step(&self.world, &shown).await;
            if let Some(standby) = &mut self.standby {
                if self.leader.leader.leads() {
                    standby.leader.sees_another_lead(STEP);
                }
                standby.step(&self.world, &shown).await;
            }
            if self.server().is_dead && self.leader.leader.leads() {
                return;
            }
        }
    }

    /// What the API holds now.
    fn show(&mut self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shown.version != (self.world.changes, server.kept.version()) {
            self.shown = Arc::new(self.world.shown(server.kept.version(), server.incidents()));
        }
    }

    /// Nobody leads for a while; then another one does.
    async fn take_over(&mut self) {
        self.leader.leader.set_leading(false);
        let standby = self.standby.take();
        match self.plan.successor {
            Successor::Itself => {}
            Successor::Standby => self.leader = standby.expect("nobody died before"),
            Successor::New => {
                let begun = wall();
                self.leader = Operator::new(self.client.clone(), begun, &self.world);
            }
        }
        self.world.api_is_away = self.plan.is_away;
        self.pass(self.plan.nobody).await;
        self.world.api_is_away = false;
        self.server().is_dead = false;
        self.leader.leader.set_leading(true);
    }

    /// Writes that arrived or were to.
    pub(super) fn writes(&self) -> usize {
        self.server().writes
    }

    /// Whether the death that was planned has happened.
    pub(super) fn died(&self) -> bool {
        self.server().death.is_none()
    }

    /// What the API holds.
    pub(super) fn incidents(&self) -> Vec<Incident> {
        self.server().incidents()
    }
}
