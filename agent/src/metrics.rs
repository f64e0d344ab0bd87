//! Metrics for Prometheus: the agent itself, the host, and each VM by one bulk call.

use std::fmt::Write;
use std::sync::LazyLock;

use prometheus::{Encoder, IntCounter, TextEncoder, register_int_counter};

use crate::agent::Context;

/// Turns of the converge loop.
pub static TURNS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("zhengyun_agent_turns_total", "Turns of the converge loop")
        .unwrap_or_else(|_| {
            IntCounter::new("zhengyun_agent_turns_total", "x").unwrap_or_else(|_| unreachable!())
        })
});

/// Families of a VM: name, kind, help.
const FAMILIES: [(&str, &str, &str); 10] = [
    (
        "zhengyun_vm_cpu_seconds_total",
        "counter",
        "Processor time of a VM",
    ),
    (
        "zhengyun_vm_memory_resident_bytes",
        "gauge",
        "Resident memory of a VM's process",
    ),
    (
        "zhengyun_vm_block_read_bytes_total",
        "counter",
        "Bytes read from a disk",
    ),
    (
        "zhengyun_vm_block_written_bytes_total",
        "counter",
        "Bytes written to a disk",
    ),
    (
        "zhengyun_vm_block_reads_total",
        "counter",
        "Read requests to a disk",
    ),
    (
        "zhengyun_vm_block_writes_total",
        "counter",
        "Write requests to a disk",
    ),
    (
        "zhengyun_vm_network_receive_bytes_total",
        "counter",
        "Bytes received by a NIC",
    ),
    (
        "zhengyun_vm_network_transmit_bytes_total",
        "counter",
        "Bytes sent by a NIC",
    ),
    (
        "zhengyun_vm_network_receive_packets_total",
        "counter",
        "Packets received by a NIC",
    ),
    (
        "zhengyun_vm_network_transmit_packets_total",
        "counter",
        "Packets sent by a NIC",
    ),
];

fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics as Prometheus reads them.
pub async fn text(context: &Context) -> String {
    let mut bytes = Vec::new();
    let encoded = TextEncoder::new().encode(&prometheus::gather(), &mut bytes);
    let mut text = if encoded.is_ok() {
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::new()
    };
    let (domains, stats) = (
        context.hypervisor.list().await.unwrap_or_default(),
        context.hypervisor.stats().await,
    );
    let up = u8::from(stats.is_ok());
    let _ = write!(
        text,
        "# HELP zhengyun_hypervisor_up libvirt answers\n# TYPE zhengyun_hypervisor_up gauge\nzhengyun_hypervisor_up {up}\n"
    );
    let stats = stats.unwrap_or_default();
    for (index, (name, kind, help)) in FAMILIES.iter().enumerate() {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for stat in &stats {
            let owner = domains
                .iter()
                .find(|domain| domain.uuid == stat.uuid)
                .and_then(|domain| domain.owner.as_ref());
            let Some(owner) = owner else { continue };
            let labels = format!(
                "namespace=\"{}\",vm=\"{}\"",
                label(&owner.namespace),
                label(&owner.name)
            );
            match index {
                0 => {
                    let _ = writeln!(
                        text,
                        "{name}{{{labels}}} {}",
                        stat.cpu_nanoseconds as f64 / 1e9
                    );
                }
                1 => {
                    let _ = writeln!(text, "{name}{{{labels}}} {}", stat.resident_kib * 1024);
                }
                2..=5 => {
                    for device in &stat.blocks {
                        let value = [
                            device.in_bytes,
                            device.out_bytes,
                            device.in_count,
                            device.out_count,
                        ][index - 2];
                        let _ = writeln!(
                            text,
                            "{name}{{{labels},device=\"{}\"}} {value}",
                            label(&device.name)
                        );
                    }
                }
                _ => {
                    for device in &stat.nics {
                        let value = [
                            device.in_bytes,
                            device.out_bytes,
                            device.in_count,
                            device.out_count,
                        ][index - 6];
                        let _ = writeln!(
                            text,
                            "{name}{{{labels},device=\"{}\"}} {value}",
                            label(&device.name)
                        );
                    }
                }
            }
        }
    }
    text
}
