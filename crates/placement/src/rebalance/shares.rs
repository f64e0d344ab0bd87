//! How much of a pool each host carries.

use std::collections::BTreeMap;

use model::HostName;

use crate::engine::Engine;
use crate::fleet::Free;

/// Shares of the hosts of a pool that can both give and receive.
pub(super) struct Shares {
    /// By name: capacity, and what is on it.
    pub(super) hosts: BTreeMap<HostName, (Free, Free)>,
    /// Of all of them.
    capacity: Free,
    used: Free,
}

impl Shares {
    pub(super) fn of(engine: &Engine, pool: &str) -> Self {
        let mut shares = Self {
            hosts: BTreeMap::new(),
            capacity: Free::default(),
            used: Free::default(),
        };
        for (name, number) in engine.pool_hosts(pool) {
            let slot = engine.host(number);
            if slot.kind.is_none() {
                continue;
            }
            let free = slot.free();
            let used = Free {
                cpu: slot.capacity.cpu - free.cpu.min(slot.capacity.cpu),
                memory_bytes: slot.capacity.memory_bytes - free.memory_bytes,
            };
            shares.capacity = sum(shares.capacity, slot.capacity);
            shares.used = sum(shares.used, used);
            shares.hosts.insert(name.clone(), (slot.capacity, used));
        }
        shares
    }

    /// How far a host is from the pool's share, per mille: memory and CPU.
    pub(super) fn distance(&self, capacity: Free, used: Free) -> [i128; 2] {
        let permille =
            |used: u64, capacity: u64| i128::from(used) * 1_000 / i128::from(capacity.max(1));
        [
            permille(used.memory_bytes, capacity.memory_bytes)
                - permille(self.used.memory_bytes, self.capacity.memory_bytes),
            permille(used.cpu, capacity.cpu) - permille(self.used.cpu, self.capacity.cpu),
        ]
    }

    fn squares(&self, capacity: Free, used: Free) -> i128 {
        let distance = self.distance(capacity, used);
        distance.into_iter().map(|share| share * share).sum()
    }

    pub(super) fn total(&self) -> i128 {
        let hosts = self.hosts.values();
        hosts
            .map(|(capacity, used)| self.squares(*capacity, *used))
            .sum()
    }

    /// Root mean square of the distances, per mille.
    pub(super) fn imbalance(&self) -> u64 {
        let values = 2 * self.hosts.len().max(1) as u128;
        let mean = u128::try_from(self.total()).unwrap_or(0) / values;
        u64::try_from(mean.isqrt()).unwrap_or(u64::MAX)
    }

    /// What the sum of squares loses when a VM of this size goes from one host to another.
    pub(super) fn gain(&self, size: Free, from: &HostName, to: &HostName) -> i128 {
        let (Some(giver), Some(taker)) = (self.hosts.get(from), self.hosts.get(to)) else {
            return 0;
        };
        let before = self.squares(giver.0, giver.1) + self.squares(taker.0, taker.1);
        let after =
            self.squares(giver.0, minus(giver.1, size)) + self.squares(taker.0, sum(taker.1, size));
        before - after
    }

    pub(super) fn shift(&mut self, size: Free, from: &HostName, to: &HostName) {
        if let Some((_, used)) = self.hosts.get_mut(from) {
            *used = minus(*used, size);
        }
        if let Some((_, used)) = self.hosts.get_mut(to) {
            *used = sum(*used, size);
        }
    }
}

fn sum(one: Free, two: Free) -> Free {
    Free {
        cpu: one.cpu.saturating_add(two.cpu),
        memory_bytes: one.memory_bytes.saturating_add(two.memory_bytes),
    }
}

fn minus(one: Free, two: Free) -> Free {
    Free {
        cpu: one.cpu.saturating_sub(two.cpu),
        memory_bytes: one.memory_bytes.saturating_sub(two.memory_bytes),
    }
}
