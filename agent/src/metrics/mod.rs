//! Metrics for Prometheus: the agent itself, the host and its hardware, and each VM by one bulk call.

mod host;
mod page;
mod vm;

use std::sync::LazyLock;

use prometheus::{Encoder, IntCounter, TextEncoder, register_int_counter};

use self::page::Page;
use crate::agent::Context;
use crate::hardware_report;

/// Turns of the converge loop.
pub static TURNS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("zhengyun_agent_turns_total", "Turns of the converge loop")
        .unwrap_or_else(|_| {
            IntCounter::new("zhengyun_agent_turns_total", "x").unwrap_or_else(|_| unreachable!())
        })
});

/// All metrics as Prometheus reads them.
pub async fn text(context: &Context) -> String {
    let mut bytes = Vec::new();
    let mut page = match TextEncoder::new().encode(&prometheus::gather(), &mut bytes) {
        Ok(()) => Page::beginning(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            tracing::warn!(%error, "the agent's own metrics are left out");
            Page::default()
        }
    };
    let (domains, stats) = (
        context.hypervisor.list().await,
        context.hypervisor.stats().await,
    );
    let name = "zhengyun_hypervisor_up";
    page.family(name, "libvirt answers");
    page.sample(name, &[], f64::from(u8::from(stats.is_ok())));
    vm::add(
        &mut page,
        &domains.unwrap_or_default(),
        &stats.unwrap_or_default(),
    );
    host::add(&mut page);
    let hardware = hardware_report::current();
    host::add_hardware(&mut page, &hardware.faults, &hardware.readings);
    page.into_text()
}
