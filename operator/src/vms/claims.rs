//! The claims of a VM on its volumes: written before its rights, released when it has none.

use api::{VirtualMachine, Volume, VolumeStatus};
use kube::ResourceExt;
use model::{Assignment, Claim, ClaimHolder};
use serde_json::json;

use super::judge::{volume, volumes_of};
use crate::runtime::Context;
use crate::writer::{WriteError, logged};

/// What a VM's volumes carry while it may run under a right.
pub fn claim_of(context: &Context, vm: &VirtualMachine, right: &Assignment) -> Claim {
    Claim::of_vm(
        &context.fleet,
        vm.metadata.uid.as_deref().unwrap_or_default(),
        right,
    )
}

/// What came of claiming all volumes of a VM.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed {
    /// All are claimed for the right.
    All,
    /// The caches have not caught up yet: the next turn goes on.
    NotYet,
    /// One is another's; what to do about it.
    Taken(String),
}

/// What claiming one volume takes.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// It is claimed.
    Stands,
    /// It is to be written.
    Write,
    /// Its own claim follows its right in another turn.
    Waits,
    /// Another one's.
    Taken(&'a Claim),
}

fn step<'a>(status: &'a VolumeStatus, wanted: &Claim, arrives: bool) -> Step<'a> {
    let (claim, incoming) = (status.claim.as_ref(), status.incoming_claim.as_ref());
    let another = |claim: &&Claim| (claim.holder, &claim.uid) != (wanted.holder, &wanted.uid);
    let standing = if arrives { incoming } else { claim };
    match claim.into_iter().chain(incoming).find(another) {
        Some(other) => Step::Taken(other),
        None if arrives && claim.is_none() => Step::Waits,
        None if standing == Some(wanted) => Step::Stands,
        None => Step::Write,
    }
}

/// Claims all volumes for a right, in order of uid. To receive a volume is for who holds it: a claim for an arrival
/// alone would put a second writer on another VM's disk.
///
/// # Errors
/// A claim can not be written.
pub async fn claim(
    context: &Context,
    vm: &VirtualMachine,
    right: &Assignment,
    field: &str,
) -> Result<Claimed, WriteError> {
    let Some(mut volumes) = volumes_of(context, vm) else {
        return Ok(Claimed::NotYet);
    };
    volumes.sort_by_key(|volume| volume.metadata.uid.clone());
    let wanted = claim_of(context, vm, right);
    for volume in volumes {
        let status = volume.status.clone().unwrap_or_default();
        match step(&status, &wanted, field == "incomingClaim") {
            Step::Stands => continue,
            Step::Taken(other) => {
                let message = format!(
                    "volume {} is claimed by {:?} {}; detach it there first",
                    volume.name_any(),
                    other.holder,
                    other.uid
                );
                return Ok(Claimed::Taken(message));
            }
            Step::Waits => return Ok(Claimed::NotYet),
            Step::Write if !context.writer.settled(volume.as_ref()) => {
                return Ok(Claimed::NotYet);
            }
            Step::Write => {}
        }
        context
            .writer
            .swap_status(volume.as_ref(), json!({field: wanted}))
            .await?;
    }
    Ok(Claimed::All)
}

/// Releases every claim that this VM holds on its disks.
pub(super) async fn release(context: &Context, vm: &VirtualMachine) {
    for disk in &vm.spec.disks {
        if let Some(volume) = volume(context, vm, &disk.volume)
            && held_by(vm, &volume)
        {
            release_one(context, &volume).await;
        }
    }
}

/// Takes a volume from whoever holds it.
pub(super) async fn release_one(context: &Context, volume: &Volume) {
    let nobody = json!({"claim": null, "incomingClaim": null});
    let result = context.writer.swap_status(volume, nobody).await;
    logged("claim", &volume.name_any(), result);
}

/// A VM holds a volume, or has begun to receive it.
pub(super) fn held_by(vm: &VirtualMachine, volume: &Volume) -> bool {
    let claims = volume.status.iter();
    let mut claims = claims.flat_map(|status| status.claim.iter().chain(&status.incoming_claim));
    claims.any(|claim| {
        claim.holder == ClaimHolder::VirtualMachine && Some(&claim.uid) == vm.metadata.uid.as_ref()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_receives_a_volume_that_another_one_holds() {
        let claim = |uid: &str, epoch: i64| -> Claim {
            serde_json::from_value(json!({"fleet": "f", "holder": "VirtualMachine", "uid": uid, "host": "h1", "bootId": "b", "epoch": epoch}))
                .expect("a claim")
        };
        let (old, wanted, other) = (claim("u", 1), claim("u", 2), claim("w", 1));
        let step = |held: Option<&Claim>, incoming: Option<&Claim>, arrives| {
            let status = VolumeStatus {
                claim: held.cloned(),
                incoming_claim: incoming.cloned(),
                ..VolumeStatus::default()
            };
            format!("{:?}", super::step(&status, &wanted, arrives))
        };
        let taken = format!("{:?}", Step::Taken(&other));
        for arrives in [true, false] {
            assert_eq!(step(Some(&other), None, arrives), taken);
            assert_eq!(step(Some(&old), Some(&other), arrives), taken);
            assert_eq!(step(Some(&old), None, arrives), "Write");
        }
        assert_eq!(step(Some(&other), Some(&wanted), true), taken);
        assert_eq!(step(Some(&old), Some(&wanted), true), "Stands");
        assert_eq!(step(None, None, true), "Waits", "it is not its own yet");
        assert_eq!(step(None, None, false), "Write");
        assert_eq!(step(Some(&wanted), None, false), "Stands");
    }
}
