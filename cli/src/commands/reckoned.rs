//! What the times of a plan rest on: of how many of its hosts the link is known, and of how many of its VMs how fast
//! they write to their memory.

use std::collections::BTreeSet;

use placement::Plan;
use serde_json::{Value, json};

use super::planning::Planning;
use crate::language::Language;

/// Bits per second of a gigabit per second.
const GIGABIT: f64 = 1e9;

/// What is known of the hosts and VMs of a plan.
#[derive(Debug, PartialEq, Eq)]
pub struct Reckoned {
    hosts: usize,
    links: usize,
    /// What other hosts' links count as, bytes per second.
    link_default: u64,
    vms: usize,
    sampled: usize,
    /// What each move takes besides its copy, milliseconds.
    overhead: u64,
}

impl Reckoned {
    /// Of a plan in which something moves.
    pub fn of(planning: &Planning, plan: &Plan) -> Option<Self> {
        let transfer = (planning.snapshot.objects).transfer(&planning.snapshot.policy());
        let ends = plan.moves.iter().flat_map(|step| [&step.from, &step.to]);
        let hosts: BTreeSet<_> = ends.collect();
        let vms: BTreeSet<_> = plan.moves.iter().map(|step| &step.vm).collect();
        let (links, rates) = (&transfer.limits.links, &transfer.dirty_bytes_per_second);
        (!vms.is_empty()).then(|| Self {
            hosts: hosts.len(),
            links: hosts
                .iter()
                .filter(|name| links.contains_key(**name))
                .count(),
            link_default: transfer.limits.link_default,
            vms: vms.len(),
            sampled: vms.iter().filter(|uid| rates.contains_key(**uid)).count(),
            overhead: transfer.limits.overhead_ms,
        })
    }

    /// For people: one line.
    pub fn text(&self, planning: &Planning) -> String {
        let Self {
            hosts,
            links,
            vms,
            sampled,
            overhead,
            ..
        } = self;
        let overhead = *overhead as f64 / 1_000.0;
        let assumed = format!("{:.1} Gbit/s", self.link_default as f64 * 8.0 / GIGABIT);
        let other_links = match planning.language {
            _ if links == hosts => String::new(),
            Language::English => format!(" (others count as {assumed})"),
            Language::Chinese => format!("(其余按 {assumed} 计)"),
        };
        let other_vms = match planning.language {
            _ if sampled == vms => "",
            Language::English => " (others count as resting)",
            Language::Chinese => "(其余按空闲计)",
        };
        match planning.language {
            Language::English => format!(
                "The times rest on the links of {links} of {hosts} hosts{other_links} and on the memory writes of {sampled} of {vms} VMs{other_vms}; {overhead:.1} s of each are its preparation and hand-over.\n"
            ),
            Language::Chinese => format!(
                "用时依据:{hosts} 台宿主机中 {links} 台的链路{other_links},{vms} 台虚拟机中 {sampled} 台的内存写入{other_vms};每次迁移另计准备与切换 {overhead:.1} 秒。\n"
            ),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({"hosts": self.hosts, "linksReported": self.links, "linkDefaultBytesPerSecond": self.link_default,
            "virtualMachines": self.vms, "memoryWritesMeasured": self.sampled,
            "overheadMilliseconds": self.overhead})
    }
}
