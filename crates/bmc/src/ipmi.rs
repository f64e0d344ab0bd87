//! IPMI 2.0 over LAN (lanplus) through `ipmitool`, a well-kept client; we write no IPMI
//! session code of our own. Arguments are passed as a list, the password through the
//! environment variable `IPMI_PASSWORD`, never on the command line.

use std::process::{Output, Stdio};

use api::Bmc as BmcSpec;
use async_trait::async_trait;
use failover::proof::power::{PowerAnswer, same_machine};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::{Bmc, BmcError, Credentials, PowerReport, Switch, bounded};

/// Largest answer of the tool that is read, bytes.
const ANSWER_BYTES: u64 = 16 * 1024;
/// Cipher suite where none is declared (SHA-256 based, IPMI 2.0 errata 4).
const CIPHER_SUITE: i32 = 17;
/// Port of RMCP+.
const PORT: u16 = 623;

/// One controller.
pub struct Ipmi {
    host: String,
    port: u16,
    cipher_suite: i32,
    address: String,
    credentials: Credentials,
}

impl Ipmi {
    /// A client for one controller.
    ///
    /// # Errors
    /// When the address is not `address` or `address:port`.
    pub fn new(spec: &BmcSpec, credentials: Credentials) -> Result<Self, BmcError> {
        let (host, port) = split(&spec.address).ok_or_else(|| BmcError::Declaration {
            field: "spec.bmcs.address",
            why: format!(
                "{:?} is no address of an IPMI controller; write 10.0.0.1 or 10.0.0.1:623",
                spec.address
            ),
        })?;
        Ok(Self {
            host,
            port,
            cipher_suite: spec.cipher_suite.unwrap_or(CIPHER_SUITE),
            address: spec.address.clone(),
            credentials,
        })
    }

    async fn run(&self, words: &[&str]) -> Result<String, BmcError> {
        let unreachable = |source: std::io::Error| BmcError::Unreachable {
            address: self.address.clone(),
            source: source.into(),
        };
        let mut child = Command::new("ipmitool")
            .args([
                "-I",
                "lanplus",
                "-H",
                &self.host,
                "-p",
                &self.port.to_string(),
            ])
            .args([
                "-U",
                &self.credentials.username,
                "-E",
                "-C",
                &self.cipher_suite.to_string(),
            ])
            // One second a try, three tries: within the bound of a call.
            .args(["-N", "1", "-R", "3"])
            .args(words)
            .env("IPMI_PASSWORD", &self.credentials.password)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(unreachable)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read_out = async {
            match out {
                Some(out) => out
                    .take(ANSWER_BYTES)
                    .read_to_end(&mut stdout)
                    .await
                    .map(|_| ()),
                None => Ok(()),
            }
        };
        let read_err = async {
            match err {
                Some(err) => err
                    .take(ANSWER_BYTES)
                    .read_to_end(&mut stderr)
                    .await
                    .map(|_| ()),
                None => Ok(()),
            }
        };
        let (one, two) = tokio::join!(read_out, read_err);
        one.and(two).map_err(unreachable)?;
        let status = child.wait().await.map_err(unreachable)?;
        self.judge(Output {
            status,
            stdout,
            stderr,
        })
    }

    fn judge(&self, output: Output) -> Result<String, BmcError> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let address = self.address.clone();
        if said.contains("RAKP 2") || said.contains("password") || said.contains("nauthorized") {
            return Err(BmcError::Unauthorised { address });
        }
        let first: String = said
            .lines()
            .next()
            .unwrap_or("nothing")
            .chars()
            .take(120)
            .collect();
        Err(BmcError::Unreachable {
            address,
            source: first.into(),
        })
    }

    async fn uuid(&self) -> Result<String, BmcError> {
        let answer = self.run(&["mc", "guid"]).await?;
        guid(&answer).ok_or_else(|| BmcError::Malformed {
            address: self.address.clone(),
            what: "no system GUID".to_owned(),
        })
    }

    /// Commands the power of this machine and of no other.
    async fn order(&self, power: &str, expected_uuid: &str) -> Result<(), BmcError> {
        bounded(&self.address, async {
            let reported = self.uuid().await?;
            if !same_machine(&reported, expected_uuid) {
                let address = &self.address;
                return Err(BmcError::other_machine(address, &reported, expected_uuid));
            }
            self.run(&["chassis", "power", power]).await.map(drop)
        })
        .await
    }
}

