//! Judges what was decided: where VMs are that were not there before.

use super::Violation;
use crate::fleet::Fleet;

/// VMs that came to a host on which nothing new may be placed, or to one that there is not.
pub fn lint_change(before: &Fleet, after: &Fleet) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (uid, vm) in &after.vms {
        let known = before.vms.get(uid);
        let known: Vec<_> = known
            .iter()
            .flat_map(|vm| vm.host.iter().chain(&vm.incoming))
            .collect();
        let came = vm.host.iter().chain(&vm.incoming);
        for name in came.filter(|name| !known.contains(name)) {
            let open = after.hosts.get(name).map(|host| host.closed.is_none());
            let rule = match open {
                Some(true) => continue,
                Some(false) => "closed",
                None => "unknown host",
            };
            violations.push(Violation::Misplaced(uid.clone(), rule));
        }
    }
    violations
}
