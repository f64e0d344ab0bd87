//! One HTTP request on a new TCP connection, and what the answer says. No clocks, no retries.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::results::{GuestWord, Target};

/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAXIMUM: usize = 64 * 1024;

/// An answer: its status and body.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body, as far as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// What the guest says about itself, when the body is its JSON.
    pub fn guest(&self) -> Option<GuestWord> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Connects and sends a GET; `keep` asks for a connection that stays.
pub async fn send(target: &Target, path: &str, keep: bool) -> Result<TcpStream, String> {
    let address: SocketAddr = target.address;
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("connecting failed: {error}"))?;
    let host = target
        .host_header
        .clone()
        .unwrap_or_else(|| address.to_string());
    let connection = if keep { "keep-alive" } else { "close" };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("sending failed: {error}"))?;
    Ok(stream)
}

/// One whole request: connect, send, read the whole answer.
pub async fn get(target: &Target) -> Result<Answer, String> {
    let mut stream = send(target, &target.path, false).await?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bytes.len() > ANSWER_BYTES_MAXIMUM {
            return Err(format!(
                "the answer is longer than {ANSWER_BYTES_MAXIMUM} bytes"
            ));
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) => {
                return parse(&bytes, true)?
                    .ok_or_else(|| "closed before the whole answer came".to_owned());
            }
            Ok(_) => {}
            Err(error) => return Err(format!("reading failed: {error}")),
        }
    }
}

/// Parses an answer; `None` while more must come. Without a content length the end is the end.
fn parse(bytes: &[u8], ended: bool) -> Result<Option<Answer>, String> {
    let Some((status, length, at)) = head(bytes)? else {
        return Ok(None);
    };
    let body = &bytes[at..];
    match length {
        Some(length) if body.len() >= length => Ok(Some(Answer {
            status,
            body: body[..length].to_vec(),
        })),
        None if ended => Ok(Some(Answer {
            status,
            body: body.to_vec(),
        })),
        _ => Ok(None),
    }
}

/// Status, content length and where the body begins; `None` while the head is not whole.
pub fn head(bytes: &[u8]) -> Result<Option<(u16, Option<usize>, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let status = response
        .parse(bytes)
        .map_err(|error| format!("the answer is no HTTP: {error}"))?;
    let httparse::Status::Complete(at) = status else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        None => None,
        Some(header) => {
            let text = String::from_utf8_lossy(header.value);
            Some(
                text.trim()
                    .parse()
                    .map_err(|_| format!("content length {text:?} is no number"))?,
            )
        }
    };
    Ok(Some((response.code.unwrap_or(0), length, at)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert!(
            parse(&text[..text.len() - 1], true).unwrap().is_none(),
            "cut short"
        );
        let answer = parse(text, false).unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"hello".as_slice())
        );
        let until_end = b"HTTP/1.1 503 No\r\n\r\nx";
        assert!(parse(until_end, false).unwrap().is_none());
        assert_eq!(parse(until_end, true).unwrap().unwrap().status, 503);
        assert!(parse(b"SSH-2.0-x\r\n", false).is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false).is_err());
    }

    #[test]
    fn the_guests_own_words_are_understood() {
        // As lab/guest/src/status.rs writes them.
        let body = br#"{"name":"db-0","tier":"database","role":"database","site":null,"boot_count":2,"uptime_seconds":12.345,"requests":7,"disk":{"healthy":true,"counter":5,"writer":"ab","boot_count":2,"conflicts":0,"age_milliseconds":3,"message":""}}"#;
        let word = Answer {
            status: 200,
            body: body.to_vec(),
        }
        .guest()
        .unwrap();
        assert_eq!((word.name.as_str(), word.boot_count), ("db-0", 2));
        assert_eq!(word.disk.unwrap().counter, 5);
        let web = br#"{"name":"w","boot_count":1,"uptime_seconds":1.0,"disk":null}"#;
        assert!(
            Answer {
                status: 200,
                body: web.to_vec()
            }
            .guest()
            .unwrap()
            .disk
            .is_none()
        );
        assert!(
            Answer {
                status: 200,
                body: b"<html>".to_vec()
            }
            .guest()
            .is_none()
        );
    }
}
