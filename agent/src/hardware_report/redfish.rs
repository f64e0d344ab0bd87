//! The host's own BMC over Redfish: what the probes ask for, by HTTP. A BMC may be broken or taken
//! over: its answers are bounded in size and time, and none of its links leads to another server.

use std::path::Path;
use std::time::Duration;

use hardware::{RedfishError, RedfishSource};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

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
        // reqwest takes the process's provider; whoever came first has set the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
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
        let say = |error: reqwest::Error| error.to_string();
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
        let body = bounded(response).await?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| format!("the answer is no JSON document: {error}"))
    }
}

/// The whole body, if it is not larger than anybody needs.
async fn bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(format!("the answer is larger than {ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
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
