//! Management controllers: read the power with the machine's identity, and force it off.
//!
//! Both clients answer within a bound, accept answers of bounded size only, and judge
//! nothing: whose power it is and what it proves is `failover`'s work. Neither client ever
//! asks for a graceful shutdown or switches anything on.

pub mod ipmi;
pub mod redfish;
pub mod tls;

use std::time::Duration;

use api::{Bmc as BmcSpec, BmcProtocol};
use async_trait::async_trait;
use failover::proof::power::PowerAnswer;
use thiserror::Error;

/// Longest time that one reading or command may take, all requests together.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Power of a machine as its controller reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerReport {
    /// On or Off.
    pub power: PowerAnswer,
    /// System UUID that the controller reports.
    pub system_uuid: Option<String>,
}

/// Why a controller could not be used. The messages hold no credentials.
#[derive(Debug, Error)]
pub enum BmcError {
    /// No complete answer in time.
    #[error("{address} did not answer within {seconds} s")]
    TimedOut {
        /// The controller.
        address: String,
        /// The bound.
        seconds: u64,
    },
    /// The login was refused.
    #[error("{address} refuses the login; correct the Secret that spec.bmcs.credentials names")]
    Unauthorised {
        /// The controller.
        address: String,
    },
    /// It could not be reached.
    #[error("{address} can not be reached")]
    Unreachable {
        /// The controller.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered something that is no answer.
    #[error("{address} answered {what}")]
    Malformed {
        /// The controller.
        address: String,
        /// What it answered, in few words.
        what: String,
    },
    /// The declaration can not be used.
    #[error("{field}: {why}")]
    Declaration {
        /// The field.
        field: &'static str,
        /// What is wrong and how to put it right.
        why: String,
    },
}

impl BmcError {
    /// Bounded category for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            BmcError::TimedOut { .. } => "timed-out",
            BmcError::Unauthorised { .. } => "unauthorised",
            BmcError::Unreachable { .. } => "unreachable",
            BmcError::Malformed { .. } => "malformed",
            BmcError::Declaration { .. } => "declaration",
        }
    }
}

/// User name and password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A management controller.
#[async_trait]
pub trait Bmc: Send + Sync {
    /// Reads the power. `expected_uuid` picks the machine where a controller serves several.
    ///
    /// # Errors
    /// Why there is no usable answer.
    async fn read(&self, expected_uuid: &str) -> Result<PowerReport, BmcError>;

    /// Forces the machine off, never gracefully. Its success proves nothing.
    ///
    /// # Errors
    /// Why the command was not accepted.
    async fn force_off(&self, expected_uuid: &str) -> Result<(), BmcError>;
}

/// Makes the client for a declared controller.
///
/// # Errors
/// When the declaration can not be used.
pub fn connect(spec: &BmcSpec, credentials: Credentials) -> Result<Box<dyn Bmc>, BmcError> {
    Ok(match spec.protocol {
        BmcProtocol::Redfish => Box::new(redfish::Redfish::new(spec, credentials)?),
        BmcProtocol::Ipmi => Box::new(ipmi::Ipmi::new(spec, credentials)?),
    })
}

/// Bounds a whole call.
async fn bounded<T>(
    address: &str,
    call: impl Future<Output = Result<T, BmcError>>,
) -> Result<T, BmcError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| {
            Err(BmcError::TimedOut {
                address: address.to_owned(),
                seconds: CALL_TIMEOUT.as_secs(),
            })
        })
}
