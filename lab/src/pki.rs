//! Certificates and kubeconfigs of a lab: one authority, a certificate per identity.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The authority of one lab.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub certificate: String,
}

/// A certificate and its key, PEM.
pub struct Identity {
    /// Certificate.
    pub certificate: String,
    /// Key, PKCS #8.
    pub key: String,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A certificate for client and server use.
    ///
    /// # Errors
    /// A name is no valid one.
    pub fn issue(
        &self,
        common_name: &str,
        organisation: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        if !organisation.is_empty() {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation);
        }
        // libvirt 9 refuses a key, even an elliptic one, without keyEncipherment.
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// Issues a certificate and writes it, its key and a kubeconfig for it.
    ///
    /// # Errors
    /// The folder can not be written.
    pub fn write_user(
        &self,
        folder: &Path,
        file: &str,
        user: (&str, &str),
        server: &str,
    ) -> Result<()> {
        let identity = self.issue(user.0, user.1, &[], &[])?;
        write_secret(
            &folder.join(format!("{file}.kubeconfig")),
            &self.kubeconfig(&identity, server)?,
        )
    }

    fn kubeconfig(&self, identity: &Identity, server: &str) -> Result<String> {
        let encode = |text: &str| base64(text.as_bytes());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "zhengyun",
            "clusters": [{"name": "zhengyun", "cluster": {"server": server, "tls-server-name": "kubernetes",
                "certificate-authority-data": encode(&self.certificate)}}],
            "users": [{"name": "user", "user": {"client-certificate-data": encode(&identity.certificate),
                "client-key-data": encode(&identity.key)}}],
            "contexts": [{"name": "zhengyun", "context": {"cluster": "zhengyun", "user": "user"}}]
        });
        serde_yaml::to_string(&config).context("kubeconfig")
    }
}

/// Writes a file that only root reads.
///
/// # Errors
/// The folder can not be written.
pub fn write_secret(path: &Path, content: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    crate::files::write_at_once(path, content.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    // ByteString is how Kubernetes itself writes base64; its JSON form is the text wanted here.
    let value = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()));
    value
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
