//! Families of the host: processors, memory, disks and networks by procfs, and what the hardware probes
//! read. Taps of VMs are left out, as VMs have families of their own.

use std::collections::BTreeMap;

use hardware::Reading;
use model::Fault;
use procfs::{Current, CurrentSI};

use super::page::Page;

/// Unit of `/proc/diskstats`, bytes, whatever the disk's own sectors are.
const SECTOR: f64 = 512.0;
/// How taps of VMs begin.
const TAP: &str = "zyt";

/// Adds what the kernel tells of the host. What can not be read is left out and logged.
pub fn add(page: &mut Page) {
    for (what, result) in [
        ("/proc/stat", processors(page)),
        ("/proc/meminfo", memory(page)),
        ("/proc/diskstats", disks(page)),
        ("/proc/net/dev", networks(page)),
    ] {
        if let Err(error) = result {
            tracing::warn!(what, %error, "left out of the metrics");
        }
    }
}

fn processors(page: &mut Page) -> procfs::ProcResult<()> {
    let time = procfs::KernelStats::current()?.total;
    let name = "zhengyun_host_cpu_seconds_total";
    page.family(name, "Processor time of the host by what it was spent on");
    for (mode, milliseconds) in [
        ("user", time.user_ms()),
        ("nice", time.nice_ms()),
        ("system", time.system_ms()),
        ("idle", time.idle_ms()),
        ("iowait", time.iowait_ms().unwrap_or_default()),
        ("irq", time.irq_ms().unwrap_or_default()),
        ("softirq", time.softirq_ms().unwrap_or_default()),
        ("steal", time.steal_ms().unwrap_or_default()),
    ] {
        page.sample(name, &[("mode", mode)], milliseconds as f64 / 1e3);
    }
    Ok(())
}

fn memory(page: &mut Page) -> procfs::ProcResult<()> {
    let memory = procfs::Meminfo::current()?;
    for (name, help, bytes) in [
        (
            "zhengyun_host_memory_bytes",
            "Memory of the host",
            Some(memory.mem_total),
        ),
        (
            "zhengyun_host_memory_available_bytes",
            "Memory that can be used without swapping",
            memory.mem_available,
        ),
    ] {
        if let Some(bytes) = bytes {
            page.family(name, help);
            page.sample(name, &[], bytes as f64);
        }
    }
    Ok(())
}

fn disks(page: &mut Page) -> procfs::ProcResult<()> {
    let disks = procfs::diskstats()?;
    for (name, help, figure) in [
        (
            "zhengyun_host_block_read_bytes_total",
            "Bytes read from a block device of the host",
            (|disk| disk.sectors_read) as fn(&procfs::DiskStat) -> u64,
        ),
        (
            "zhengyun_host_block_written_bytes_total",
            "Bytes written to a block device of the host",
            |disk| disk.sectors_written,
        ),
    ] {
        page.family(name, help);
        for disk in &disks {
            let bytes = figure(disk) as f64 * SECTOR;
            page.sample(name, &[("device", &disk.name)], bytes);
        }
    }
    Ok(())
}

fn networks(page: &mut Page) -> procfs::ProcResult<()> {
    let devices: BTreeMap<String, procfs::net::DeviceStatus> =
        procfs::net::dev_status()?.into_iter().collect();
    for (name, help, figure) in [
        (
            "zhengyun_host_network_receive_bytes_total",
            "Bytes received by a network device of the host",
            (|device| device.recv_bytes) as fn(&procfs::net::DeviceStatus) -> u64,
        ),
        (
            "zhengyun_host_network_transmit_bytes_total",
            "Bytes sent by a network device of the host",
            |device| device.sent_bytes,
        ),
    ] {
        page.family(name, help);
        for (device, status) in devices.iter().filter(|(name, _)| !name.starts_with(TAP)) {
            page.sample(name, &[("device", device)], figure(status) as f64);
        }
    }
    Ok(())
}

/// Adds the faults that stand, by severity, and every figure that the hardware probes read.
pub fn add_hardware(page: &mut Page, faults: &[Fault], readings: &[Reading]) {
    let name = "zhengyun_hardware_faults";
    page.family(name, "Hardware faults that stand");
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.severity).or_insert(0_u32) += 1;
    }
    for (severity, count) in counts {
        let severity = format!("{severity:?}");
        page.sample(name, &[("severity", &severity)], f64::from(count));
    }
    let mut families: BTreeMap<&str, Vec<&Reading>> = BTreeMap::new();
    for reading in readings {
        let family = families.entry(reading.quantity.metric_name()).or_default();
        family.push(reading);
    }
    for (name, readings) in families {
        page.family(name, "Read by the hardware probes");
        for reading in readings {
            page.sample(name, &[("component", &reading.component)], reading.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_this_machine_tells_all_families() {
        let mut page = Page::default();
        add(&mut page);
        let text = page.into_text();
        for name in [
            "zhengyun_host_cpu_seconds_total{mode=\"idle\"}",
            "zhengyun_host_memory_available_bytes ",
            "# TYPE zhengyun_host_block_read_bytes_total counter",
            "zhengyun_host_network_receive_bytes_total{device=\"lo\"}",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }

    #[test]
    fn readings_of_a_quantity_stand_in_one_family() {
        let reading = |component: &str, value| Reading {
            component: component.to_owned(),
            quantity: hardware::Quantity::Temperature,
            value,
        };
        let mut page = Page::default();
        add_hardware(
            &mut page,
            &[],
            &[reading("cpu1", 41.0), reading("cpu2", 43.0)],
        );
        let text = page.into_text();
        let name = hardware::Quantity::Temperature.metric_name();
        assert_eq!(text.matches(&format!("# TYPE {name} gauge")).count(), 1);
        assert!(text.contains(&format!("{name}{{component=\"cpu2\"}} 43\n")));
    }
}