/// `address`, `address:port` or `[v6]:port`; never something that the tool could take for
/// an option.
fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match address.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) => (address, None),
            None => (address, None),
        },
    };
    let port = port.map_or(Ok(PORT), str::parse).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    (!host.is_empty() && !host.starts_with('-') && host.chars().all(plain))
        .then(|| (host.to_owned(), port))
}

/// The GUID in the output of `mc guid`, whatever stands around it.
fn guid(output: &str) -> Option<String> {
    let line = output
        .lines()
        .find(|line| line.trim_start().starts_with("System GUID"))?;
    let value = line.split_once(':')?.1.trim();
    same_machine(value, value).then(|| value.to_ascii_lowercase())
}

/// The power in the output of `chassis power status`.
fn power(output: &str) -> Option<PowerAnswer> {
    match output.trim().strip_prefix("Chassis Power is ")? {
        "on" => Some(PowerAnswer::On),
        "off" => Some(PowerAnswer::Off),
        _ => None,
    }
}

#[async_trait]
impl Bmc for Ipmi {
    async fn read(&self, _expected_uuid: &str) -> Result<PowerReport, BmcError> {
        bounded(&self.address, async {
            // Identity first: the power that is read after it is the newer fact.
            let system_uuid = Some(self.uuid().await?);
            let answer = self.run(&["chassis", "power", "status"]).await?;
            let power = power(&answer).ok_or_else(|| BmcError::Malformed {
                address: self.address.clone(),
                what: "no power status".to_owned(),
            })?;
            Ok(PowerReport { power, system_uuid })
        })
        .await
    }

    async fn force_off(&self, expected_uuid: &str) -> Result<(), BmcError> {
        self.order("off", expected_uuid).await
    }
}

#[async_trait]
impl Switch for Ipmi {
    async fn switch_on(&self, expected_uuid: &str) -> Result<(), BmcError> {
        self.order("on", expected_uuid).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_options_refused() {
        assert_eq!(split("10.0.0.1"), Some(("10.0.0.1".to_owned(), 623)));
        assert_eq!(split("10.0.0.1:9003"), Some(("10.0.0.1".to_owned(), 9003)));
        assert_eq!(split("[fd00::1]:623"), Some(("fd00::1".to_owned(), 623)));
        assert_eq!(split("fd00::1"), Some(("fd00::1".to_owned(), 623)));
        for bad in ["", "-f", "a b", "h:port", "h:99999", "$(id)", "[fd00::1"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    /// Whatever the tool prints, it is Off only where a whole line says so.
    #[test]
    fn no_mangled_output_reads_off_by_itself() {
        use crate::chance::{Chance, cases};
        const STATUS: &str = "Chassis Power is off\n";
        const GUID: &str =
            "System GUID  : a1234567-89ab-cdef-a123-456789abcdef\nTimestamp    : 1\n";
        let mut chance = Chance::from_environment();
        let mut off = 0_u64;
        for _ in 0..cases() {
            let bytes = chance.mangle(STATUS.as_bytes());
            let text = String::from_utf8_lossy(&bytes);
            if power(&text) == Some(PowerAnswer::Off) {
                assert_eq!(text.trim(), "Chassis Power is off");
                off += 1;
            }
            let bytes = chance.mangle(GUID.as_bytes());
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some(guid) = guid(&text) {
                assert!(text.to_ascii_lowercase().contains(&guid), "{text:?}");
            }
        }
        assert!(off > 0);
    }

    #[test]
    fn answers_of_the_tool_are_read_strictly() {
        assert_eq!(power("Chassis Power is on\n"), Some(PowerAnswer::On));
        assert_eq!(power("Chassis Power is off\n"), Some(PowerAnswer::Off));
        for bad in [
            "",
            "Chassis Power is ",
            "Chassis Power Control: Down/Off",
            "off",
        ] {
            assert_eq!(power(bad), None, "{bad}");
        }
        let output = "System GUID  : a1234567-89ab-cdef-a123-456789abcdef\nTimestamp    : x\n";
        assert_eq!(
            guid(output).as_deref(),
            Some("a1234567-89ab-cdef-a123-456789abcdef")
        );
        assert_eq!(guid("System GUID  : none\n"), None);
    }
}
