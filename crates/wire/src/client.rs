//! The client of the API server: no call of the operator, an agent or a guard waits for ever.
//!
//! kube's own defaults wait without end for an answer, and send a refused request up to fifteen times within one call,
//! for minutes. A connection that vanishes without a word (a switch that died, a firewall that forgot it) would then
//! keep whoever called, and a call that is tried again inside carries what was decided minutes ago. Every loop of ours
//! decides anew from what it reads, so a call that fails is told at once.

use std::time::Duration;

use kube::{Client, Config};

/// The longest silence on a connection to the API server on which something was asked: one that answers nothing for so
/// long, or takes nothing, is given up. An overloaded API server may take seconds for a list.
const SILENCE: Duration = Duration::from_secs(15);
/// The same for connections of watches, which may have nothing to tell: longer than the API server lets a watch stand
/// (`api::WATCH_SECONDS`), so that it ends no watch in order.
pub const SILENCE_OF_WATCHES: Duration = Duration::from_secs(75);
/// How long a connection may take until TLS stands. Short, as the kernel's own tries become rare: after a
/// partition the next try is heard sooner than a later repetition of the last one.
const CONNECT: Duration = Duration::from_secs(5);

/// A client whose every call ends. A refusal (429, 503, 504) is told and not tried again: the caller's next turn does.
///
/// # Errors
/// The configuration can not be used.
pub fn client(config: Config) -> kube::Result<Client> {
    with_silence(config, SILENCE)
}

/// A client for watches alone.
///
/// # Errors
/// The configuration can not be used.
pub fn watches(config: Config) -> kube::Result<Client> {
    with_silence(config, SILENCE_OF_WATCHES)
}

fn with_silence(mut config: Config, silence: Duration) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(silence);
    config.write_timeout = Some(silence);
    // Else what a connection was unused for counts as silence of the next answer.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    /// A server that answers every request with these bytes; how often it was asked.
    async fn server(answer: &'static str) -> (Config, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counter = counter.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        counter.fetch_add(1, Ordering::SeqCst);
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let url = format!("http://{address}").parse().expect("a URL");
        (Config::new(url), asked)
    }

    #[tokio::test]
    async fn a_call_that_is_never_answered_ends() {
        // Headers that promise a body, and nothing after them, are as silent as nothing at all.
        let half =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
        for answer in ["", half] {
            let (config, asked) = server(answer).await;
            let client = with_silence(config, Duration::from_millis(200)).expect("a client");
            let call = tokio::time::timeout(LONG, client.apiserver_version()).await;
            call.expect("it ends").expect_err("nothing was answered");
            assert_eq!(asked.load(Ordering::SeqCst), 1, "nor is it sent again");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_at_once() {
        let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let (config, asked) = server(busy).await;
        let call = client(config).expect("a client");
        call.apiserver_version().await.expect_err("refused");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
