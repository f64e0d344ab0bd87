//! What faults make of a host's sensors is what the real ipmitool reads from the real ipmi_sim, in the
//! words that the agent judges. No lab, no root.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::bmc::sensors::{commands, write_values};
use serde_json::{Value, json};

const PASSWORD: &str = "0123456789abcdef";

/// A simulator with the sensors of a lab host.
struct Bmc {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Bmc {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("ipmi-sensors-{}", std::process::id()));
        fs::create_dir_all(folder.join("state")).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        drop(socket);
        let lan = format!(
            "name \"h4\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n    allowed_auths_admin none md2 md5 straight\n    guid 00112233445566778899aabbccddeeff\n  endlan\n  user 2 true \"fence\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n"
        );
        fs::write(folder.join("lan.conf"), lan).unwrap();
        let commands = commands(&folder.join("sensors"));
        let commands = format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n{commands}mc_enable 0x20\n"
        );
        fs::write(folder.join("commands.emu"), commands).unwrap();
        write_values(&folder.join("sensors"), &Value::Null).unwrap();
        let child = Command::new("ipmi_sim")
            .arg("-n")
            .arg("-c")
            .arg(folder.join("lan.conf"))
            .arg("-f")
            .arg(folder.join("commands.emu"))
            .arg("-s")
            .arg(folder.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            port,
        }
    }

    /// Name, state and value of each sensor.
    fn sensors(&self) -> Vec<[String; 3]> {
        let output = Command::new("ipmitool")
            .args(["-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p"])
            .arg(self.port.to_string())
            .args(["-U", "fence", "-P", PASSWORD, "-L", "ADMINISTRATOR"])
            .args(["-d", "0", "sdr", "elist"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            [0, 2, 4].map(|field| fields.get(field).copied().unwrap_or_default().to_owned())
        });
        lines.collect()
    }

    /// Waits until a sensor is in a state with a value.
    fn wait(&self, name: &str, state: &str, value: &str) {
        let expected = [name, state, value];
        let mut last = Vec::new();
        let shown = || {
            last = self.sensors();
            Ok(last.iter().any(|sensor| *sensor == expected))
        };
        let waited = lab::process::wait_for(name, Duration::from_secs(30), shown);
        assert!(waited.is_ok(), "{expected:?}, but {last:?}");
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn faults_show_over_ipmi_and_go_again() {
    let bmc = Bmc::start();
    let healthy = [
        ("CPU Temp", "ok", "41 degrees C"),
        ("Fan 1", "ok", "5000 RPM"),
        ("PS1 Status", "ok", "Presence detected"),
    ];
    for (name, state, value) in healthy {
        bmc.wait(name, state, value);
    }
    assert_eq!(bmc.sensors().len(), 7, "four fans, two supplies");
    let faults = json!({"temperature": 99, "fan_failed": 1, "psu_failed": 1});
    write_values(&bmc.folder.join("sensors"), &faults).unwrap();
    bmc.wait("CPU Temp", "ucr", "99 degrees C");
    bmc.wait("Fan 1", "lcr", "0 RPM");
    bmc.wait("PS1 Status", "ok", "Presence detected, Failure detected");
    // The others are as they were.
    bmc.wait("Fan 2", "ok", "5000 RPM");
    bmc.wait("PS2 Status", "ok", "Presence detected");
    let healed = json!({"temperature": 41, "fan_failed": null, "psu_failed": null});
    write_values(&bmc.folder.join("sensors"), &healed).unwrap();
    for (name, state, value) in healthy {
        bmc.wait(name, state, value);
    }
}
