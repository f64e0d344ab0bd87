//! A watch over hosts for tests: given facts instead of objects and Leases, and a given time.

use failover::host::machine::HostEvent;
use failover::severity::ReportedFault;

use super::*;

impl HostWatch {
    /// One look at what is so at a moment: what there is to tell of it, and of a storm that stands.
    pub(crate) fn look(
        &mut self,
        facts: &BTreeMap<HostName, HostFacts>,
        (leads, hears): (bool, bool),
        now: Moment,
    ) -> (Vec<HostEvent>, Option<(u32, u32)>) {
        self.facts.clone_from(facts);
        let observer = ObserverFacts {
            can_write: leads,
            hears,
            ..ObserverFacts::default()
        };
        let step = self.machines.step(facts, observer, &Policy::default(), now);
        (step.events, self.told_storm())
    }

    /// An agent reports these faults of its host, and no other.
    pub(crate) fn report(&mut self, host: &HostName, faults: &[ReportedFault], now: Moment) {
        let book = self.books.entry(host.clone()).or_default();
        let boot_id = crate::context_in_memory::BOOT.into();
        let _ = book.observe(&boot_id, faults, None, &Policy::default(), now);
    }
}
