//! `zyctl what-if`: the failure of a host, more hosts, more systems; told before it happens.

mod apply;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use api::VirtualMachine;
use model::{Bytes, HostName, VmUid};
use placement::{Fleet, Host, HostDown, headroom_report, host_down, with_hosts};
use serde_json::{Value, json};

pub use self::apply::apply;

use super::planning::{Planning, Told};
use crate::language::Language;
use crate::said;
use crate::table::Table;

/// A host fails.
///
/// # Errors
/// It does not exist.
pub fn down(planning: &Planning, name: &str) -> Result<()> {
    let down = Down::of(planning, name)?;
    planning.print(&down.json(), || down.text())
}

/// The failure of a host.
pub struct Down<'a> {
    planning: &'a Planning,
    host: HostName,
    /// What becomes of its VMs.
    answer: HostDown,
    /// Head-room of its pool without it.
    after: Option<Told>,
}

impl<'a> Down<'a> {
    /// What the failure of a host would come to.
    ///
    /// # Errors
    /// It does not exist.
    pub fn of(planning: &'a Planning, name: &str) -> Result<Self> {
        let host = planning.host(name)?;
        // As the operator gives them room: by priority, tier and system.
        let turn = |vm: &VirtualMachine| {
            let system = fleet::system::system_of(vm);
            (vm.spec.priority, vm.spec.restart_order, system)
        };
        let snapshot = &planning.snapshot;
        let vms = snapshot.objects.vms.iter();
        let turns: BTreeMap<VmUid, _> = vms.map(|vm| (fleet::uid(vm), turn(vm))).collect();
        let idle = snapshot.objects.idle(&snapshot.migrations);
        let answer = host_down(&planning.fleet, &host, &turns, &idle)
            .ok_or_else(|| planning.never_reported(name))?;
        let left = after_failure(&planning.fleet, &host, &answer);
        let pool = planning.fleet.hosts.get(&host).map(|host| &host.pool);
        let after = pool.and_then(|pool| {
            let report = answer.after.as_ref()?;
            Some(planning.headroom(&left, report, pool))
        });
        Ok(Self {
            planning,
            host,
            answer,
            after,
        })
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let fleet = &self.planning.fleet;
        let restarts = self.answer.restarts.iter().map(|(uid, choice)| {
            json!({"virtualMachine": fleet.name_of(uid),
            "to": choice.as_ref().ok().map(|choice| choice.host.clone()),
            "why": match choice {
                Ok(choice) => choice.reasons.join("; "),
                Err(refusal) => refusal.sentence(),
            }})
        });
        let restarts: Vec<Value> = restarts.collect();
        let names =
            |uids: &[VmUid]| -> Vec<String> { uids.iter().map(|uid| fleet.name_of(uid)).collect() };
        json!({"host": self.host, "restarts": restarts, "pinned": names(&self.answer.pinned),
            "waitForTheHost": names(&self.answer.wait), "stayShutDown": names(&self.answer.shut_down),
            "after": self.after.as_ref().map(Told::json)})
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = down_table(self.planning, &self.host, &self.answer);
        text.extend(self.after.as_ref().map(|told| told.text(self.planning)));
        text.push_str(&self.planning.nothing_changed());
        text
    }
}

/// The fleet once everything has restarted, without the host.
fn after_failure(fleet: &Fleet, host: &HostName, answer: &HostDown) -> Fleet {
    let mut after = fleet.clone();
    after.hosts.remove(host);
    for (uid, choice) in &answer.restarts {
        if let Some(vm) = after.vms.get_mut(uid) {
            vm.host = choice.as_ref().ok().map(|choice| choice.host.clone());
            vm.incoming = None;
            // It starts anew.
            vm.runs_with.clear();
        }
    }
    after
}

fn down_table(planning: &Planning, host: &HostName, answer: &HostDown) -> String {
    let lost = answer.restarts.iter().filter(|(_, to)| to.is_err()).count();
    let all = answer.restarts.len();
    let mut text = match planning.language {
        Language::English => format!(
            "if host {host} failed: {} of {all} VMs restart elsewhere, {lost} find no place\n",
            all - lost
        ),
        Language::Chinese => format!(
            "若宿主机 {host} 故障:{all} 台虚拟机中 {} 台可在别处重启,{lost} 台找不到位置\n",
            all - lost
        ),
    };
    let mut table = Table::new([
        planning.say("VM", "虚拟机"),
        planning.say("TO", "到"),
        planning.say("WHY", "理由"),
    ]);
    for (uid, choice) in &answer.restarts {
        let (to, why) = match choice {
            Ok(choice) => {
                let why = said::list(planning.language, &choice.reasons);
                (choice.host.to_string(), why)
            }
            Err(refusal) => ("-".to_owned(), planning.told(&refusal.sentence())),
        };
        table.row([planning.fleet.name_of(uid), to, why]);
    }
    text.push_str(&table.render_rows());
    for (uids, english, chinese) in [
        (
            &answer.pinned,
            "waits for the host, its data lies only there:",
            "等待该宿主机(数据只在其上):",
        ),
        (
            &answer.wait,
            "waits for the host, as its owner wants:",
            "等待该宿主机(按其设置):",
        ),
        (
            &answer.shut_down,
            "is shut down, and stays so:",
            "已关机,保持原状:",
        ),
    ] {
        for uid in uids {
            let name = planning.fleet.name_of(uid);
            text.push_str(&format!("{} {name}\n", planning.say(english, chinese)));
        }
    }
    text
}

