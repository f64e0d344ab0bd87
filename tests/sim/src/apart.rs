//! The judge of VMs that must be apart. It looks at the guests, and knows no rule of placement.

use std::collections::BTreeMap;

use failover::assignment::Rights;
use model::VmUid;

use crate::faults::Fault;
use crate::machine::DomainState;
use crate::world::World;

/// An operator's process: which one, and which of its runs.
type Process = (usize, u64);

/// What this judge remembers.
#[derive(Clone, Debug, Default)]
pub struct Apart {
    /// Messages were lost, two led at once, or etcd was restored: who places a VM may not know where others are.
    excused: bool,
    /// A watch stood still: its operator knows what it placed itself, and what never went elsewhere.
    stale: bool,
    /// Who made the rights that did not stand at the start, by VM and epoch.
    placed_by: BTreeMap<(VmUid, i64), Process>,
}

impl Apart {
    /// Notes what a fault hides from operators.
    pub(crate) fn note(&mut self, fault: &Fault) {
        match fault {
            Fault::ApiLossy { .. } | Fault::SplitLeaders { .. } | Fault::Restore { .. } => {
                self.excused = true;
            }
            Fault::StaleOperator { .. } => self.stale = true,
            _ => {}
        }
    }

    /// Rights of a VM were written.
    pub(crate) fn rights_changed(&mut self, by: Process, before: &Rights, after: &Rights) {
        let stood = [&before.assignment, &before.incoming];
        for right in [&after.assignment, &after.incoming] {
            if let Some(epoch) = right.as_ref().map(|right| right.epoch.0)
                && !stood.contains(&right)
            {
                let key = (after.vm.clone(), epoch);
                self.placed_by.entry(key).or_insert(by);
            }
        }
    }

    /// Whether whoever placed the later one of two VMs must have known where the other one is.
    fn must_know(&self, one: &(VmUid, i64), two: &(VmUid, i64)) -> bool {
        match (self.placed_by.get(one), self.placed_by.get(two)) {
            (Some(one), Some(two)) => !self.stale || one == two,
            _ => true,
        }
    }
}

impl World {
    /// The look of this judge: no host runs two VMs that must be apart, each under its own right.
    pub(crate) fn look_at_what_is_apart(&mut self) {
        let judge = &self.checker.apart;
        if judge.excused || !self.plan.vms.iter().any(|spec| spec.apart) {
            return;
        }
        let mut here: BTreeMap<usize, Vec<(VmUid, i64)>> = BTreeMap::new();
        let vms = self.api.objects.vms.iter().zip(&self.plan.vms);
        for (vm, _) in vms.filter(|(_, spec)| spec.apart) {
            let Some(right) = &vm.rights.assignment else {
                continue;
            };
            let host = self.index_of(&right.host);
            let runs = self.machines.get(host).is_some_and(|machine| {
                let domain = machine.domains.get(&vm.uid);
                machine.power
                    && domain.is_some_and(|domain| {
                        domain.state == DomainState::Running && domain.epoch == right.epoch
                    })
            });
            if runs {
                let copy = (vm.uid.clone(), right.epoch.0);
                here.entry(host).or_default().push(copy);
            }
        }
        let mut together = None;
        for (host, copies) in &here {
            for (index, one) in copies.iter().enumerate() {
                let mut others = copies[index + 1..].iter();
                if let Some(two) = others.find(|two| judge.must_know(one, two)) {
                    let (one, two) = (&one.0, &two.0);
                    let host = &self.names[*host];
                    together = Some(format!("{one} and {two} must be apart and run on {host}"));
                }
            }
        }
        if let Some(text) = together {
            self.checker.object(self.now, "apart", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Assignment, Epoch};

    use super::*;
    use crate::mutant::Mutant;
    use crate::plan::{Plan, VmSpec};

    /// Two VMs that must be apart, and that begin on one host.
    fn together() -> World {
        let mut plan = Plan::random(1);
        plan.hosts = 3;
        plan.vms = (0..2)
            .map(|volume| VmSpec {
                home: Some(0),
                volume,
                apart: true,
                ..VmSpec::default()
            })
            .collect();
        World::new(plan, Mutant::None, false)
    }

    fn rule(world: &mut World) -> Option<&'static str> {
        world.look_at_what_is_apart();
        let violation = world.checker.violation.take();
        violation.map(|violation| violation.rule)
    }

    #[test]
    fn two_that_must_be_apart_and_run_on_one_host_are_seen() {
        let mut world = together();
        assert_eq!(rule(&mut world), Some("apart"));
        // A copy that is under no right is on its way out.
        world.api.vm(0, None, |vm| {
            vm.rights.assignment = Some(Assignment {
                host: "h2".into(),
                boot_id: "boot".into(),
                epoch: Epoch(2),
            });
        });
        assert_eq!(rule(&mut world), None);
        let mut world = together();
        world.plan.vms[1].apart = false;
        assert_eq!(rule(&mut world), None);
    }

    #[test]
    fn nobody_is_blamed_for_what_it_could_not_know() {
        let span = 1_000;
        let placed = |by: [Process; 2]| {
            let mut world = together();
            for (vm, by) in by.into_iter().enumerate() {
                let after = world.api.objects.vms[vm].rights.clone();
                let before = Rights::none(after.vm.clone());
                world.checker.apart.rights_changed(by, &before, &after);
            }
            world
        };
        let stale = Fault::StaleOperator {
            operator: crate::faults::OperatorIndex(0),
            span,
        };
        for (by, seen) in [([(0, 0), (1, 0)], None), ([(0, 0), (0, 0)], Some("apart"))] {
            let mut world = placed(by);
            assert_eq!(rule(&mut world), Some("apart"), "every watch shows all");
            world.checker.apart.note(&stale);
            assert_eq!(rule(&mut world), seen, "{by:?}");
            world.checker.apart.note(&Fault::ApiLossy { span });
            assert_eq!(rule(&mut world), None, "{by:?}");
        }
    }
}
