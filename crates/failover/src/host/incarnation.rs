//! Registration of incarnations: which boot of which machine stands behind a host's name.
//! A new boot id of the same machine retires the old one for ever. Everything doubtful is
//! refused, and gives no proof.

use std::collections::BTreeSet;

use model::BootId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::proof::power::same_machine;

/// One boot of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Boot id of the kernel.
    pub boot_id: BootId,
    /// SMBIOS system UUID.
    pub system_uuid: String,
}

/// System UUIDs that vendors ship on many machines, so they identify none.
const VENDOR_DEFAULTS: [&str; 4] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
];

/// What to do with a report of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Registration {
    /// The accepted incarnation still stands.
    Same,
    /// The first incarnation under this name.
    Accept,
    /// The same machine booted anew: accept it and retire the former boot id.
    Retire(BootId),
    /// The Lease does not carry the reported boot id yet.
    Wait,
    /// Not accepted; the host is quarantined and nothing is proven by it.
    Refuse(IdentityProblem),
}

/// Why a report is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum IdentityProblem {
    /// The UUID identifies nothing.
    #[error(
        "system UUID {0:?} is a vendor's default and identifies no machine; set a unique one in the firmware"
    )]
    VendorDefault(String),
    /// Another host has it.
    #[error("system UUID {uuid} belongs to host {other} already; one of them is a clone")]
    Duplicate {
        /// The UUID.
        uuid: String,
        /// The other host.
        other: String,
    },
    /// Another machine under a used name.
    #[error(
        "the machine with system UUID {reported} reports under a name that belongs to {accepted}; delete the Host and create it anew for a replacement"
    )]
    OtherMachine {
        /// UUID reported.
        reported: String,
        /// UUID accepted.
        accepted: String,
    },
    /// A boot id that was retired shows life.
    #[error(
        "boot {0} was retired and shows life again; two machines use this name, or a disk was cloned"
    )]
    RetiredBoot(BootId),
}

/// Judges a report. `lease_boot_id` is what the guard renews under: a report counts only
/// when both programs of the host name the same boot. `others` are the UUIDs of all other
/// hosts with their names.
pub fn register(
    accepted: Option<&Identity>,
    retired: &BTreeSet<BootId>,
    reported: &Identity,
    lease_boot_id: Option<&BootId>,
    others: &[(String, String)],
) -> Registration {
    if VENDOR_DEFAULTS
        .iter()
        .any(|uuid| same_machine(&reported.system_uuid, uuid))
        || !is_uuid(&reported.system_uuid)
    {
        return Registration::Refuse(IdentityProblem::VendorDefault(reported.system_uuid.clone()));
    }
    if let Some((uuid, other)) = others
        .iter()
        .find(|(uuid, _)| same_machine(uuid, &reported.system_uuid))
    {
        return Registration::Refuse(IdentityProblem::Duplicate {
            uuid: uuid.clone(),
            other: other.clone(),
        });
    }
    for boot in std::iter::once(&reported.boot_id).chain(lease_boot_id) {
        if retired.contains(boot)
            && (boot == &reported.boot_id
                || accepted.is_some_and(|a| a.boot_id == reported.boot_id))
        {
            return Registration::Refuse(IdentityProblem::RetiredBoot(boot.clone()));
        }
    }
    if let Some(accepted) = accepted
        && !same_machine(&accepted.system_uuid, &reported.system_uuid)
    {
        return Registration::Refuse(IdentityProblem::OtherMachine {
            reported: reported.system_uuid.clone(),
            accepted: accepted.system_uuid.clone(),
        });
    }
    match accepted {
        Some(accepted) if accepted.boot_id == reported.boot_id => Registration::Same,
        _ if lease_boot_id != Some(&reported.boot_id) => Registration::Wait,
        None => Registration::Accept,
        Some(accepted) => Registration::Retire(accepted.boot_id.clone()),
    }
}

fn is_uuid(text: &str) -> bool {
    same_machine(text, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER: &str = "99999999-2222-3333-4444-555555555555";

    fn identity(boot: &str, uuid: &str) -> Identity {
        Identity {
            boot_id: boot.into(),
            system_uuid: uuid.to_owned(),
        }
    }

    fn judge(
        accepted: Option<&Identity>,
        retired: &[&str],
        reported: &Identity,
        lease: &str,
    ) -> Registration {
        let retired = retired.iter().map(|boot| BootId::from(*boot)).collect();
        register(
            accepted,
            &retired,
            reported,
            Some(&lease.into()),
            &[(OTHER.to_owned(), "h9".to_owned())],
        )
    }

    #[test]
    fn boots_follow_each_other_and_never_come_back() {
        let first = identity("b1", UUID);
        let second = identity("b2", UUID);
        assert_eq!(judge(None, &[], &first, "b1"), Registration::Accept);
        assert_eq!(judge(None, &[], &first, "b0"), Registration::Wait);
        assert_eq!(judge(Some(&first), &[], &first, "b1"), Registration::Same);
        assert_eq!(judge(Some(&first), &[], &second, "b1"), Registration::Wait);
        assert_eq!(
            judge(Some(&first), &[], &second, "b2"),
            Registration::Retire("b1".into())
        );
        assert!(matches!(
            judge(Some(&second), &["b1"], &first, "b1"),
            Registration::Refuse(IdentityProblem::RetiredBoot(_))
        ));
        assert!(
            matches!(
                judge(Some(&second), &["b1"], &second, "b1"),
                Registration::Refuse(IdentityProblem::RetiredBoot(_))
            ),
            "the old boot renews the Lease while the new one reports"
        );
        assert_eq!(
            judge(Some(&second), &["b1", "b0"], &identity("b3", UUID), "b1"),
            Registration::Wait,
            "a Lease not renewed since is only old"
        );
    }

    #[test]
    fn doubtful_machines_are_refused() {
        let first = identity("b1", UUID);
        for uuid in [
            "00000000-0000-0000-0000-000000000000",
            "Not Settable",
            "",
            "03000200-0400-0500-0006-000700080009",
        ] {
            assert!(
                matches!(
                    judge(None, &[], &identity("b", uuid), "b"),
                    Registration::Refuse(IdentityProblem::VendorDefault(_))
                ),
                "{uuid}"
            );
        }
        assert!(matches!(
            judge(None, &[], &identity("b", OTHER), "b"),
            Registration::Refuse(IdentityProblem::Duplicate { .. })
        ));
        let replacement = identity("b2", "77777777-2222-3333-4444-555555555555");
        assert!(matches!(
            judge(Some(&first), &[], &replacement, "b2"),
            Registration::Refuse(IdentityProblem::OtherMachine { .. })
        ));
    }
}
