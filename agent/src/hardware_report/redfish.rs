//! The host's own BMC over Redfish: what the probes ask for, by HTTP. A BMC may be broken or taken
//! over: its answers are bounded in size and time, and none of its links leads to another server.

use std::path::Path;
use std::time::Duration;

use hardware::{RedfishError, RedfishSource};
use reqwest::{Client, StatusCode, Url};
use rustls::ClientConfig;
use serde_json::Value;
use wire::body::BodyError;

use crate::options::HardwareOptions;

/// Bound of one request.
const BOUND: Duration = Duration::from_secs(5);
/// Largest answer that is read, bytes. Real sensor resources have 2 to 100 KiB; the agent as a whole
/// is to stay below 30 MiB.
const ANSWER_BYTES: usize = 1 << 20;
/// Longest link that is followed, bytes.
const PATH_BYTES: usize = 1024;

/// Redfish over HTTP, asked from a blocking thread.
pub(super) struct OwnRedfish {
    client: Client,
    base: Url,
    user: String,
    password: String,
    runtime: tokio::runtime::Handle,
}

impl OwnRedfish {
    /// A client for the BMC at a URL; the password is the file's content.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub(super) fn new(options: &HardwareOptions, url: &str, file: &Path) -> Result<Self, String> {
        let password = std::fs::read_to_string(file)
            .map_err(|error| format!("--bmc-credentials-file {}: {error}", file.display()))?;
        let base = Url::parse(url).map_err(|error| {
            format!("--bmc-url {url}: {error}; write one such as https://10.0.0.1")
        })?;
        let client = Client::builder()
            .use_preconfigured_tls(tls(options.bmc_ca.as_deref())?)
            .timeout(BOUND)
            // A redirect could send the credentials elsewhere; a proxy is never on the way to a BMC.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            base,
            user: options.bmc_user.clone(),
            password: password.trim().to_owned(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// A link from an answer, on this BMC only.
    fn link(&self, path: &str) -> Result<Url, String> {
        if !path.starts_with('/') || path.starts_with("//") || path.len() > PATH_BYTES {
            return Err("a link that does not lie on the BMC itself".to_owned());
        }
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(None);
        Ok(url)
    }

    async fn read(&self, path: &str) -> Result<Option<Value>, String> {
        let say = |error: reqwest::Error| said(&error);
        let request = self
            .client
            .get(self.link(path)?)
            .basic_auth(&self.user, Some(&self.password));
        let response = request.send().await.map_err(say)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let body = match wire::body::read(response, ANSWER_BYTES).await {
            Err(BodyError::Failed(error)) => return Err(said(&error)),
            read => read.map_err(|error| error.to_string())?,
        };
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| format!("the answer is no JSON document: {error}"))
    }
}

/// What went wrong and why: reqwest's own sentence leaves out that a certificate
/// is not good.
fn said(error: &reqwest::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        sentence.push_str(": ");
        sentence.push_str(&cause.to_string());
        source = cause.source();
    }
    sentence
}

/// TLS settings towards the BMC: its certificate is verified where an authority is named.
fn tls(file: Option<&Path>) -> Result<ClientConfig, String> {
    let Some(file) = file else {
        return wire::tls::client_config(None).map_err(|error| error.to_string());
    };
    let at = |error: &dyn std::fmt::Display| format!("--bmc-ca {}: {error}", file.display());
    let authority = std::fs::read_to_string(file).map_err(|error| at(&error))?;
    wire::tls::client_config(Some(&authority)).map_err(|error| at(&error))
}

