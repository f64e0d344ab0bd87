//! Every active domain. A list is whole or there is none: whoever reads it takes a domain that is missing for one that has
//! ended, and ends what is left of it.

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain as VirtDomain;
use virt::error::Error as VirtError;
use virt::sys;

use super::{failure, ffi};
use crate::types::{Domain, DomainState, Error, Result};
use crate::xml::owner_from_xml;

/// The call's name in errors.
pub(super) const CALL: &str = "list";

/// Asks for the domains, then for each. libvirt may die or stall in between.
pub(super) fn all(connect: &Connect) -> std::result::Result<Result<Vec<Domain>>, VirtError> {
    let active = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
    Ok(whole(active.iter().map(look)))
}

/// Leaves out what has ended since the domains were asked for, and nothing else: the first other error is the list's.
fn whole(looks: impl Iterator<Item = Result<Domain>>) -> Result<Vec<Domain>> {
    looks
        .filter(|look| !matches!(look, Err(Error::NotFound(_))))
        .collect()
}

/// A domain as libvirt shows it now.
fn look(domain: &VirtDomain) -> Result<Domain> {
    let failed = |error: VirtError| failure(CALL, &error);
    let name = domain.name().map_err(failed)?;
    let uuid = domain.uuid_string().map_err(failed)?;
    let (state, reason) = ffi::state(domain).map_err(|error| of_domain(&name, failed(error)))?;
    let xml = domain
        .xml_desc(0)
        .map_err(|error| of_domain(&name, failed(error)))?;
    let uuid = Uuid::parse_str(&uuid).map_err(|error| Error::Failed {
        call: CALL,
        message: format!("UUID {uuid:?} of domain {name}: {error}"),
    })?;
    Ok(Domain {
        uuid,
        state: state_of(state, reason),
        owner: owner_from_xml(&xml),
        name,
    })
}

/// Names the domain where libvirt's words may not.
fn of_domain(name: &str, error: Error) -> Error {
    match error {
        Error::Failed { call, message } => Error::Failed {
            call,
            message: format!("domain {name}: {message}"),
        },
        other => other,
    }
}

/// A guest that QEMU stopped because a disk failed is told apart from one that stands still for a
/// move, and both from one that a person, or the guest itself, suspended.
pub(super) fn state_of(state: sys::virDomainState, reason: u32) -> DomainState {
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => DomainState::Running,
        sys::VIR_DOMAIN_PAUSED => paused(reason),
        sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Suspended,
        _ => DomainState::Ending,
    }
}

/// A reason that is not listed may be a move's. `API_ERROR` is one: libvirt could not let a guest run on after its move.
/// While a move copies, libvirt calls a person's suspension one for the move too, and lets the guest run when it fails.
fn paused(why: sys::virDomainPausedReason) -> DomainState {
    match why {
        sys::VIR_DOMAIN_PAUSED_IOERROR => DomainState::Stalled,
        sys::VIR_DOMAIN_PAUSED_USER
        | sys::VIR_DOMAIN_PAUSED_SAVE
        | sys::VIR_DOMAIN_PAUSED_DUMP
        | sys::VIR_DOMAIN_PAUSED_WATCHDOG
        | sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT
        | sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN
        | sys::VIR_DOMAIN_PAUSED_SNAPSHOT
        | sys::VIR_DOMAIN_PAUSED_CRASHED => DomainState::Suspended,
        _ => DomainState::Paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(number: u128) -> Domain {
        Domain {
            uuid: Uuid::from_u128(number),
            name: format!("d{number}"),
            state: DomainState::Running,
            owner: None,
        }
    }

    #[test]
    fn a_domain_that_ended_meanwhile_is_left_out_of_the_list() {
        let gone = Err(Error::NotFound(Uuid::nil()));
        let listed = whole([Ok(domain(1)), gone, Ok(domain(2))].into_iter());
        assert_eq!(listed, Ok(vec![domain(1), domain(2)]));
    }

    #[test]
    fn a_libvirt_that_dies_in_the_middle_of_a_list_gives_none() {
        for error in [
            Error::Disconnected("the daemon ended".to_owned()),
            Error::Refused {
                uuid: Uuid::nil(),
                why: "is busy".to_owned(),
            },
            Error::Failed {
                call: CALL,
                message: "no lock on its state".to_owned(),
            },
        ] {
            let mut asked = 0;
            let looks = [Ok(domain(1)), Err(error.clone()), Ok(domain(2))];
            let listed = whole(looks.into_iter().inspect(|_| asked += 1));
            assert_eq!(listed, Err(error));
            assert_eq!(asked, 2, "a daemon that does not answer is asked no more");
        }
    }

    #[test]
    fn an_error_that_libvirt_has_no_kind_for_names_its_domain() {
        let failed = |message: &str| Error::Failed {
            call: CALL,
            message: message.to_owned(),
        };
        assert_eq!(of_domain("n.v", failed("no")), failed("domain n.v: no"));
        let gone = Error::NotFound(Uuid::nil());
        assert_eq!(of_domain("n.v", gone.clone()), gone);
    }

    #[test]
    fn why_a_guest_stands_still_tells_a_failed_disk_a_move_and_a_suspension_apart() {
        let state = |why| state_of(sys::VIR_DOMAIN_PAUSED, why);
        assert_eq!(state(sys::VIR_DOMAIN_PAUSED_IOERROR), DomainState::Stalled);
        for why in [
            sys::VIR_DOMAIN_PAUSED_UNKNOWN,
            sys::VIR_DOMAIN_PAUSED_MIGRATION,
            sys::VIR_DOMAIN_PAUSED_STARTING_UP,
            sys::VIR_DOMAIN_PAUSED_POSTCOPY,
            sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
            sys::VIR_DOMAIN_PAUSED_API_ERROR,
            99,
        ] {
            assert_eq!(state(why), DomainState::Paused, "{why}");
        }
        for why in [
            sys::VIR_DOMAIN_PAUSED_USER,
            sys::VIR_DOMAIN_PAUSED_SNAPSHOT,
            sys::VIR_DOMAIN_PAUSED_CRASHED,
        ] {
            assert_eq!(state(why), DomainState::Suspended, "{why}");
        }
        // The same number is another reason in another state.
        let reason = sys::VIR_DOMAIN_PAUSED_IOERROR;
        for (state, shown) in [
            (sys::VIR_DOMAIN_RUNNING, DomainState::Running),
            (sys::VIR_DOMAIN_PMSUSPENDED, DomainState::Suspended),
            (sys::VIR_DOMAIN_SHUTDOWN, DomainState::Ending),
        ] {
            assert_eq!(state_of(state, reason), shown, "{state}");
        }
    }
}
