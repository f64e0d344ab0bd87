//! TLS towards management controllers. With a declared authority the certificate is
//! verified; without one it is not, as nearly every controller comes with a certificate
//! that it signed itself. Signatures of the handshake are verified in both cases.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

/// Why an authority is none.
#[derive(Debug, Error)]
#[error("{0}; give the PEM of the authority's certificate")]
pub struct AuthorityError(String);

fn refuse(why: impl std::fmt::Display) -> AuthorityError {
    AuthorityError(why.to_string())
}

/// TLS settings for one controller; `authority` is the PEM of whoever vouches for its certificate.
///
/// # Errors
/// When the authority's PEM can not be read.
pub fn client_config(authority: Option<&str>) -> Result<ClientConfig, AuthorityError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(refuse)?;
    let Some(pem) = authority else {
        let verifier = Arc::new(SelfSigned { provider });
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(refuse)?).map_err(refuse)?;
    }
    if roots.is_empty() {
        return Err(refuse("it holds no certificate"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Accepts any certificate, but only from a peer that holds its key.
#[derive(Debug)]
struct SelfSigned {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SelfSigned {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
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
            assert!(
                error.ends_with("give the PEM of the authority's certificate"),
                "{error}"
            );
        }
    }
}
