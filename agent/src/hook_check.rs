//! Whether libvirt's `qemu` hook is ours and does its work: it refuses a start that no ledger allows,
//! in its own words, and lets a reconnect pass. Another program that fails at everything would make
//! libvirt kill domains when it restarts; one that passes everything guards nothing.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where libvirt looks for it.
pub const HOOK: &str = "/etc/libvirt/hooks/qemu";
/// How long one answer may take; libvirt waits for it at every start.
pub const BOUND: Duration = Duration::from_secs(5);
/// What ours begins each refusal with.
const NAME: &str = "zhengyun-qemu-hook:";
/// A domain that no ledger knows.
const UNKNOWN: &[u8] = b"<zy:owner vm='00000000-0000-0000-0000-000000000000' namespace='-' name='-' bootId='-' epoch='1'/>";

/// Asks the hook, given as a command line, as libvirt does.
///
/// # Errors
/// Why nothing may be started here.
pub async fn check(command: &[&str], bound: Duration) -> Result<(), String> {
    let (passed, said) = ask(command, "prepare", bound).await?;
    if passed {
        return Err(format!(
            "the qemu hook {} lets a start pass that no ledger allows; install zhengyun-qemu-hook there",
            command.join(" ")
        ));
    }
    if !said.contains(NAME) {
        return Err(format!(
            "the qemu hook {} is not zhengyun-qemu-hook; install it there",
            command.join(" ")
        ));
    }
    let (passed, said) = ask(command, "reconnect", bound).await?;
    if !passed {
        return Err(format!(
            "the qemu hook {} fails on reconnect, so a restart of libvirtd would kill VMs: {}; install zhengyun-qemu-hook there",
            command.join(" "),
            said.trim()
        ));
    }
    Ok(())
}

/// Whether it passes an operation on an unknown domain, and what it says.
async fn ask(command: &[&str], operation: &str, bound: Duration) -> Result<(bool, String), String> {
    let name = command.join(" ");
    let answer = async {
        let [program, arguments @ ..] = command else {
            return Err(std::io::Error::from(ErrorKind::NotFound));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .args(["zhengyun-verification", operation, "begin", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(UNKNOWN).await {
                // It need not read to the end.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(bound, answer).await {
        Err(_) => Err(format!(
            "the qemu hook {name} did not answer {operation} within {} s",
            bound.as_secs()
        )),
        Ok(Err(error)) => Err(format!(
            "the qemu hook {name} can not be run: {error}; install zhengyun-qemu-hook there"
        )),
        Ok(Ok(output)) => Ok((
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hook as a line of the shell; `$2` is the operation.
    async fn judged(script: &str) -> Result<(), String> {
        check(&["/bin/sh", "-c", script, "hook"], Duration::from_secs(2)).await
    }

    const REFUSES: &str = "echo zhengyun-qemu-hook: prepare: refused >&2; exit 1";

    #[tokio::test]
    async fn a_hook_that_refuses_the_start_and_passes_a_reconnect_is_ours() {
        let good = format!("cat >/dev/null; [ $2 = reconnect ] && exit 0; {REFUSES}");
        assert_eq!(judged(&good).await, Ok(()));
        let reads_nothing = format!("[ $2 = reconnect ] && exit 0; {REFUSES}");
        assert_eq!(judged(&reads_nothing).await, Ok(()));
    }

    #[tokio::test]
    async fn every_other_program_forbids_starts() {
        for (script, why) in [
            ("exit 0", "lets a start pass"),
            ("exit 1", "is not zhengyun-qemu-hook"),
            (
                "[ $2 = reconnect ] && exit 0; exit 1",
                "is not zhengyun-qemu-hook",
            ),
            (REFUSES, "fails on reconnect"),
            ("exec sleep 60", "did not answer prepare"),
        ] {
            let error = judged(script).await.expect_err(script);
            assert!(error.contains(why), "{script}: {error}");
        }
        let missing = check(&["/nonexistent/hook"], BOUND).await;
        assert!(missing.expect_err("missing").contains("can not be run"));
    }
}
