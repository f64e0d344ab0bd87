//! How fast a guest writes to its memory, by QEMU's page sampling: it hashes a sample of the pages, 512 of each GiB, twice,
//! a second apart. Writes are not tracked for it, so it costs the guest nothing, and moves of emulated guests, which
//! tracking can harm (see `emulation`), are as they were.

use std::time::Duration;

use uuid::Uuid;
use virt::sys;

use super::{ASK, LibvirtHypervisor, ffi, list};
use crate::types::{DomainState, Error, Result};

/// What libvirt calls it.
const CALL: &str = "dirty rate";
/// Between two looks whether the sample is there. QEMU takes a second for it.
const LOOK: Duration = Duration::from_millis(200);

impl LibvirtHypervisor {
    /// Has it sampled, and waits for the answer.
    pub(super) async fn sample_dirty_rate(&self, uuid: Uuid) -> Result<u64> {
        let start =
            ffi::start_dirty_rate_call().ok_or_else(|| failed("libvirt is older than 7.2"))?;
        let begun = self.on_domain(CALL, ASK, uuid, move |domain| {
            let (state, reason) = ffi::state(domain)?;
            if list::state_of(state, reason) != DomainState::Running {
                return Ok(false);
            }
            ffi::start_dirty_rate(domain, start).map(|()| true)
        });
        if !begun.await? {
            return Err(Error::Refused {
                uuid,
                why: "is not running; only a running guest writes".to_owned(),
            });
        }
        let begin = tokio::time::Instant::now();
        while begin.elapsed() < ASK {
            tokio::time::sleep(LOOK).await;
            let numbers = self.on_domain(CALL, ASK, uuid, ffi::dirty_rate).await?;
            if let Some(answer) = sampled(&numbers) {
                return answer;
            }
        }
        Err(Error::TimedOut {
            call: CALL,
            seconds: ASK.as_secs(),
        })
    }
}

fn failed(message: &str) -> Error {
    Error::Failed {
        call: CALL,
        message: message.to_owned(),
    }
}

/// What libvirt tells of a sample: MiB per second; none while it is being taken.
fn sampled(numbers: &ffi::Numbers) -> Option<Result<u64>> {
    let Some(status) = numbers.get("dirtyrate.calc_status") else {
        // Gone, or its monitor is busy with something else.
        return Some(Err(failed("libvirt tells nothing of it")));
    };
    if *status != u64::from(sys::VIR_DOMAIN_DIRTYRATE_MEASURED) {
        return None;
    }
    let rate = numbers.get("dirtyrate.megabytes_per_second").copied();
    Some(rate.ok_or_else(|| failed("QEMU found no page to sample")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(numbers: &[(&str, u64)]) -> Option<Result<u64>> {
        let numbers = numbers
            .iter()
            .map(|(name, value)| (name.to_string(), *value));
        sampled(&numbers.collect())
    }

    #[test]
    fn a_sample_is_waited_for_until_it_is_there_or_can_not_be_had() {
        const STATUS: &str = "dirtyrate.calc_status";
        const RATE: &str = "dirtyrate.megabytes_per_second";
        for under_way in [
            sys::VIR_DOMAIN_DIRTYRATE_UNSTARTED,
            sys::VIR_DOMAIN_DIRTYRATE_MEASURING,
        ] {
            let status = u64::from(under_way);
            assert_eq!(told(&[(STATUS, status)]), None, "{under_way}");
            // That of an earlier sample.
            assert_eq!(told(&[(STATUS, status), (RATE, 7)]), None, "{under_way}");
        }
        let done = u64::from(sys::VIR_DOMAIN_DIRTYRATE_MEASURED);
        assert_eq!(told(&[(STATUS, done), (RATE, 0)]), Some(Ok(0)));
        assert_eq!(told(&[(STATUS, done), (RATE, 70)]), Some(Ok(70)));
        assert!(matches!(told(&[(STATUS, done)]), Some(Err(_))));
        assert!(matches!(told(&[]), Some(Err(_))));
    }
}
