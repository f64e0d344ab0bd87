//! N+1 counted anew, from what the API server shows and by no code of the product: if a host dies, its VMs fit
//! on the others as they stand.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use kube::ResourceExt;
use lab::Lab;

use crate::hands::host_of;
use crate::watch::{hosts, vms};

/// Processors and memory (bytes) of a VM, or what a host has left of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Size {
    memory: u64,
    cpu: u64,
}

/// Every host may die: its VMs fit on the others.
///
/// # Errors
/// The first host whose VMs do not, or a size that can not be read.
pub async fn any_host_may_die(lab: &Lab) -> Result<()> {
    let mut capacity = BTreeMap::new();
    for host in hosts(&lab.client).await? {
        let report = host
            .status
            .as_ref()
            .and_then(|status| status.reported.as_ref());
        let offered = &report.context("a host reports its capacity")?.capacity;
        let size = Size {
            memory: bytes(&offered.memory)?,
            cpu: u64::try_from(offered.cpu)?,
        };
        capacity.insert(host.name_any(), size);
    }
    let mut carried: BTreeMap<String, Vec<Size>> = BTreeMap::new();
    for vm in vms(&lab.client).await? {
        let size = Size {
            memory: bytes(&vm.spec.memory)?,
            cpu: u64::try_from(vm.spec.cpu)?,
        };
        if let Some(host) = host_of(&vm) {
            carried.entry(host.to_owned()).or_default().push(size);
        }
    }
    ensure!(!carried.is_empty(), "no host carries a VM");
    for (dead, homeless) in &carried {
        let mut rooms = Vec::new();
        for (host, size) in capacity.iter().filter(|(host, _)| *host != dead) {
            let used = carried.get(host).map(Vec::as_slice).unwrap_or_default();
            rooms.push(left(*size, used).with_context(|| format!("{host} carries too much"))?);
        }
        ensure!(
            fit(homeless, rooms),
            "if {dead} dies, its {} VMs do not fit on the others: {carried:?} on {capacity:?}",
            homeless.len()
        );
    }
    println!("each of {} hosts may die, counted anew", capacity.len());
    Ok(())
}

fn left(mut room: Size, used: &[Size]) -> Option<Size> {
    for vm in used {
        room.memory = room.memory.checked_sub(vm.memory)?;
        room.cpu = room.cpu.checked_sub(vm.cpu)?;
    }
    Some(room)
}

/// First fit, the largest first: each VM goes to the first host that has room for it.
fn fit(vms: &[Size], mut rooms: Vec<Size>) -> bool {
    let mut vms = vms.to_vec();
    vms.sort_unstable_by(|a, b| b.cmp(a));
    vms.iter().all(|vm| {
        let place = rooms.iter_mut().find_map(|room| {
            let rest = left(*room, std::slice::from_ref(vm))?;
            Some((room, rest))
        });
        place.is_some_and(|(room, rest)| {
            *room = rest;
            true
        })
    })
}

/// Bytes of a size such as `160Mi`.
fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        unit => bail!("{text}: {unit} is no unit that this judge knows"),
    };
    let number: u64 = digits
        .parse()
        .with_context(|| format!("{text} is no size"))?;
    Ok(number << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(mebibytes: u64, cpu: u64) -> Size {
        Size {
            memory: mebibytes << 20,
            cpu,
        }
    }

    #[test]
    fn what_does_not_fit_is_red() {
        let three = [size(160, 1); 3];
        assert!(fit(&three, vec![size(192, 8), size(320, 8)]));
        assert!(!fit(&three, vec![size(192, 8), size(300, 8)]), "memory");
        assert!(!fit(&three, vec![size(192, 1), size(320, 1)]), "processors");
        // The largest first: 200 finds its place before 100 takes it.
        let mixed = [size(100, 1), size(200, 1)];
        assert!(fit(&mixed, vec![size(200, 8), size(100, 8)]));
        assert_eq!(left(size(100, 1), &[size(160, 1)]), None);
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("160Mi").ok(), Some(160 << 20));
        assert_eq!(bytes("1536").ok(), Some(1536));
        assert!(bytes("1 Ei").is_err() && bytes("Mi").is_err());
    }
}
