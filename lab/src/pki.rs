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
        params.distinguished_name = self::name(name, "");
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
        params.distinguished_name = name(common_name, organisation);
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

    /// The key that it signs with, PKCS #8 as PEM: for a control plane that is to sign too.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// A request for a certificate, PEM, and its key.
///
/// # Errors
/// The key could not be made.
pub fn request(common_name: &str, organisation: &str) -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name, organisation);
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

fn name(common_name: &str, organisation: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if !organisation.is_empty() {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}

/// Bytes as PEM (RFC 7468: lines of 64 characters).
pub fn pem(label: &str, bytes: &[u8]) -> String {
    let encoded = base64(bytes);
    let lines: Vec<&str> = encoded
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// An API server as a user reaches it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// Its address.
    pub url: String,
    /// The name that its certificate bears.
    pub tls_name: String,
    /// Who vouches for that, PEM.
    pub authority: String,
}

impl ApiServer {
    /// A kubeconfig for a user of it.
    ///
    /// # Errors
    /// It could not be written as YAML.
    pub fn kubeconfig(&self, identity: &Identity) -> Result<String> {
        let encode = |text: &str| base64(text.as_bytes());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "zhengyun",
            "clusters": [{"name": "zhengyun", "cluster": {"server": self.url, "tls-server-name": self.tls_name,
                "certificate-authority-data": encode(&self.authority)}}],
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
