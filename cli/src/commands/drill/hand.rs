//! Who makes the faults of a drill: the lab's own fault interface, the host's BMC, or a person.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use api::{Bmc, BmcProtocol, Host};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::definition::{Place, Text};
use crate::language::Language;

/// Who makes a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    /// `zylab fault`, for the lab of that name.
    Lab(String),
    /// The host's BMC: it can cut the power and nothing else.
    Bmc,
    /// A person does what is said and presses Enter.
    Person,
}

/// One fault to make or to end.
pub struct Act<'a> {
    /// Its name.
    pub fault: &'a str,
    /// Where.
    pub at: Place,
    /// The host of the drill.
    pub host: &'a str,
    /// End it.
    pub heal: bool,
    /// What a person does.
    pub say: &'a Text,
}

impl Hand {
    /// Whether it can make a fault at all; asked before anything is done.
    ///
    /// # Errors
    /// It can not; says who can.
    pub fn can(&self, fault: &str) -> Result<()> {
        if *self == Hand::Bmc && fault != "power-loss" {
            bail!(
                "--by bmc: a BMC can not make {fault}; use --by person, who does it by hand, or --lab NAME"
            );
        }
        Ok(())
    }

    /// Does it.
    ///
    /// # Errors
    /// It was refused.
    pub async fn act(&self, client: &Client, language: Language, act: &Act<'_>) -> Result<()> {
        match self {
            Hand::Lab(lab) => in_lab(lab, act),
            Hand::Bmc => through_bmc(client, act).await,
            Hand::Person => {
                eprintln!("{}", language.pick(&act.say.en, &act.say.zh));
                let done = language.pick("Press Enter when it is done.", "完成后按回车键。");
                eprint!("{done} ");
                std::io::stderr().flush()?;
                let mut line = String::new();
                ensure!(
                    std::io::stdin().read_line(&mut line)? > 0,
                    "nobody is there to do it: standard input has ended"
                );
                Ok(())
            }
        }
    }
}

fn in_lab(lab: &str, act: &Act<'_>) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("zylab");
    let mut command = Command::new(&program);
    command.args(["fault", "--name", lab]);
    if act.heal {
        command.arg("--heal");
    }
    command.arg(act.fault);
    if act.at == Place::Host {
        command.arg(act.host);
    }
    run(command, None).with_context(|| format!("--lab {lab}"))
}

async fn through_bmc(client: &Client, act: &Act<'_>) -> Result<()> {
    let host: Host = Api::all(client.clone()).get(act.host).await?;
    let namespace = api::names::SYSTEM_NAMESPACE;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut last = None;
    for bmc in &host.spec.bmcs {
        let secret = secrets
            .get(&bmc.credentials.name)
            .await
            .with_context(|| format!("Secret {namespace}/{}", bmc.credentials.name))?;
        let word = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            let bytes =
                data.with_context(|| format!("Secret {}: no {key}", bmc.credentials.name))?;
            Ok::<_, anyhow::Error>(String::from_utf8(bytes.0.clone())?)
        };
        let (user, password) = (word("username")?, word("password")?);
        let result = match bmc.protocol {
            BmcProtocol::Ipmi => by_ipmi(bmc, &user, &password, act.heal),
            BmcProtocol::Redfish => by_redfish(bmc, &user, &password, act.heal),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("host {}: spec.bmcs is empty", act.host)))
}

fn by_ipmi(bmc: &Bmc, user: &str, password: &str, on: bool) -> Result<()> {
    let (address, port) = bmc.address.split_once(':').unwrap_or((&bmc.address, "623"));
    let mut command = Command::new("ipmitool");
    command
        .args(["-I", "lanplus", "-H", address, "-p", port, "-U", user, "-E"])
        .args(["-C", &bmc.cipher_suite.unwrap_or(17).to_string()])
        .args(["chassis", "power", if on { "on" } else { "off" }])
        .env("IPMI_PASSWORD", password);
    run(command, None)
}

/// Through `curl`, which has every transport that controllers speak. The credentials go through its
/// standard input, where no list of processes shows them.
fn by_redfish(bmc: &Bmc, user: &str, password: &str, on: bool) -> Result<()> {
    let base = bmc.address.trim_end_matches('/');
    let login = format!("user = \"{}:{}\"\n", quoted(user), quoted(password));
    let get = |path: &str| -> Result<serde_json::Value> {
        let mut command = curl();
        command.arg(format!("{base}{path}"));
        Ok(serde_json::from_str(&output(command, Some(&login))?)?)
    };
    let systems = get("/redfish/v1/Systems")?;
    let path = systems["Members"][0]["@odata.id"]
        .as_str()
        .context("the BMC names no system")?
        .to_owned();
    let system = get(&path)?;
    let target = system["Actions"]["#ComputerSystem.Reset"]["target"]
        .as_str()
        .context("the BMC has no reset action")?;
    let action = if on { "On" } else { "ForceOff" };
    let mut command = curl();
    command
        .args([
            "--request",
            "POST",
            "--header",
            "Content-Type: application/json",
        ])
        .args(["--data", &format!("{{\"ResetType\": \"{action}\"}}")])
        .arg(format!("{base}{target}"));
    run(command, Some(&login))
}

fn curl() -> Command {
    let mut command = Command::new("curl");
    // Most controllers come with a certificate that they signed themselves.
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--insecure",
        "--max-time",
        "20",
        "--config",
        "-",
    ]);
    command
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn run(command: Command, input: Option<&str>) -> Result<()> {
    output(command, input).map(drop)
}

fn output(mut command: Command, input: Option<&str>) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{name} can not be run; is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bmc_can_cut_the_power_and_nothing_else() {
        assert!(Hand::Bmc.can("power-loss").is_ok());
        assert!(Hand::Bmc.can("kernel-hang").is_err());
        assert!(Hand::Person.can("kernel-hang").is_ok());
    }

    #[test]
    fn a_password_can_not_break_out_of_its_line() {
        assert_eq!(quoted("a\"b\\c"), "a\\\"b\\\\c");
    }
}
