//! Families of VMs, from one bulk call; and how fast they write to their memory, as last sampled.

use std::collections::BTreeMap;

use hypervisor::{Domain, DomainStats, IoStats};
use uuid::Uuid;

use super::page::Page;

/// What is read of a device.
type Figure = fn(&IoStats) -> u64;

/// Of disks: read is what comes in.
const BLOCK: [(&str, &str, Figure); 4] = [
    (
        "zhengyun_vm_block_read_bytes_total",
        "Bytes read from a disk",
        |device| device.in_bytes,
    ),
    (
        "zhengyun_vm_block_written_bytes_total",
        "Bytes written to a disk",
        |device| device.out_bytes,
    ),
    (
        "zhengyun_vm_block_reads_total",
        "Read requests to a disk",
        |device| device.in_count,
    ),
    (
        "zhengyun_vm_block_writes_total",
        "Write requests to a disk",
        |device| device.out_count,
    ),
];

const NETWORK: [(&str, &str, Figure); 4] = [
    (
        "zhengyun_vm_network_receive_bytes_total",
        "Bytes received by a NIC",
        |device| device.in_bytes,
    ),
    (
        "zhengyun_vm_network_transmit_bytes_total",
        "Bytes sent by a NIC",
        |device| device.out_bytes,
    ),
    (
        "zhengyun_vm_network_receive_packets_total",
        "Packets received by a NIC",
        |device| device.in_count,
    ),
    (
        "zhengyun_vm_network_transmit_packets_total",
        "Packets sent by a NIC",
        |device| device.out_count,
    ),
];

/// Adds the families of every VM of ours. `dirty_rates` are MiB per second.
pub fn add(
    page: &mut Page,
    domains: &[Domain],
    stats: &[DomainStats],
    dirty_rates: &BTreeMap<Uuid, u64>,
) {
    let vms: Vec<(&str, &str, &DomainStats)> = stats
        .iter()
        .filter_map(|stat| {
            let domain = domains.iter().find(|domain| domain.uuid == stat.uuid)?;
            let owner = domain.owner.as_ref()?;
            Some((owner.namespace.as_str(), owner.name.as_str(), stat))
        })
        .collect();
    let name = "zhengyun_vm_cpu_seconds_total";
    page.family(name, "Processor time of a VM");
    for (namespace, vm, stat) in &vms {
        let seconds = stat.cpu_nanoseconds as f64 / 1e9;
        page.sample(name, &[("namespace", namespace), ("vm", vm)], seconds);
    }
    let name = "zhengyun_vm_memory_resident_bytes";
    page.family(name, "Resident memory of a VM's process");
    for (namespace, vm, stat) in &vms {
        let bytes = stat.resident_kib as f64 * 1024.0;
        page.sample(name, &[("namespace", namespace), ("vm", vm)], bytes);
    }
    let name = "zhengyun_vm_memory_dirty_bytes_per_second";
    page.family(
        name,
        "How fast a VM writes to its memory, as sampled now and then",
    );
    for (namespace, vm, stat) in &vms {
        if let Some(mebibytes) = dirty_rates.get(&stat.uuid) {
            let bytes = *mebibytes as f64 * 1024.0 * 1024.0;
            page.sample(name, &[("namespace", namespace), ("vm", vm)], bytes);
        }
    }
    devices(page, &vms, &BLOCK, |stat| &stat.blocks);
    devices(page, &vms, &NETWORK, |stat| &stat.nics);
}

fn devices(
    page: &mut Page,
    vms: &[(&str, &str, &DomainStats)],
    families: &[(&str, &str, Figure)],
    of: fn(&DomainStats) -> &[IoStats],
) {
    for (name, help, figure) in families {
        page.family(name, help);
        for (namespace, vm, stat) in vms {
            for device in of(stat) {
                let labels = [
                    ("namespace", *namespace),
                    ("vm", *vm),
                    ("device", device.name.as_str()),
                ];
                page.sample(name, &labels, figure(device) as f64);
            }
        }
    }
}
