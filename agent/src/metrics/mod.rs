//! Metrics for Prometheus: the agent itself, the host and its hardware, and each VM by one bulk call.

mod host;
mod page;
mod vm;

use std::sync::LazyLock;

use prometheus::{Encoder, IntCounter, TextEncoder, register_int_counter};

use self::page::Page;
use crate::agent::Context;
use crate::certificates::Expiry;
use crate::hardware_report;

/// Turns of the converge loop.
pub static TURNS: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("zhengyun_agent_turns_total", "Turns of the converge loop")
        .unwrap_or_else(|_| {
            IntCounter::new("zhengyun_agent_turns_total", "x").unwrap_or_else(|_| unreachable!())
        })
});

/// Adds when each certificate of this host expires; one that can not be read is in the host's report.
fn add_certificates(page: &mut Page, expiries: &[Expiry]) {
    let name = "zhengyun_certificate_expiry_timestamp_seconds";
    page.family(name, "When a certificate expires, seconds since 1970");
    for (certificate, expiry) in expiries {
        if let Ok(at) = expiry {
            page.sample(name, &[("certificate", certificate)], *at as f64);
        }
    }
}

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
    add_certificates(&mut page, &context.certificates.expiries());
    vm::add(
        &mut page,
        &domains.unwrap_or_default(),
        &stats.unwrap_or_default(),
        &context.dirty_rates.current(),
    );
    host::add(&mut page);
    let hardware = hardware_report::current();
    host::add_hardware(&mut page, &hardware.faults, &hardware.readings);
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_that_could_be_read_tells_when_it_expires() {
        let mut page = Page::default();
        let broken = Err("no certificate in PEM".to_owned());
        add_certificates(&mut page, &[("api", Ok(1_893_456_000)), ("agent", broken)]);
        let text = page.into_text();
        assert!(
            text.contains(
                "zhengyun_certificate_expiry_timestamp_seconds{certificate=\"api\"} 1893456000\n"
            ),
            "{text}"
        );
        assert!(!text.contains("certificate=\"agent\""), "{text}");
    }
}
