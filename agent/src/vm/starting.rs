//! The start of a domain under an epoch that was taken. A start has a deadline: past it, and after
//! every failure, the epoch is closed before anything else, so that a start which libvirt completes
//! later meets the hook, which refuses it.

use std::time::Duration;

use hypervisor::{DomainSpec, Hypervisor};

use crate::ledger::Ledger;

/// How long libvirt may take to start a domain; a loaded machine may take long.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Starts a domain.
///
/// # Errors
/// What libvirt said, or that it did not end in time. The epoch is closed; that no domain is left is
/// still to be seen to.
pub async fn start(
    hypervisor: &dyn Hypervisor,
    ledger: &Ledger,
    spec: &DomainSpec,
    deadline: Duration,
) -> Result<(), String> {
    let failed = match tokio::time::timeout(deadline, hypervisor.start(spec)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the start did not end within {} s", deadline.as_secs()),
    };
    if let Err(error) = ledger.close(spec.owner.vm.as_str(), spec.owner.epoch.0) {
        // Whoever closes the copy next tries again, and reports nothing before it is closed.
        tracing::error!(%error, "the epoch of a start that failed is not closed yet");
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover::agent::ledger::EpochState;
    use hypervisor::Owner;
    use hypervisor::memory::{Fault, MemoryFabric};
    use model::Epoch;

    const DEADLINE: Duration = Duration::from_millis(200);

    fn spec() -> DomainSpec {
        DomainSpec {
            uuid: uuid::Uuid::from_u128(7),
            name: "n.v".to_owned(),
            owner: Owner {
                vm: "u1".into(),
                namespace: "n".to_owned(),
                name: "v".to_owned(),
                boot_id: "b1".into(),
                epoch: Epoch(3),
            },
            domain_type: "memory".to_owned(),
            architecture: "x86_64".to_owned(),
            cpu_model: None,
            cpus: 1,
            memory_kib: 1024,
            boot: None,
            disks: Vec::new(),
            nics: Vec::new(),
            console_log: None,
        }
    }

    #[tokio::test]
    async fn a_start_that_hangs_closes_its_epoch_at_the_deadline() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        ledger.take("u1", 3, 0).expect("use");
        let host = MemoryFabric::default().host("h1");
        host.set_fault(Fault::StartHangs);
        let begun = std::time::Instant::now();
        let failed = start(&host, &ledger, &spec(), DEADLINE).await;
        assert!(failed.expect_err("it hangs").contains("did not end within"));
        assert!(begun.elapsed() < DEADLINE * 20);
        let entry = ledger.entry("u1").expect("entry");
        assert_eq!(entry.state(3), Some(EpochState::Closed));
        // libvirt goes on after all: the hook asks the ledger.
        ledger.start("u1", 3).expect_err("closed is for ever");
    }

    #[tokio::test]
    async fn a_start_that_works_leaves_its_epoch_open_and_one_that_fails_closes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(folder.path());
        ledger.take("u1", 3, 0).expect("use");
        let host = MemoryFabric::default().host("h1");
        let started = start(&host, &ledger, &spec(), DEADLINE).await;
        started.expect("it starts");
        let state = || ledger.entry("u1").expect("entry").state(3);
        assert_eq!(state(), Some(EpochState::Used));
        let again = start(&host, &ledger, &spec(), DEADLINE).await;
        again.expect_err("it is active already");
        assert_eq!(state(), Some(EpochState::Closed));
    }
}