impl RedfishSource for OwnRedfish {
    fn get(&self, path: &str) -> Result<Value, RedfishError> {
        match self.runtime.block_on(self.read(path)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(RedfishError::NotFound {
                path: path.to_owned(),
            }),
            Err(message) => Err(RedfishError::Failed {
                path: path.to_owned(),
                message,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use clap::Parser as _;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        hardware: HardwareOptions,
    }

    /// A BMC that gives everybody one answer, as much of it as is taken, and counts its bytes.
    fn bmc(
        head: &'static str,
        body: impl Fn(usize) -> Option<Vec<u8>> + Send + 'static,
    ) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                // Whatever was asked; a client that goes away ends the answer.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(head.as_bytes());
                let mut number = 0;
                while let Some(part) = body(number) {
                    if stream.write_all(&part).is_err() {
                        break;
                    }
                    counted.fetch_add(part.len(), Ordering::SeqCst);
                    number += 1;
                }
            }
        });
        (url, sent)
    }

    async fn get(url: &str, path: &'static str) -> Result<Value, RedfishError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let options = Line::parse_from(["agent"]).hardware;
        let own = OwnRedfish::new(&options, url, file.path()).expect("a client");
        tokio::task::spawn_blocking(move || own.get(path))
            .await
            .expect("joined")
    }

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

    /// An authority: the PEM of its certificate, and a certificate with its key for 127.0.0.1.
    fn authority(name: &str) -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("an authority").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .expect("a name")
            .signed_by(&key, &issuer)
            .expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (pem, server.der().clone(), key)
    }

    /// A BMC that speaks TLS with this certificate and gives everybody one answer.
    fn bmc_with_tls(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a server");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let session = rustls::ServerConnection::new(config.clone()).expect("a session");
                let mut stream = rustls::StreamOwned::new(session, stream);
                // A client that does not trust us goes away in the handshake.
                if stream.read(&mut [0; 4096]).is_ok() {
                    let answer = format!("{PLAIN}{{\"PowerState\": \"On\"}}");
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        url
    }

    /// What a BMC answers when this PEM is named as its authority.
    async fn get_with(url: &str, authority: Option<&str>) -> Result<Value, String> {
        let mut password = tempfile::NamedTempFile::new().expect("a file");
        password.write_all(b"secret").expect("written");
        let mut ca = tempfile::NamedTempFile::new().expect("a file");
        let mut line = vec!["agent".to_owned()];
        if let Some(pem) = authority {
            ca.write_all(pem.as_bytes()).expect("written");
            line.extend(["--bmc-ca".to_owned(), ca.path().display().to_string()]);
        }
        let options = Line::parse_from(line).hardware;
        let own = OwnRedfish::new(&options, url, password.path())?;
        tokio::task::spawn_blocking(move || own.get("/redfish/v1/Systems/1"))
            .await
            .expect("joined")
            .map_err(|error| error.to_string())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_named_authority_must_vouch_for_the_bmc() {
        let (pem, certificate, key) = authority("of the BMCs");
        let (other, ..) = authority("of somebody else");
        let url = bmc_with_tls(certificate, key);
        let answer = get_with(&url, Some(&pem)).await.expect("a trusted BMC");
        assert_eq!(answer["PowerState"], "On");
        let error = get_with(&url, Some(&other)).await.expect_err("a stranger");
        assert!(error.contains("certificate"), "{error}");
        // As for the operator: without an authority any certificate will do, but the BMC is reached.
        let answer = get_with(&url, None).await.expect("an unverified BMC");
        assert_eq!(answer["PowerState"], "On");
        let error = get_with(&url, Some("nonsense")).await.expect_err("no PEM");
        assert!(
            error.starts_with("--bmc-ca ")
                && error.ends_with("give the PEM of the authority's certificate"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_without_an_end_is_given_up_early() {
        let (url, sent) = bmc(PLAIN, |_| Some(vec![b' '; 64 * 1024]));
        let error = get(&url, "/redfish/v1")
            .await
            .expect_err("endless")
            .to_string();
        assert!(error.contains("larger than"), "{error}");
        // What was on its way in buffers of the kernel comes on top.
        assert!(sent.load(Ordering::SeqCst) < 16 * ANSWER_BYTES);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_answer_is_said_and_a_good_one_is_read() {
        let once =
            |text: &'static str| move |number| (number == 0).then(|| text.as_bytes().to_vec());
        let (url, _) = bmc(PLAIN, once("{\"PowerState\": \"On\"}"));
        let value = get(&url, "/redfish/v1/Systems/1").await.expect("an answer");
        assert_eq!(value["PowerState"], "On");
        let (url, _) = bmc(PLAIN, once("{\"PowerState\": \"O"));
        let error = get(&url, "/x").await.expect_err("cut off").to_string();
        assert!(error.contains("no JSON"), "{error}");
        let deep: &'static str = "[".repeat(100_000).leak();
        let (url, _) = bmc(PLAIN, once(deep));
        assert!(get(&url, "/x").await.is_err(), "nested beyond all measure");
        let (url, _) = bmc(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            |_| None,
        );
        let missing = get(&url, "/x").await.expect_err("missing");
        assert!(matches!(missing, RedfishError::NotFound { .. }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_answer_sends_the_password_to_another_server() {
        let (other, seen) = bmc(PLAIN, |number| (number == 0).then(|| b"{}".to_vec()));
        let port = other.rsplit(':').next().unwrap_or_default().to_owned();
        let head: &'static str =
            format!("HTTP/1.1 302 Found\r\nLocation: {other}/\r\nContent-Length: 0\r\n\r\n").leak();
        let (url, _) = bmc(head, |_| None);
        let error = get(&url, "/x").await.expect_err("redirected").to_string();
        assert!(error.contains("302"), "{error}");
        for path in ["@127.0.0.1/x", "//127.0.0.1/x", "", "http://127.0.0.1/x"] {
            assert!(get(&url, path).await.is_err(), "{path}");
        }
        assert_eq!(seen.load(Ordering::SeqCst), 0, "port {port} was asked");
    }
}
