//! On which pools the guard beats: those that carry heartbeats, and those that carry none any more and by which it is still
//! bound. Whoever watches a host counts what was registered last, and until another registration is acknowledged nobody
//! knows which that is.

use super::Guard;
use super::beater::Beater;
use super::site::Site;
use super::slot::Slots;

impl Guard {
    /// Beats on these pools, under the timers in force.
    pub(super) fn beat(&mut self) {
        if !self.site.left.is_empty() {
            let bound = self.memory.bound().map(|bound| bound.pools);
            let bound = bound.unwrap_or_default();
            self.site.left.retain(|pool, _| bound.contains(pool));
            let site = &self.site;
            self.beaters.retain(|pool, _| site.path(pool).is_some());
        }
        let policy = self.policy();
        for (pool, path) in self.site.pools.iter().chain(&self.site.left) {
            self.beaters.entry(pool.clone()).or_insert_with(|| {
                let slots = Slots::new(path, self.pools_are_mounts);
                let host = self.options.host.as_str().into();
                Beater::start(slots, host, self.boot_id.clone(), policy.clone())
            });
        }
    }

    /// Goes on with what was read; a beater of other timers or of another path begins anew.
    pub(super) fn use_site(&mut self, read: Site) {
        let bound = self.memory.bound().map(|bound| bound.pools);
        let site = read.leaving(&self.site, &bound.unwrap_or_default());
        let timers_changed = self.site.policy != site.policy;
        let old = &self.site;
        self.beaters.retain(|pool, _| {
            let path = site.path(pool);
            path.is_some() && path == old.path(pool) && !timers_changed
        });
        self.site = site;
        self.site_read = true;
        self.beat();
    }
}
