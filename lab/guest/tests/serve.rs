//! The program as a whole on this machine: seed in, HTTP out, stamped disk; no guest needed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guest::seed::Identity;
use guest::server::Server;
use guest::status::{DiskState, Status};
use guest::writer::Log;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("guest-serve-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts a server on a free port; returns its address and status.
fn serve(folder: &Folder, sites: &[&str]) -> (String, Arc<Status>) {
    fs::write(
        folder.0.join("website.html"),
        "<h1>{{site}} on {{name}}</h1>",
    )
    .unwrap();
    let identity = Identity {
        name: "web-0".into(),
        role: "website".into(),
        tier: "web".into(),
        sites: sites.iter().map(|site| (*site).to_owned()).collect(),
    };
    let status = Arc::new(Status::new(identity, 1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Server::new(Arc::clone(&status), folder.0.clone())
        .start(listener)
        .unwrap();
    (address, status)
}

fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn sites_are_told_apart_by_host_header() {
    let folder = Folder::new("sites");
    let (address, _) = serve(&folder, &["portal.example", "mengzi.example"]);
    let answer = get(&address, "/", "Portal.example:80");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"site\":\"portal.example\""),
        "{answer}"
    );
    assert!(get(&address, "/", "10.0.0.5").contains("\"site\":null"));
    assert!(get(&address, "/", "other.example").starts_with("HTTP/1.1 404"));
    let page = get(&address, "/page", "mengzi.example");
    assert!(page.ends_with("<h1>mengzi.example on web-0</h1>"), "{page}");
    assert!(get(&address, "/nothing", "portal.example").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_kept_connection_counts_its_requests() {
    let folder = Folder::new("keep");
    let (address, _) = serve(&folder, &[]);
    let stream = TcpStream::connect(&address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for number in 1..=3 {
        write!(&stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0u8; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains(&format!("\"requests\":{number},")), "{body}");
    }
}

#[test]
fn a_held_connection_speaks_every_second_without_hindering_others() {
    let folder = Folder::new("hold");
    let (address, _) = serve(&folder, &[]);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(stream, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream)
        .lines()
        .map(Result::unwrap)
        .skip_while(|line| !line.is_empty())
        .skip(1);
    assert!(lines.next().unwrap().starts_with("1 web-0 "));
    assert!(get(&address, "/", "x").starts_with("HTTP/1.1 200"));
    assert!(lines.next().unwrap().starts_with("2 web-0 "));
}

#[test]
fn a_hundred_clients_at_once_are_all_answered() {
    let folder = Folder::new("many");
    let (address, status) = serve(&folder, &[]);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let address = address.clone();
            thread::spawn(move || get(&address, "/", "x").starts_with("HTTP/1.1 200"))
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    assert_eq!(status.count_request(), 101);
}

#[test]
fn a_stalled_data_disk_shows_as_503() {
    let folder = Folder::new("stall");
    let (address, status) = serve(&folder, &[]);
    status.set_disk(DiskState {
        message: "/dev/vdb: Input/output error".into(),
        ..DiskState::default()
    });
    let answer = get(&address, "/", "x");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("Input/output error"),
        "{answer}"
    );
}

#[test]
fn the_writer_acknowledges_only_what_lies_on_the_disk() {
    let folder = Folder::new("writer");
    let disk = folder.0.join("disk");
    fs::write(&disk, vec![0u8; 64 * 512]).unwrap();
    let status = Arc::new(Status::new(
        Identity {
            name: "db".into(),
            ..Identity::default()
        },
        1,
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let thread = {
        let (status, stop, disk) = (Arc::clone(&status), Arc::clone(&stop), disk.clone());
        thread::spawn(move || guest::writer::run(&status, &disk, [7; 16], &stop))
    };
    let limit = Instant::now() + Duration::from_secs(60);
    while !status.report(None, 1).1.contains("\"counter\":2") {
        assert!(
            Instant::now() < limit,
            "no second record: {}",
            status.report(None, 1).1
        );
        thread::sleep(Duration::from_millis(20));
    }
    let seen_on_disk = Log::open(&disk, "db", [7; 16], false)
        .unwrap()
        .state()
        .counter;
    assert!(seen_on_disk >= 2);
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
}
