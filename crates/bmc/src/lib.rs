//! Management controllers: read the power with the machine's identity, and force it off.
//!
//! Both clients answer within a bound, accept answers of bounded size only, and judge
//! nothing: whose power it is and what it proves is `failover`'s work. They send no command before
//! the controller has said that it belongs to the machine that is meant. Neither client ever asks for
//! a graceful shutdown; to switch a machine on is another trait than the operator's.

pub mod ipmi;
pub mod redfish;
mod tls;

#[cfg(test)]
#[path = "../../../operator/src/chance.rs"]
mod chance;

use std::time::Duration;

use api::{Bmc as BmcSpec, BmcProtocol};
use async_trait::async_trait;
use failover::proof::power::PowerAnswer;
use k8s_openapi::api::core::v1::Secret;
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
    /// It is another machine's. Nothing was sent.
    #[error(
        "{address} belongs to the machine {reported}, and the host registered {registered}; nothing was sent; correct spec.bmcs.address"
    )]
    OtherMachine {
        /// The controller.
        address: String,
        /// UUID of the machine that it says it belongs to.
        reported: String,
        /// UUID of the machine that was meant.
        registered: String,
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
    /// `reported` is cut to the length of a UUID and a little: it is what somebody else wrote.
    fn other_machine(address: &str, reported: &str, registered: &str) -> Self {
        BmcError::OtherMachine {
            address: address.to_owned(),
            reported: reported.chars().take(120).collect(),
            registered: registered.to_owned(),
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

impl Credentials {
    /// Those that a Secret holds under `username` and `password`.
    ///
    /// # Errors
    /// When it lacks one of them.
    pub fn from_secret(secret: &Secret) -> Result<Self, BmcError> {
        let word = |key: &str| {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            let refuse = |what: &str| BmcError::Declaration {
                field: "spec.bmcs.credentials",
                why: format!("Secret {name}: key {key} {what}"),
            };
            let bytes = data.ok_or_else(|| refuse("is missing"))?;
            String::from_utf8(bytes.0.clone()).map_err(|_| refuse("is no text"))
        };
        Ok(Self {
            username: word("username")?,
            password: word("password")?,
        })
    }
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
    /// Why the command was not accepted; it was not sent where the controller is another machine's.
    async fn force_off(&self, expected_uuid: &str) -> Result<(), BmcError>;
}

/// A management controller in the hand of a person who tries a failure on purpose.
#[async_trait]
pub trait Switch: Bmc {
    /// Switches the machine on.
    ///
    /// # Errors
    /// Why the command was not accepted; it was not sent where the controller is another machine's.
    async fn switch_on(&self, expected_uuid: &str) -> Result<(), BmcError>;
}

/// Makes the client for a declared controller.
///
/// # Errors
/// When the declaration can not be used.
pub fn connect(spec: &BmcSpec, credentials: Credentials) -> Result<Box<dyn Bmc>, BmcError> {
    Ok(connect_switch(spec, credentials)?)
}

/// Makes the client for a declared controller, to switch its machine on as well.
///
/// # Errors
/// When the declaration can not be used.
pub fn connect_switch(
    spec: &BmcSpec,
    credentials: Credentials,
) -> Result<Box<dyn Switch>, BmcError> {
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
