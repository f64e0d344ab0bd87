//! The site as `placement` reads it.

use std::collections::{BTreeMap, BTreeSet};

use failover::Moment;
use model::{Architecture, BootId, HostName, NamespacedName, Zone};
use placement::Fleet;

use super::seats::keep_seats;
use crate::world::World;

/// Memory of every VM, bytes; hosts have room for so many of them as the plan says.
const VM_MEMORY: u64 = 4 << 30;

impl World {
    /// The fleet as `placement` reads it, with the seats that the cache does not show yet.
    pub(super) fn fleet(&self, operator: usize, now: Moment) -> Fleet {
        let mut fleet = Fleet::default();
        let this = &self.operators[operator];
        fleet.pools.insert(
            "pool".to_owned(),
            placement::Pool {
                zones: BTreeSet::from([Zone::Common]),
                architecture: Architecture::x86_64,
                cpu_model: None,
                cpu_overcommit_percent: 100,
                memory_overcommit_percent: 100,
                failures_to_tolerate: 0,
                mlps_grade: 3,
            },
        );
        for (host, name) in self.names.iter().enumerate() {
            // What a former boot said of itself does not hold for this one.
            let forbidden = this.cache.hosts.get(host).is_some_and(|object| {
                let said = object.starts_nothing.as_ref();
                said.is_some_and(|boot| {
                    object.accepted.as_ref().map(|it| &it.boot_id) == Some(boot)
                })
            });
            let placeable = self.placeable(operator, name, now);
            fleet.hosts.insert(
                name.clone(),
                placement::Host {
                    pool: "pool".to_owned(),
                    stands: placeable.is_ok(),
                    may_fail: placeable.is_ok(),
                    closed: placeable
                        .err()
                        .or_else(|| forbidden.then(|| "it starts nothing".to_owned())),
                    cpu: 1_000,
                    memory_bytes: self.plan.room * VM_MEMORY + (1 << 20),
                    storage_pools: BTreeSet::from(["shared".to_owned()]),
                    has_tunnels: true,
                    unready_networks: BTreeSet::new(),
                    cpu_models: None,
                },
            );
        }
        for (index, vm) in this
            .cache
            .vms
            .iter()
            .enumerate()
            .filter(|(_, vm)| vm.exists)
        {
            let spec = &self.plan.vms[index];
            fleet.vms.insert(
                vm.uid.clone(),
                Box::new(placement::Vm {
                    name: NamespacedName::new("site", vm.uid.as_str()),
                    cpu: 1,
                    memory_bytes: VM_MEMORY,
                    zones: BTreeSet::from([Zone::Common]),
                    networks: Default::default(),
                    needs_tunnels: true,
                    architecture: Architecture::x86_64,
                    runs_with: Default::default(),
                    storage_pools: BTreeSet::from(["shared".to_owned()]).into(),
                    new_volumes: BTreeMap::new(),
                    pinned_to: self.pinned(index),
                    mlps_grade: 2,
                    rules: if spec.apart {
                        placement::Rules::kept_apart("apart")
                    } else {
                        placement::Rules::default()
                    },
                    restarts_elsewhere: !spec.stays,
                    host: vm
                        .rights
                        .assignment
                        .as_ref()
                        .map(|right| right.host.clone()),
                    incoming: vm.rights.incoming.as_ref().map(|right| right.host.clone()),
                }),
            );
        }
        keep_seats(&mut fleet, self.kept_seats(operator));
        fleet
    }

    /// The accepted incarnation of a host that may take VMs now, or why it may not.
    pub(super) fn placeable(
        &self,
        operator: usize,
        host: &HostName,
        now: Moment,
    ) -> Result<BootId, String> {
        let this = &self.operators[operator];
        let facts = this.facts.get(host).ok_or("not registered")?;
        let view = this
            .hosts
            .view(host, facts, &self.policy, now)
            .ok_or("not watched yet")?;
        if let Some(reason) = view.not_placeable {
            return Err(reason.key());
        }
        facts
            .identity
            .as_ref()
            .map(|identity| identity.boot_id.clone())
            .ok_or_else(|| "not registered".to_owned())
    }
}
