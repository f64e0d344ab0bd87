//! What the `qemu` hook lets pass. Whoever asks libvirt, a domain of ours starts only for an
//! epoch that the ledger has as `used`, and once.

use std::path::Path;

use hypervisor::owner_from_xml;

use crate::ledger::{EpochState, Ledger};

/// Judges an operation of libvirt on a domain; an error refuses it.
///
/// # Errors
/// Why it is refused.
pub fn judge(run_dir: &Path, operation: &str, xml: &str) -> Result<(), String> {
    // A failing hook on reconnect would make libvirt kill the domain: never.
    if !matches!(operation, "prepare" | "migrate" | "restore") {
        return Ok(());
    }
    // Not ours: a stray is reported by the agent, never touched.
    let Some(owner) = owner_from_xml(xml) else {
        return Ok(());
    };
    let ledger = Ledger::new(run_dir);
    let (uid, epoch) = (owner.vm.as_str(), owner.epoch.0);
    match operation {
        "prepare" => ledger.start(uid, epoch).map_err(|error| error.to_string()),
        "migrate" => match ledger
            .entry(uid)
            .map_err(|error| error.to_string())?
            .state(epoch)
        {
            Some(EpochState::Used) => Ok(()),
            state => Err(format!(
                "epoch {epoch} of VM {uid} is {state:?}; an arrival needs an epoch that is used"
            )),
        },
        _ => Err("managed save and restore are not used by this platform".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><metadata><zy:owner xmlns:zy='x' vm='u1' namespace='n' name='v' bootId='b' epoch='3'/></metadata></domain>";

    #[test]
    fn a_start_passes_once_and_only_for_a_used_epoch() {
        let folder = tempfile::tempdir().expect("a folder");
        judge(folder.path(), "prepare", XML).expect_err("never used");
        Ledger::new(folder.path()).take("u1", 3, 0).expect("use");
        judge(folder.path(), "migrate", XML).expect("an arrival may begin");
        judge(folder.path(), "prepare", XML).expect("first");
        judge(folder.path(), "prepare", XML).expect_err("second");
        judge(folder.path(), "migrate", XML).expect_err("it is here already");
    }

    #[test]
    fn reconnect_always_passes_and_restore_never() {
        let folder = tempfile::tempdir().expect("a folder");
        judge(folder.path(), "reconnect", XML).expect("or libvirt would kill the domain");
        judge(folder.path(), "reconnect", "garbage").expect("whatever it is");
        judge(folder.path(), "restore", XML).expect_err("an old image over newer disks");
        judge(folder.path(), "prepare", "<domain/>").expect("a stray is not ours to refuse");
    }
}
