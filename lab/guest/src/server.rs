//! Serves HTTP: `/` and `/healthz` tell the state, `/page` the role's page from the system disk,
//! `/hold` keeps a connection open with a line a second.
//!
//! A few threads wait in `accept` on one socket and answer a connection's first request themselves:
//! probes come as one connection each, and a hand-over between threads would double their cost under
//! software emulation. Connections that stay get a thread of their own, up to a bound.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Answer, Request, RequestError, read_request};
use crate::status::Status;

/// Threads that wait for connections.
const ACCEPTORS: usize = 6;
/// Connections that may stay open at once.
const STAYING_MAXIMUM: usize = 128;
/// A client that sends no request for this long loses its connection, before and between requests.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that takes nothing for this long loses its connection. Longer than any tolerable pause
/// of a live migration, so that a held connection breaks only when it really is broken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two lines of `/hold`.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);
/// Stack of a thread of ours: nothing here recurses.
const STACK_BYTES: usize = 128 * 1024;

/// What the threads share.
pub struct Server {
    status: Arc<Status>,
    /// Folder with `ROLE.html`, on the system disk.
    pages: PathBuf,
    staying: AtomicUsize,
}

impl Server {
    /// A server that tells `status` and shows pages of `pages`.
    pub fn new(status: Arc<Status>, pages: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            status,
            pages,
            staying: AtomicUsize::new(0),
        })
    }

    /// Starts the threads; they serve until the process ends.
    pub fn start(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        for number in 0..ACCEPTORS {
            let (server, listener) = (Arc::clone(self), listener.try_clone()?);
            let thread = thread::Builder::new()
                .name(format!("accept-{number}"))
                .stack_size(STACK_BYTES);
            thread.spawn(move || server.accept_for_ever(&listener))?;
        }
        Ok(())
    }

    fn accept_for_ever(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            // Accept fails when the client has gone again or memory is short; both pass.
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            // The client's end of a connection is not ours to report: it sees its own error.
            if let Ok(Some((stream, rest, request))) = self.serve_first(stream) {
                self.stay(stream, rest, request);
            }
        }
    }

    /// Answers the first request. Returns the connection when it stays: to be kept, or held.
    fn serve_first(
        &self,
        mut stream: TcpStream,
    ) -> Result<Option<(TcpStream, Vec<u8>, Request)>, RequestError> {
        stream
            .set_read_timeout(Some(FIRST_REQUEST_TIMEOUT))
            .map_err(RequestError::Read)?;
        stream
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .map_err(RequestError::Read)?;
        let mut rest = Vec::new();
        let request = match read_request(&mut stream, &mut rest) {
            Err(RequestError::Malformed(what)) => {
                return refuse(&mut stream, what)
                    .map(|()| None)
                    .map_err(RequestError::Read);
            }
            other => other?,
        };
        if request.path == "/hold" && request.method == "GET" {
            return Ok(Some((stream, rest, request)));
        }
        let keep = request.keep_alive && self.staying.load(Ordering::Relaxed) < STAYING_MAXIMUM;
        self.answer(&request)
            .write(&mut stream, &request, keep)
            .map_err(RequestError::Read)?;
        Ok(keep.then_some((stream, rest, request)))
    }

    /// Gives a connection its own thread, unless too many stay already: then it is closed.
    fn stay(self: &Arc<Self>, stream: TcpStream, rest: Vec<u8>, request: Request) {
        if self.staying.fetch_add(1, Ordering::Relaxed) >= STAYING_MAXIMUM {
            self.staying.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let server = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("connection".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // As above: how a connection ends is the client's to see.
                let _ = if request.path == "/hold" {
                    server.hold(stream).map_err(RequestError::Read)
                } else {
                    server.serve_next(stream, rest)
                };
                server.staying.fetch_sub(1, Ordering::Relaxed);
            });
        if spawned.is_err() {
            self.staying.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn serve_next(&self, mut stream: TcpStream, mut rest: Vec<u8>) -> Result<(), RequestError> {
        stream
            .set_read_timeout(Some(NEXT_REQUEST_TIMEOUT))
            .map_err(RequestError::Read)?;
        loop {
            let request = match read_request(&mut stream, &mut rest) {
                Err(RequestError::Malformed(what)) => {
                    return refuse(&mut stream, what).map_err(RequestError::Read);
                }
                other => other?,
            };
            self.answer(&request)
                .write(&mut stream, &request, request.keep_alive)
                .map_err(RequestError::Read)?;
            if !request.keep_alive {
                return Ok(());
            }
        }
    }

    /// A line a second, for as long as the client listens: number, name, uptime.
    fn hold(&self, mut stream: TcpStream) -> io::Result<()> {
        self.status.count_request();
        stream.set_nodelay(true)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")?;
        let mut due = Instant::now();
        for number in 1u64.. {
            let uptime = self.status.uptime().as_secs_f64();
            let line = format!("{number} {} {uptime:.3}\n", self.status.identity.name);
            stream.write_all(line.as_bytes())?;
            due = (due + HOLD_INTERVAL).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Answer {
        let number = self.status.count_request();
        if request.method != "GET" && request.method != "HEAD" {
            return text(
                "405 Method Not Allowed",
                "only GET and HEAD are answered\n".to_owned(),
            );
        }
        let Some(site) = self.site(&request.host) else {
            return text(
                "404 Not Found",
                format!("{:?} is not one of the sites of this guest\n", request.host),
            );
        };
        match request.path.as_str() {
            "/" | "/healthz" => {
                let (healthy, body) = self.status.report(site, number);
                let status = if healthy {
                    "200 OK"
                } else {
                    "503 Service Unavailable"
                };
                Answer {
                    status,
                    content_type: "application/json",
                    body,
                }
            }
            "/page" => self.page(site),
            other => text(
                "404 Not Found",
                format!("no {other:?} here; there are /, /healthz, /page and /hold\n"),
            ),
        }
    }

    /// The site that a Host header asks for: `Some(None)` is the guest itself, `None` nobody here.
    fn site<'a>(&self, host: &'a str) -> Option<Option<&'a str>> {
        let identity = &self.status.identity;
        if identity.sites.iter().any(|site| site == host) {
            return Some(Some(host));
        }
        let itself = identity.sites.is_empty()
            || host.is_empty()
            || host.eq_ignore_ascii_case(&identity.name)
            || host.parse::<IpAddr>().is_ok();
        itself.then_some(None)
    }

    /// The role's page, read from the system disk each time: it shows that the disk can be read.
    fn page(&self, site: Option<&str>) -> Answer {
        let identity = &self.status.identity;
        // Roles come from the seed and become a file name here.
        let plain = !identity.role.is_empty()
            && identity
                .role
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-');
        let file = if plain {
            format!("{}.html", identity.role)
        } else {
            "default.html".to_owned()
        };
        let read = fs::read_to_string(self.pages.join(&file))
            .or_else(|_| fs::read_to_string(self.pages.join("default.html")));
        match read {
            Ok(page) => {
                let body = page
                    .replace("{{name}}", &identity.name)
                    .replace("{{site}}", site.unwrap_or(&identity.name));
                Answer {
                    status: "200 OK",
                    content_type: "text/html; charset=utf-8",
                    body,
                }
            }
            Err(error) => text(
                "500 Internal Server Error",
                format!("{}: {error}\n", self.pages.display()),
            ),
        }
    }
}

fn text(status: &'static str, body: String) -> Answer {
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body,
    }
}

fn refuse(stream: &mut TcpStream, what: &str) -> io::Result<()> {
    let length = what.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{what}"
    );
    stream.write_all(answer.as_bytes())
}
