//! What faults make of a host's power supplies is found over Redfish as a reader finds it: from the chassis, by its
//! links. No lab, no root.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

const PASSWORD: &str = "0123456789abcdef";
/// `fence` and the password as HTTP wants them.
const LOGIN: &str = "ZmVuY2U6MDEyMzQ1Njc4OWFiY2RlZg==";

/// The emulator of a host's BMC.
struct Bmc {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Bmc {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("uuid", "00112233-4455-4677-8899-aabbccddeeff"),
            ("bmc-mode", "ok"),
            ("bmc-password", PASSWORD),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(socket);
        let child = Command::new(lab::files::cache().join("venv/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bmc/redfish.py"))
            .args(["--zylab", "false", "--lab", "none", "--host", "h1"])
            .args(["--address", "127.0.0.1", "--port", &port.to_string()])
            .arg("--folder")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bmc = Self {
            child,
            folder,
            port,
        };
        let answers = || Ok(bmc.get("/redfish/v1/Chassis").is_ok());
        lab::process::wait_for("the BMC", Duration::from_secs(60), answers).unwrap();
        bmc
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: bmc\r\nAuthorization: Basic {LOGIN}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Follows a link of a resource.
    fn follow(&self, resource: &Value, link: &str) -> Value {
        let path = resource.pointer(link).and_then(Value::as_str);
        let path = path.unwrap_or_else(|| panic!("no {link} in {resource}"));
        self.get(path).unwrap()
    }

    /// Health of each supply.
    fn supplies(&self) -> Vec<String> {
        let all = self.get("/redfish/v1/Chassis").unwrap();
        let chassis = self.follow(&all, "/Members/0/@odata.id");
        let power = self.follow(&chassis, "/Power/@odata.id");
        let supplies = power["PowerSupplies"].as_array().unwrap();
        let health = |supply: &Value| supply["Status"]["Health"].as_str().unwrap().to_owned();
        supplies.iter().map(health).collect()
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_supply_that_fails_is_found_from_the_chassis() {
    let bmc = Bmc::start();
    assert_eq!(bmc.supplies(), ["OK", "OK"]);
    let sensors = bmc.folder.path().join("sensors.json");
    fs::write(&sensors, json!({"psu_failed": 1}).to_string()).unwrap();
    assert_eq!(bmc.supplies(), ["Critical", "OK"]);
    fs::write(&sensors, json!({"psu_failed": null}).to_string()).unwrap();
    assert_eq!(bmc.supplies(), ["OK", "OK"]);
}
