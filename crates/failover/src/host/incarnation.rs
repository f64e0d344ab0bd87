//! Registration of incarnations: which boot of which machine stands behind a host's name.
//! A new boot id of the same machine retires the old one for ever. Everything doubtful is
//! refused, and gives no proof.
//!
//! A machine is known by its system UUID and by the addresses of its NICs: what says the UUID of
//! another one and has none of its NICs is not that one. What else could tell and does not yet is
//! in decision 0023.

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
    /// Hardware addresses of its physical NICs; empty where they are not known.
    #[serde(default)]
    pub mac_addresses: BTreeSet<String>,
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
    /// Another boot with the UUID of the accepted one, on a machine that has none of its NICs.
    #[error(
        "status.reported.incarnation.nicAddresses: this boot has the NICs {reported}, none of those that were registered with this name and system UUID ({accepted}), so it is taken for another machine, and proves nothing; if it is one, take it out of use and give it a UUID of its own; if only its NICs were replaced, switch it off until its VMs run elsewhere, then delete the Host and create it anew"
    )]
    OtherNics {
        /// Addresses reported.
        reported: String,
        /// Addresses accepted.
        accepted: String,
    },
    /// A boot that was not accepted renews the Lease, and its agent's report has not come, or was refused on its way.
    #[error(
        "boot {0} renews this host's Lease and has reported nothing; if that lasts, look at the log of the agent there: it may be another machine that bears the name; take it off the network, or, if it is a replacement, switch it off until the VMs run elsewhere, then delete the Host and create it anew"
    )]
    NotReported(BootId),
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
    // Within one boot it is one machine, whatever is plugged in: boot ids are drawn anew.
    if let Some(accepted) = accepted
        && accepted.boot_id != reported.boot_id
        && let Some(problem) = other_nics(accepted, reported)
    {
        return Registration::Refuse(problem);
    }
    match accepted {
        Some(accepted) if accepted.boot_id == reported.boot_id => {
            match lease_boot_id.filter(|lease| **lease != accepted.boot_id) {
                Some(other) => Registration::Refuse(IdentityProblem::NotReported(other.clone())),
                None => Registration::Same,
            }
        }
        _ if lease_boot_id != Some(&reported.boot_id) => Registration::Wait,
        None => Registration::Accept,
        Some(accepted) => Registration::Retire(accepted.boot_id.clone()),
    }
}

/// Whether both machines told their NICs and have none in common.
fn other_nics(accepted: &Identity, reported: &Identity) -> Option<IdentityProblem> {
    let (known, told) = (nics(accepted), nics(reported));
    let list = |addresses: &BTreeSet<String>| {
        let words: Vec<&str> = addresses.iter().map(String::as_str).collect();
        words.join(", ")
    };
    (!known.is_empty() && !told.is_empty() && known.is_disjoint(&told)).then(|| {
        IdentityProblem::OtherNics {
            reported: list(&told),
            accepted: list(&known),
        }
    })
}

/// The addresses that can tell machines apart: not those that are all zeros or no address.
fn nics(identity: &Identity) -> BTreeSet<String> {
    let addresses = identity.mac_addresses.iter();
    addresses
        .map(|address| address.trim().to_ascii_lowercase())
        .filter(|address| {
            address
                .bytes()
                .any(|byte| !matches!(byte, b'0' | b':' | b'-'))
        })
        .collect()
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
            mac_addresses: BTreeSet::new(),
        }
    }

    fn with_nics(boot: &str, addresses: &[&str]) -> Identity {
        Identity {
            mac_addresses: addresses.iter().map(|it| (*it).to_owned()).collect(),
            ..identity(boot, UUID)
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

    /// The API server refuses what another machine reports under the name, and takes its renewals.
    #[test]
    fn a_boot_that_renews_and_does_not_report_is_told_of() {
        let first = identity("b1", UUID);
        let stranger = IdentityProblem::NotReported("b9".into());
        let told = stranger.to_string();
        assert!(
            told.contains("b9") && told.contains("create it anew"),
            "{told}"
        );
        let refused = Registration::Refuse(stranger);
        assert_eq!(judge(Some(&first), &[], &first, "b9"), refused);
        let unheard = register(Some(&first), &BTreeSet::new(), &first, None, &[]);
        assert_eq!(unheard, Registration::Same, "nobody renews");
    }

    #[test]
    fn a_boot_with_none_of_the_registered_nics_is_another_machines() {
        let first = with_nics("b1", &["0c:c4:7a:00:00:01", "0c:c4:7a:00:00:02"]);
        let boots =
            |addresses: &[&str]| judge(Some(&first), &[], &with_nics("b2", addresses), "b2");
        let retired = Registration::Retire("b1".into());
        let refused = boots(&["0c:c4:7a:00:00:09"]);
        let Registration::Refuse(problem @ IdentityProblem::OtherNics { .. }) = refused else {
            panic!("{refused:?}");
        };
        let text = problem.to_string();
        for word in [
            "status.reported.incarnation.nicAddresses:",
            "0c:c4:7a:00:00:09",
            "0c:c4:7a:00:00:01, 0c:c4:7a:00:00:02",
            "delete the Host and create it anew",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        for (same, why) in [
            (
                &["0C:C4:7A:00:00:02", "0c:c4:7a:00:00:09"] as &[&str],
                "one was replaced",
            ),
            (&[], "it does not tell"),
            (&["00:00:00:00:00:00"], "no address"),
        ] {
            assert_eq!(boots(same), retired, "{why}");
        }
        let untold = identity("b1", UUID);
        assert_eq!(
            judge(
                Some(&untold),
                &[],
                &with_nics("b2", &["0c:c4:7a:00:00:09"]),
                "b2"
            ),
            retired,
            "none were registered"
        );
        assert_eq!(
            judge(
                Some(&first),
                &[],
                &with_nics("b1", &["0c:c4:7a:00:00:09"]),
                "b1"
            ),
            Registration::Same,
            "one boot is one machine"
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
