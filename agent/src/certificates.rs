//! When this host's certificates expire, for its report and its metrics: a host whose certificate for the
//! API server has expired is silent, and one whose others have can give and take no VM.

use std::path::{Path, PathBuf};

use kube::config::AuthInfo;
use wire::certificate::{self, CertificateError};

/// What libvirt and QEMU present to other hosts, by name and place (docs/adding-a-host.md).
const OF_LIBVIRT: [(&str, &str); 4] = [
    ("libvirt-client", "/etc/pki/libvirt/clientcert.pem"),
    ("libvirt-server", "/etc/pki/libvirt/servercert.pem"),
    ("qemu-client", "/etc/pki/qemu/client-cert.pem"),
    ("qemu-server", "/etc/pki/qemu/server-cert.pem"),
];

/// A certificate's name, and when it expires (seconds since 1970) or why that is not known.
pub type Expiry = (&'static str, Result<i64, String>);

/// The certificates of this host.
pub struct Certificates {
    /// Those that this program read when it started: it uses them until it is started again, whatever
    /// lies in their files by then.
    own: Vec<Expiry>,
    /// Those of libvirt and QEMU, which read them anew.
    others: Vec<(&'static str, PathBuf)>,
}

impl Certificates {
    /// Reads the agent's own: the API user's, and the one for other agents.
    pub fn at_start(user: &AuthInfo, for_agents: &Path) -> Self {
        let others = OF_LIBVIRT.map(|(name, path)| (name, PathBuf::from(path)));
        Self::reading(user, for_agents, others.into())
    }

    fn reading(user: &AuthInfo, for_agents: &Path, others: Vec<(&'static str, PathBuf)>) -> Self {
        let api = certificate::expiry_of_user(user).transpose();
        let own = api
            .map(|expiry| ("api", said(expiry)))
            .into_iter()
            .chain(in_file(for_agents).map(|expiry| ("agent", expiry)))
            .collect();
        Self { own, others }
    }

    /// Every certificate that is there.
    pub fn expiries(&self) -> Vec<Expiry> {
        let others = self.others.iter();
        let others = others.filter_map(|(name, path)| Some((*name, in_file(path)?)));
        self.own.iter().cloned().chain(others).collect()
    }
}

fn said(expiry: Result<i64, CertificateError>) -> Result<i64, String> {
    expiry.map_err(|error| error.to_string())
}

/// When the certificate in a file expires; none where there is no such file.
fn in_file(path: &Path) -> Option<Result<i64, String>> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match std::fs::read(path) {
        Ok(pem) => Some(certificate::expiry(&pem).map_err(|error| at(&error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(at(&error))),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const IN_2030: i64 = 1_893_456_000;
    const IN_2031: i64 = 1_924_992_000;

    fn put(path: &Path, year: i32) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(year, 1, 1);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(path, pem).expect("written");
    }

    #[test]
    fn own_certificates_count_as_they_were_read_and_others_as_they_lie_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name);
        for name in ["host.crt", "cert.pem", "server.pem"] {
            put(&place(name), 2030);
        }
        std::fs::write(place("broken.pem"), "nonsense").expect("written");
        let user = AuthInfo {
            client_certificate: Some(place("host.crt").display().to_string()),
            ..AuthInfo::default()
        };
        let others = vec![
            ("libvirt-server", place("server.pem")),
            ("qemu-client", place("missing.pem")),
            ("qemu-server", place("broken.pem")),
        ];
        let certificates = Certificates::reading(&user, &place("cert.pem"), others);
        for name in ["host.crt", "cert.pem", "server.pem"] {
            put(&place(name), 2031);
        }
        let told = certificates.expiries();
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], ("api", Ok(IN_2030)));
        assert_eq!(told[1], ("agent", Ok(IN_2030)));
        assert_eq!(told[2], ("libvirt-server", Ok(IN_2031)));
        let why = told[3].1.as_ref().expect_err("broken");
        assert!(why.contains("broken.pem: no certificate in PEM"), "{why}");
    }
}
