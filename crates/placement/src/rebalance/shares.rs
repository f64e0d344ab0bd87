//! How much of a pool each host carries.

use std::collections::BTreeMap;

use model::HostName;

use super::target::Wanted;
use crate::engine::Engine;
use crate::fleet::Free;

/// Shares of the hosts of a pool that can both give and receive.
pub(super) struct Shares {
    /// By name: capacity, and what is on it.
    pub(super) hosts: BTreeMap<HostName, (Free, Free)>,
    /// Shares of all of them together, per mille. Moves within the pool do not change it.
    pub(super) mean: [i64; 2],
}

/// Used memory and CPU, per mille. In 64 bits, since this is asked for every VM and host; a
/// host of more than sixteen pebibytes would look emptier than it is.
fn permille(capacity: Free, used: Free) -> [i64; 2] {
    let share = |used: u64, capacity: u64| {
        let share = used.saturating_mul(1_000) / capacity.max(1);
        i64::try_from(share.min(1_000_000)).unwrap_or(1_000_000)
    };
    [
        share(used.memory_bytes, capacity.memory_bytes),
        share(used.cpu, capacity.cpu),
    ]
}

impl Shares {
    pub(super) fn of(engine: &Engine, pool: &str) -> Self {
        let mut shares = Self {
            hosts: BTreeMap::new(),
            mean: [0, 0],
        };
        let (mut all, mut all_used) = (Free::default(), Free::default());
        for (name, number) in engine.pool_hosts(pool) {
            let slot = engine.host(number);
            if slot.kind.is_none() {
                continue;
            }
            // What is above its capacity counts: that host is the first to give.
            let used = slot.used();
            all = sum(all, slot.capacity);
            all_used = sum(all_used, used);
            shares.hosts.insert(name.clone(), (slot.capacity, used));
        }
        let share = |used: u64, capacity: u64| {
            let share = u128::from(used) * 1_000 / u128::from(capacity.max(1));
            i64::try_from(share.min(1_000_000)).unwrap_or(1_000_000)
        };
        shares.mean = [
            share(all_used.memory_bytes, all.memory_bytes),
            share(all_used.cpu, all.cpu),
        ];
        shares
    }

    /// How far a host is from the pool's share, per mille: memory and CPU.
    fn distance(&self, capacity: Free, used: Free) -> [i64; 2] {
        let [memory, cpu] = permille(capacity, used);
        [memory - self.mean[0], cpu - self.mean[1]]
    }

    fn squares(&self, capacity: Free, used: Free) -> i64 {
        let distance = self.distance(capacity, used);
        distance.into_iter().map(|share| share * share).sum()
    }

    fn total(&self) -> i64 {
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

    /// What the sum of squares loses when a VM of this size goes from one host to another,
    /// each given by its capacity and what is on it.
    pub(super) fn gain(&self, size: Free, from: (Free, Free), to: (Free, Free)) -> i64 {
        self.gain_of_exchange((size, Free::default()), from, to)
    }

    /// The same when two VMs of these sizes change places, the first from one host to the other.
    pub(super) fn gain_of_exchange(
        &self,
        sizes: (Free, Free),
        from: (Free, Free),
        to: (Free, Free),
    ) -> i64 {
        let before = self.squares(from.0, from.1) + self.squares(to.0, to.1);
        let (from_used, to_used) = (
            sum(minus(from.1, sizes.0), sizes.1),
            sum(minus(to.1, sizes.1), sizes.0),
        );
        before - self.squares(from.0, from_used) - self.squares(to.0, to_used)
    }

    /// Capacity and load of the two hosts of a move.
    pub(super) fn both(&self, wanted: &Wanted) -> Option<((Free, Free), (Free, Free))> {
        Some((*self.hosts.get(&wanted.from)?, *self.hosts.get(&wanted.to)?))
    }

    /// Squared distance of two hosts.
    pub(super) fn pair(&self, one: &HostName, two: &HostName) -> i64 {
        let hosts = [one, two]
            .into_iter()
            .filter_map(|name| self.hosts.get(name));
        hosts
            .map(|(capacity, used)| self.squares(*capacity, *used))
            .sum()
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