/// Hosts to be added.
pub struct NewHosts<'a> {
    /// Like this one.
    pub like: Option<&'a str>,
    /// Logical processors.
    pub cpu: Option<u64>,
    /// Memory for VMs, such as `512Gi`.
    pub memory: Option<&'a str>,
    /// Its pool.
    pub pool: Option<&'a str>,
    /// So many.
    pub count: usize,
}

/// Hosts are added.
///
/// # Errors
/// A size or name that can not be used.
pub fn add_hosts(planning: &Planning, new: &NewHosts<'_>) -> Result<()> {
    let host = description(planning, new)?;
    let names = (1..)
        .map(|index| HostName(format!("new-{index}")))
        .filter(|name| !planning.fleet.hosts.contains_key(name));
    let added: Vec<(HostName, Host)> = names
        .take(new.count)
        .map(|name| (name, host.clone()))
        .collect();
    let more = with_hosts(&planning.fleet, &added)
        .ok_or_else(|| planning.fail("a host of that name exists", "已有同名的宿主机"))?;
    let told = |fleet: &Fleet| {
        let report = headroom_report(fleet, &host.pool)?;
        Some(planning.headroom(fleet, &report, &host.pool))
    };
    let (before, after) = (told(&planning.fleet), told(&more));
    let json = json!({"added": added.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "pool": host.pool, "cpu": host.cpu, "memoryBytes": host.memory_bytes,
        "before": before.as_ref().map(Told::json), "after": after.as_ref().map(Told::json)});
    planning.print(&json, || {
        let mut text = match planning.language {
            Language::English => format!(
                "{} hosts of {} processors and {} MiB in pool {}\n",
                new.count,
                host.cpu,
                host.memory_bytes >> 20,
                host.pool
            ),
            Language::Chinese => format!(
                "主机池 {} 增加 {} 台宿主机({} 核、{} MiB)\n",
                host.pool,
                new.count,
                host.cpu,
                host.memory_bytes >> 20
            ),
        };
        for (label, told) in [
            (planning.say("now:", "现在:"), before),
            (planning.say("then:", "之后:"), after),
        ] {
            let told = told.map(|told| told.text(planning)).unwrap_or_default();
            text.push_str(&format!("{label} {told}"));
        }
        text.push_str(&planning.nothing_changed());
        text
    })
}

fn description(planning: &Planning, new: &NewHosts<'_>) -> Result<Host> {
    let like = match new.like {
        Some(name) => planning.fleet.hosts.get(&planning.host(name)?).cloned(),
        None => None,
    };
    let memory = match new.memory {
        Some(text) => Some(
            Bytes::parse(text)
                .map_err(|error| {
                    planning.fail(
                        format!("--memory {text}: {error}; write it like 512Gi"),
                        format!("--memory {text}:不是有效的大小;请写成 512Gi 的形式"),
                    )
                })?
                .0,
        ),
        None => None,
    };
    let pool = match (new.pool, &like) {
        (Some(pool), _) => planning.pools(Some(pool))?.remove(0),
        (None, Some(like)) => like.pool.clone(),
        (None, None) => {
            let mut pools = planning.pools(None)?;
            match (pools.pop(), pools.is_empty()) {
                (Some(pool), true) => pool,
                _ => {
                    return Err(planning.fail(
                        "--pool: name one of the host pools; see kubectl get hp",
                        "--pool:请指定一个主机池;请查看 kubectl get hp",
                    ));
                }
            }
        }
    };
    let (cpu, memory_bytes) = match (&like, new.cpu, memory) {
        (Some(like), cpu, memory) => (cpu.unwrap_or(like.cpu), memory.unwrap_or(like.memory_bytes)),
        (None, Some(cpu), Some(memory)) => (cpu, memory),
        _ => {
            return Err(planning.fail(
                "say --like HOST, or both --cpu and --memory",
                "请给出 --like HOST,或同时给出 --cpu 与 --memory",
            ));
        }
    };
    // A host of the pool reaches what the pool's others reach.
    let peers = planning.fleet.hosts.values();
    let reached = peers.filter(|host| host.pool == pool);
    Ok(Host {
        closed: None,
        stands: true,
        may_fail: true,
        cpu,
        memory_bytes,
        storage_pools: match like {
            Some(like) => like.storage_pools,
            None => reached
                .flat_map(|host| host.storage_pools.iter().cloned())
                .collect(),
        },
        // A host that is yet to come is cabled and set up as its networks ask.
        has_tunnels: true,
        unready_networks: BTreeSet::new(),
        // As the pool asks of every host.
        cpu_models: None,
        pool,
    })
}
