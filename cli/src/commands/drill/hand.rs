//! Who makes the faults of a drill: the lab's own fault interface, the host's BMC, or a person.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;

use super::definition::{Place, Text};
use super::power;
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
            Hand::Bmc => power::switch(client, act.host, act.heal).await,
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
    run(command).with_context(|| format!("--lab {lab}"))
}

fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} can not be run; is it installed?"))?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
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
}
