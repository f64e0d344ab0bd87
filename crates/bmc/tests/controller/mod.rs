//! The controller that the tests of both clients name and log in to.

use api::{Bmc, BmcProtocol, SecretReference};
use bmc::Credentials;

/// The machine that it belongs to.
pub const UUID: &str = "a1234567-89ab-cdef-a123-456789abcdef";

/// It, as a host declares it.
pub fn spec(protocol: BmcProtocol, address: String) -> Bmc {
    Bmc {
        protocol,
        address,
        credentials: SecretReference {
            name: "bmc".to_owned(),
        },
        certificate_authority: None,
        cipher_suite: Some(3),
    }
}

/// A login with this password.
pub fn login(password: &str) -> Credentials {
    Credentials {
        username: "fence".to_owned(),
        password: password.to_owned(),
    }
}
