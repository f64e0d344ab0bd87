//! The HTTP/1.1 that the guest speaks: reads request heads, writes answers. Knows no paths.

use std::fmt;
use std::io::{self, Read, Write};

/// Longest request head, bytes.
pub const HEAD_BYTES_MAXIMUM: usize = 8 * 1024;

/// A request without its body: the guest answers GET and HEAD only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method, as sent.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// Host header without port, lower case; empty when there is none.
    pub host: String,
    /// The client wants the connection kept.
    pub keep_alive: bool,
}

/// Why no request was read.
#[derive(Debug)]
pub enum RequestError {
    /// The client closed before sending anything: the usual end of a kept connection.
    Closed,
    /// Reading failed or took too long.
    Read(io::Error),
    /// What came is no request that we answer.
    Malformed(&'static str),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Closed => f.write_str("closed by the client"),
            RequestError::Read(error) => write!(f, "reading failed: {error}"),
            RequestError::Malformed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RequestError {}

/// Reads one request head. Bytes after it (pipelined requests) are kept in `left_over` for the next.
pub fn read_request(
    stream: &mut impl Read,
    left_over: &mut Vec<u8>,
) -> Result<Request, RequestError> {
    let mut searched = 0;
    loop {
        if let Some(end) = find_end(left_over, searched) {
            let request = parse_head(&left_over[..end]);
            left_over.drain(..end);
            return request;
        }
        if left_over.len() >= HEAD_BYTES_MAXIMUM {
            return Err(RequestError::Malformed("request head is longer than 8 KiB"));
        }
        searched = left_over.len().saturating_sub(3);
        let mut chunk = [0u8; 1024];
        match stream.read(&mut chunk) {
            Ok(0) if left_over.is_empty() => return Err(RequestError::Closed),
            Ok(0) => return Err(RequestError::Malformed("request ends in its head")),
            Ok(count) => left_over.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RequestError::Read(error)),
        }
    }
}

/// Position after the empty line that ends a head.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..]
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| from + at + 4)
}

fn parse_head(head: &[u8]) -> Result<Request, RequestError> {
    let text = std::str::from_utf8(head)
        .map_err(|_| RequestError::Malformed("request head is no text"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(RequestError::Malformed(
            "request line is not METHOD PATH VERSION",
        ));
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(RequestError::Malformed(
            "only HTTP/1 and paths that begin with / are answered",
        ));
    }
    let mut host = "";
    let mut keep_alive = version != "HTTP/1.0";
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("host") {
            host = value.trim();
        } else if name.eq_ignore_ascii_case("connection") {
            keep_alive = match value.trim() {
                close if close.eq_ignore_ascii_case("close") => false,
                keep if keep.eq_ignore_ascii_case("keep-alive") => true,
                _ => keep_alive,
            };
        }
    }
    Ok(Request {
        method: method.to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        host: without_port(host).to_ascii_lowercase(),
        keep_alive,
    })
}

/// `www.example.gov.cn:80` → `www.example.gov.cn`, `[fd00::1]:80` → `fd00::1`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code and reason, such as `200 OK`.
    pub status: &'static str,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

impl Answer {
    /// Writes the answer in one call, so that it leaves in one packet.
    pub fn write(&self, stream: &mut impl Write, request: &Request, keep: bool) -> io::Result<()> {
        let connection = if keep { "keep-alive" } else { "close" };
        let body = if request.method == "HEAD" {
            ""
        } else {
            &self.body
        };
        let text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            self.status,
            self.content_type,
            self.body.len(),
        );
        stream.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Result<Request, RequestError> {
        read_request(&mut text.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn heads_are_read() {
        let request = read("GET /page?x=1 HTTP/1.1\r\nhOsT: WWW.a.example:80\r\n\r\n").unwrap();
        let expected = Request {
            method: "GET".into(),
            path: "/page".into(),
            host: "www.a.example".into(),
            keep_alive: true,
        };
        assert_eq!(request, expected);
        assert!(
            !read("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert_eq!(
            read("GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n")
                .unwrap()
                .host,
            "fd00::1"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(read(""), Err(RequestError::Closed)));
        for text in [
            "GET /\r\n\r\n",
            "GET / SMTP/1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert!(
                matches!(read(text), Err(RequestError::Malformed(_))),
                "{text:?}"
            );
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(2 * HEAD_BYTES_MAXIMUM));
        assert!(matches!(read(&long), Err(RequestError::Malformed(_))));
    }

    #[test]
    fn pipelined_requests_wait_their_turn() {
        let mut stream = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n".as_bytes();
        let mut left_over = Vec::new();
        assert_eq!(
            read_request(&mut stream, &mut left_over).unwrap().path,
            "/1"
        );
        assert_eq!(
            read_request(&mut stream, &mut left_over).unwrap().path,
            "/2"
        );
        assert!(matches!(
            read_request(&mut stream, &mut left_over),
            Err(RequestError::Closed)
        ));
    }

    #[test]
    fn head_requests_get_no_body() {
        let request = read("HEAD / HTTP/1.1\r\n\r\n").unwrap();
        let answer = Answer {
            status: "200 OK",
            content_type: "text/plain",
            body: "abc".into(),
        };
        let mut out = Vec::new();
        answer.write(&mut out, &request, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }
}
