//! `Confirmed`: a named person's word that one incarnation of a host is powered off,
//! refused or voided by any sign of life. The last resort when no BMC answers.

use model::{BootId, HostName, StopProofKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::HostStopProof;
use super::evidence::CONFIRMED;
use super::power::PowerState;
use crate::policy::Policy;
use crate::signs::LifeSigns;
use crate::time::Moment;

/// A person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confirmation {
    /// The host.
    pub host: HostName,
    /// The incarnation that is off.
    pub boot_id: BootId,
    /// Who says so.
    pub by: String,
    /// How they know.
    pub reason: String,
    /// When they said so, as written: tells one word from the next, and is never compared with
    /// a clock.
    #[serde(default)]
    pub given_at: String,
}

/// Why a confirmation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfirmationError {
    /// It names another boot.
    #[error(
        "confirmed is boot {confirmed} of {host}, but boot {registered} is the one that was last seen; look again and confirm that one"
    )]
    OtherBoot {
        /// The host.
        host: HostName,
        /// Boot id confirmed.
        confirmed: BootId,
        /// Boot id last registered.
        registered: BootId,
    },
    /// Nobody stands behind it.
    #[error("a confirmation needs a name and a reason; give both")]
    Anonymous,
    /// The host shows life.
    #[error("host {0} shows signs of life; you may be standing before another machine")]
    Alive(HostName),
    /// Its own BMC says On.
    #[error("the BMC of host {0} reads On; you may be standing before another machine")]
    ReadsOn(HostName),
    /// It was confirmed a moment ago; the window without signs of life is not over.
    #[error("host {0} is being watched for signs of life before the confirmation counts")]
    TooEarly(HostName),
    /// It has a heartbeat, and nobody can see just now whether it beats.
    #[error(
        "nobody can read the storage heartbeat of host {0} just now, so nobody knows that it stands still; mend the storage first"
    )]
    Unobserved(HostName),
    /// It was refused before for a sign of life, or for a BMC that read On, and counts for nothing any more.
    #[error(
        "host {0} showed signs of life, or its BMC read On, after this was said: it counts for nothing any more; look again, and if the host is off, say so anew"
    )]
    Void(HostName),
}

impl ConfirmationError {
    /// Whether the word counts for nothing from now on, whatever comes: who said it stood before another machine.
    pub fn voids(&self) -> bool {
        matches!(self, Self::Alive(_) | Self::ReadsOn(_) | Self::Void(_))
    }
}

/// Checks a confirmation that the operator first saw at `seen_at`, when the signs of life
/// were `signs_then`. `power` is the last reading that counts, with the moment at which it was asked for.
///
/// # Errors
/// Why it does not count (yet).
pub fn confirm(
    confirmation: &Confirmation,
    registered: &BootId,
    (seen_at, signs_then): (Moment, &LifeSigns),
    (power, signs): (Option<(PowerState, Moment)>, &LifeSigns),
    policy: &Policy,
    now: Moment,
) -> Result<HostStopProof, ConfirmationError> {
    let host = &confirmation.host;
    if confirmation.boot_id != *registered {
        return Err(ConfirmationError::OtherBoot {
            host: host.clone(),
            confirmed: confirmation.boot_id.clone(),
            registered: registered.clone(),
        });
    }
    if confirmation.by.trim().is_empty() || confirmation.reason.trim().is_empty() {
        return Err(ConfirmationError::Anonymous);
    }
    let reads_on = power.filter(|(state, _)| *state == PowerState::On);
    if reads_on.is_some_and(|(_, asked)| asked >= seen_at) {
        return Err(ConfirmationError::ReadsOn(host.clone()));
    }
    if signs.show_life_after(signs_then, seen_at) {
        return Err(ConfirmationError::Alive(host.clone()));
    }
    if signs.heartbeat.is_some() && signs.heartbeat_unobserved {
        return Err(ConfirmationError::Unobserved(host.clone()));
    }
    // What was read before the word was given may be older than the act that it tells of.
    let window = signs.longest_interval_milliseconds(policy) + policy.grace_milliseconds;
    let watched = now.since(seen_at) >= window && signs.all_silent(policy, now);
    if !watched || reads_on.is_some() {
        return Err(ConfirmationError::TooEarly(host.clone()));
    }
    Ok(HostStopProof {
        host: host.clone(),
        boot_id: confirmation.boot_id.clone(),
        kind: StopProofKind::Confirmed,
        evidence: CONFIRMED.told(&[&confirmation.by.trim(), &confirmation.reason.trim()]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::Sign;

    fn signs(changes: u64, at: u64) -> LifeSigns {
        LifeSigns {
            lease: Some(Sign {
                changes,
                changed_at: Moment(at),
            }),
            ..LifeSigns::default()
        }
    }

    #[test]
    fn only_a_named_word_about_a_silent_host_counts() {
        let policy = Policy::default();
        let word = Confirmation {
            host: "h1".into(),
            boot_id: "b1".into(),
            by: "li".to_owned(),
            reason: "cable pulled".to_owned(),
            given_at: String::new(),
        };
        let judge = |word: &Confirmation, registered: &str, power, now_signs: &LifeSigns, now| {
            let power: Option<(PowerState, Moment)> = power;
            confirm(
                word,
                &registered.into(),
                (Moment(60_000), &signs(1, 0)),
                (power, now_signs),
                &policy,
                Moment(now),
            )
        };
        let quiet = signs(1, 0);
        assert!(judge(&word, "b1", None, &quiet, 63_000).is_ok());
        assert!(matches!(
            judge(&word, "b1", None, &quiet, 62_000),
            Err(ConfirmationError::TooEarly(_))
        ));
        assert!(matches!(
            judge(&word, "b2", None, &quiet, 63_000),
            Err(ConfirmationError::OtherBoot { .. })
        ));
        assert!(matches!(
            judge(
                &word,
                "b1",
                Some((PowerState::On, Moment(60_001))),
                &quiet,
                63_000
            ),
            Err(ConfirmationError::ReadsOn(_))
        ));
        // Asked for before the plug was pulled: it is waited for the next one.
        assert!(matches!(
            judge(
                &word,
                "b1",
                Some((PowerState::On, Moment(59_000))),
                &quiet,
                63_000
            ),
            Err(ConfirmationError::TooEarly(_))
        ));
        let blind = LifeSigns {
            heartbeat: quiet.lease,
            heartbeat_unobserved: true,
            ..quiet
        };
        let unseen = confirm(
            &word,
            &"b1".into(),
            (Moment(60_000), &blind),
            (None, &blind),
            &policy,
            Moment(63_000),
        );
        assert!(matches!(unseen, Err(ConfirmationError::Unobserved(_))));
        assert!(matches!(
            judge(&word, "b1", None, &signs(2, 61_000), 70_000),
            Err(ConfirmationError::Alive(_))
        ));
        let anonymous = Confirmation {
            by: " ".to_owned(),
            ..word
        };
        assert!(matches!(
            judge(&anonymous, "b1", None, &quiet, 63_000),
            Err(ConfirmationError::Anonymous)
        ));
    }
}
