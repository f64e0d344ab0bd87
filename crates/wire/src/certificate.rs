//! When certificates expire.

use k8s_openapi::ByteString;
use kube::config::AuthInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use thiserror::Error;
use x509_parser::parse_x509_certificate;

/// Why it is not known when a certificate expires.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Its file can not be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error("no certificate in PEM: {0}")]
    Malformed(String),
}

fn malformed(why: impl std::fmt::Display) -> CertificateError {
    CertificateError::Malformed(why.to_string())
}

/// When the first of a PEM's certificates to expire does, seconds since 1970: a chain is as good as its
/// weakest link.
///
/// # Errors
/// When it holds no certificate, or something that is none.
pub fn expiry(pem: &[u8]) -> Result<i64, CertificateError> {
    let mut first: Option<i64> = None;
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(malformed)?;
        let (_, certificate) = parse_x509_certificate(&der).map_err(malformed)?;
        let at = certificate.validity().not_after.timestamp();
        first = Some(first.map_or(at, |known| known.min(at)));
    }
    first.ok_or_else(|| malformed("it is empty"))
}

/// When the certificate expires with which a kubeconfig's user comes to the API server, seconds since
/// 1970; none for a user who comes with something else, such as a token.
///
/// # Errors
/// When it can not be read.
pub fn expiry_of_user(user: &AuthInfo) -> Result<Option<i64>, CertificateError> {
    let pem = if let Some(data) = &user.client_certificate_data {
        let text = Value::String(data.trim().to_owned());
        let ByteString(pem) = serde_json::from_value(text).map_err(malformed)?;
        pem
    } else if let Some(path) = &user.client_certificate {
        std::fs::read(path).map_err(|source| CertificateError::Unreadable {
            path: path.clone(),
            source,
        })?
    } else {
        return Ok(None);
    };
    expiry(&pem).map(Some)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 1 January of these years, seconds since 1970.
    const IN_2030: i64 = 1_893_456_000;
    const IN_2027: i64 = 1_798_761_600;

    fn certificate(year: i32) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn a_chain_expires_with_its_first_certificate() {
        let (long, short) = (certificate(2030), certificate(2027));
        assert_eq!(expiry(long.as_bytes()).expect("one"), IN_2030);
        let chain = format!("{long}{short}{long}");
        assert_eq!(expiry(chain.as_bytes()).expect("a chain"), IN_2027);
        for pem in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = expiry(pem.as_bytes()).expect_err(pem).to_string();
            assert!(error.starts_with("no certificate in PEM: "), "{error}");
        }
    }

    #[test]
    fn a_users_certificate_is_found_in_the_kubeconfig_or_in_its_file() {
        let pem = certificate(2030);
        let data = serde_json::to_value(ByteString(pem.into_bytes())).expect("base64");
        let mut user = AuthInfo::default();
        assert_eq!(expiry_of_user(&user).expect("a token's"), None);

        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(certificate(2027).as_bytes())
            .expect("written");
        user.client_certificate = Some(file.path().display().to_string());
        assert_eq!(expiry_of_user(&user).expect("a file's"), Some(IN_2027));
        // As the API's client takes it: what stands in the kubeconfig goes before a file.
        user.client_certificate_data = data.as_str().map(|text| format!("{text}\n"));
        assert_eq!(expiry_of_user(&user).expect("data"), Some(IN_2030));

        user.client_certificate_data = Some("%".to_owned());
        assert!(expiry_of_user(&user).is_err());
        user.client_certificate_data = None;
        user.client_certificate = Some("/nonexistent/host.crt".to_owned());
        let error = expiry_of_user(&user).expect_err("no file").to_string();
        assert!(error.starts_with("/nonexistent/host.crt: "), "{error}");
    }
}
