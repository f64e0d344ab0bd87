//! What several tests of a host's machine begin with.

use std::collections::BTreeSet;

use super::HostFacts;
use crate::host::incarnation::Identity;
use crate::proof::confirmation::Confirmation;

/// UUID of the machine.
pub(super) const UUID: &str = "11111111-2222-3333-4444-555555555555";

/// The machine, of that boot.
pub(super) fn identity(boot: &str) -> Identity {
    Identity {
        boot_id: boot.into(),
        system_uuid: UUID.to_owned(),
        mac_addresses: BTreeSet::new(),
    }
}

/// What is known of the machine, of that boot, under whose name the Lease is renewed, and which has so many BMCs.
pub(super) fn facts(boot: &str, bmcs: u32) -> HostFacts {
    HostFacts {
        identity: Some(identity(boot)),
        lease_boot_id: Some(boot.into()),
        bmcs,
        ..HostFacts::default()
    }
}

/// A person's word that boot b1 of h1 is off.
pub(super) fn word() -> Confirmation {
    Confirmation {
        host: "h1".into(),
        boot_id: "b1".into(),
        by: "li".to_owned(),
        reason: "cord pulled".to_owned(),
        given_at: String::new(),
    }
}
