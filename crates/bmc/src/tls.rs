//! TLS towards management controllers, with what a Host declares of them.

use rustls::ClientConfig;

use crate::BmcError;

const FIELD: &str = "spec.bmcs.certificateAuthority";

/// TLS settings for one controller.
///
/// # Errors
/// When the authority's PEM can not be read.
pub fn client_config(authority: Option<&str>) -> Result<ClientConfig, BmcError> {
    wire::tls::client_config(authority).map_err(|error| BmcError::Declaration {
        field: FIELD,
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_must_be_a_certificate() {
        assert!(client_config(None).is_ok());
        for pem in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = client_config(Some(pem)).unwrap_err().to_string();
            assert!(error.starts_with(FIELD), "{error}");
        }
    }
}
