//! One probe: a GET of an endpoint at a VM's own address, and what its answer tells. An endpoint is up by success alone; that
//! the guest lives is told by every answer, an error or a refused connection too.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use failover::signs::ProbeAnswer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Bytes of an answer that are read: its status line is all that counts.
const ANSWER_BYTES_MAX: usize = 512;

/// Probes, within a bound. `lives` is called as soon as the guest has answered anything: a service that hangs would tell
/// it at the bound only, when it says nothing about now.
pub(super) async fn ask(
    target: SocketAddr,
    request: &str,
    bound: Duration,
    lives: impl FnOnce(),
) -> ProbeAnswer {
    let until = Instant::now() + bound;
    let stream = match timeout_at(until, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_of_guest(error.kind()) => {
            lives();
            return ProbeAnswer::Guest;
        }
        Ok(Err(_)) | Err(_) => return ProbeAnswer::Nothing,
    };
    // Whoever takes the connection lives, whatever follows.
    lives();
    match timeout_at(until, succeeds(stream, request)).await {
        Ok(Ok(true)) => ProbeAnswer::Service,
        Ok(Ok(false) | Err(_)) | Err(_) => ProbeAnswer::Guest,
    }
}

/// Whether the kernel of the guest itself said so: nobody listens there. That the guest can not be reached is
/// said by what lies before it.
fn is_of_guest(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// Whether the service answers with success or a redirection (`HTTP/1.1 200`).
async fn succeeds(mut stream: TcpStream, request: &str) -> std::io::Result<bool> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    while length < 12 {
        let read = stream.read(&mut answer[length..]).await?;
        if read == 0 {
            break;
        }
        length += read;
    }
    Ok(length >= 12 && answer.starts_with(b"HTTP/1.") && matches!(answer[9], b'2' | b'3'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const BOUND: Duration = Duration::from_secs(10);
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// What a probe makes of a guest that takes the connection and says this.
    async fn answered_with(says: &'static str) -> ProbeAnswer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let guest = async {
            let (mut stream, _) = listener.accept().await.expect("a probe");
            let mut asked = [0; REQUEST.len()];
            stream.read_exact(&mut asked).await.expect("the request");
            stream.write_all(says.as_bytes()).await.expect("told");
        };
        tokio::join!(ask(address, REQUEST, BOUND, || ()), guest).0
    }

    #[tokio::test]
    async fn success_alone_is_up_and_every_answer_is_life() {
        for (says, answer) in [
            ("HTTP/1.1 200 OK\r\n\r\n", ProbeAnswer::Service),
            ("HTTP/1.0 302 Found\r\n\r\n", ProbeAnswer::Service),
            ("HTTP/1.1 500 Oops\r\n\r\n", ProbeAnswer::Guest),
            ("HTTP/1.1 404 None\r\n\r\n", ProbeAnswer::Guest),
            ("SSH-2.0-OpenSSH_9.2\r\n", ProbeAnswer::Guest),
            ("", ProbeAnswer::Guest),
        ] {
            let found = answered_with(says).await;
            assert_eq!(found, answer, "{says:?}");
            assert!(found.is_life());
            assert_eq!(found.is_up(), answer == ProbeAnswer::Service);
        }
    }

    #[tokio::test]
    async fn a_guest_whose_service_is_down_or_hangs_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        // Its kernel takes the connection; nobody ever answers. That it lives is told before the bound.
        let (lives, told) = tokio::sync::oneshot::channel();
        let hangs = ask(address, REQUEST, BOUND, || lives.send(()).expect("heard"));
        tokio::select! {
            answer = hangs => panic!("{answer:?} of a service that hangs"),
            told = told => told.expect("it lives"),
        }
        let bound = Duration::from_millis(100);
        assert_eq!(
            ask(address, REQUEST, bound, || ()).await,
            ProbeAnswer::Guest
        );
        drop(listener);
        let mut lives = false;
        let refused = ask(address, REQUEST, BOUND, || lives = true).await;
        assert_eq!((refused, lives), (ProbeAnswer::Guest, true));
    }

    #[test]
    fn what_lies_before_a_guest_does_not_speak_for_it() {
        for kind in [
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::NetworkDown,
            ErrorKind::TimedOut,
            ErrorKind::AddrNotAvailable,
            ErrorKind::PermissionDenied,
        ] {
            assert!(!is_of_guest(kind), "{kind}");
        }
        assert!(!ProbeAnswer::Nothing.is_life() && !ProbeAnswer::Nothing.is_up());
    }
}
