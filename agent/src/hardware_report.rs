//! Keeps what the hardware probes found for the host's report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Fault;

use crate::agent::Context;
use crate::edac;

/// How often the probes run.
const EVERY: Duration = Duration::from_secs(2);

/// Faults and probe errors as last found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Faults that stand.
    pub faults: Vec<Fault>,
    /// Probes that could not be read.
    pub errors: Vec<String>,
}

static CURRENT: Mutex<Findings> = Mutex::new(Findings { faults: Vec::new(), errors: Vec::new() });

/// What was last found.
pub fn current() -> Findings {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Polls for ever.
pub async fn run(context: &Arc<Context>) -> &'static str {
    let mut memory = edac::Memory::default();
    loop {
        let cleared = context.view.host.state().first().and_then(|host| Some(host.spec.fault_clearance.clone()?.at.0));
        let mut findings = Findings::default();
        match edac::read(&context.options.hardware.sysfs_root) {
            Ok(counts) => findings.faults = memory.judge(&counts, cleared, jiff::Timestamp::now()),
            Err(error) => findings.errors.push(error.to_string()),
        }
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = findings;
        tokio::time::sleep(EVERY).await;
    }
}
