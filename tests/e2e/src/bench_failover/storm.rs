//! Half of the hosts fall silent together: nobody is forced off within the storm guard's minute. After it
//! the guard releases fences by design, one at a time; those are measured apart.

use std::time::{Duration, Instant};

use anyhow::Result;
use api::{Host, Incident};
use kube::{Api, ResourceExt};
use lab::judges::now;
use lab::{Fault, Lab, host};

use super::Table;
use crate::power::fences;
use crate::watch::hosts;

/// Within it nothing may be forced off: longer than every time-out of a single host, and less than the
/// storm guard's minute.
const HELD: Duration = Duration::from_secs(45);
/// The storm guard releases a fence after so long without a new silence, seconds
/// (`storm_release_milliseconds` of `failover::Policy`).
const RELEASE: f64 = 60.0;
/// From the silence until the released fences were looked for: the release, the fence of each host until
/// it is proven, one after another.
const LOOKED_FOR: Duration = Duration::from_secs(150);
/// Two commands closer than this were sent together, seconds: between them a power reading must show Off.
const TOGETHER: f64 = 0.3;
/// How often the machines' own record of power is read.
const LOOK: Duration = Duration::from_millis(250);

async fn incidents(lab: &Lab) -> Result<usize> {
    let api: Api<Incident> = Api::all(lab.client.clone());
    Ok(api.list(&Default::default()).await?.items.len())
}

pub(super) async fn half_silent(lab: &Lab, table: &mut Table) -> Result<()> {
    let names: Vec<String> = hosts(&lab.client)
        .await?
        .iter()
        .map(Host::name_any)
        .collect();
    let half = &names[..names.len() / 2];
    let (before, told) = (fences(lab)?.len(), incidents(lab).await?);
    for name in half {
        lab.fault(Some(name), Fault::KernelHang)?;
    }
    let (silent, begin) = (now(), Instant::now());
    tokio::time::sleep(HELD).await;
    let held = fences(lab)?.len() - before;
    let what = format!("half of hosts silent {} s: fences", HELD.as_secs());
    table.add(&what, "0", held.to_string(), held == 0);
    let mut forced = Vec::new();
    while forced.len() < half.len() && begin.elapsed() < LOOKED_FOR {
        tokio::time::sleep(LOOK).await;
        forced = fences(lab)?.split_off(before);
    }
    let after: Vec<f64> = forced
        .iter()
        .map(|at| at.saturating_sub(silent) as f64 / 1e9)
        .collect();
    table.add(
        "half of hosts silent: fences released by the guard",
        "≥ 60 s, one by one",
        shown(&after),
        is_release(&after, half.len()),
    );
    let told = incidents(lab).await? - told;
    table.add(
        "half of hosts silent: Incidents",
        "1",
        told.to_string(),
        told == 1,
    );
    for name in half {
        // What stood still in a host that was forced off is gone with it.
        if host::is_on(&lab.files, name) {
            lab.heal(Some(name), Fault::KernelHang)?;
        }
    }
    Ok(())
}

/// Whether fences, in seconds since the silence, are those of a release: every silent host, none before
/// the minute, no two together.
fn is_release(after: &[f64], silent: usize) -> bool {
    let late = after.iter().all(|seconds| *seconds >= RELEASE);
    let apart = after.windows(2).all(|pair| pair[1] - pair[0] >= TOGETHER);
    after.len() == silent && late && apart
}

fn shown(after: &[f64]) -> String {
    if after.is_empty() {
        return format!("none within {} s", LOOKED_FOR.as_secs());
    }
    let times: Vec<String> = after.iter().map(|at| format!("{at:.1}")).collect();
    format!("after {} s", times.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_late_one_by_one_and_of_every_silent_host() {
        assert!(is_release(&[63.2, 71.0], 2));
        assert!(!is_release(&[59.0, 71.0], 2), "before the minute");
        assert!(!is_release(&[63.2, 63.3], 2), "together");
        assert!(!is_release(&[63.2], 2), "one was never released");
        assert!(!is_release(&[], 2));
        assert_eq!(shown(&[]), "none within 150 s");
        assert_eq!(shown(&[63.24, 71.0]), "after 63.2, 71.0 s");
    }
}
