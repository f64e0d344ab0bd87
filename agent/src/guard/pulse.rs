//! How the agent's converge loop tells the guard that it goes round: a file of the run folder with the
//! host's incarnation and the time of the last turn on CLOCK_BOOTTIME, which all processes of a boot
//! share. No wall clock is asked: one that is set would make a loop seem to stand still.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use api::names::LEASE_LOOP_NEVER;
use failover::Moment;
use model::BootId;

fn file(run_dir: &Path) -> PathBuf {
    run_dir.join("loop")
}

/// Tells that the loop of that incarnation went round at `now`. The file is replaced, so that none is read
/// while it is half written; it need not outlive a crash of the host, so it is not synchronised.
///
/// # Errors
/// The file can not be written.
pub fn tell(run_dir: &Path, boot_id: &BootId, now: Moment) -> io::Result<()> {
    let path = file(run_dir);
    let new = path.with_extension("new");
    fs::write(&new, format!("{boot_id} {}\n", now.0))?;
    fs::rename(new, path)
}

/// Milliseconds since the loop last went round; [`LEASE_LOOP_NEVER`] when it has not in this incarnation. None
/// when the file does not say, such as the empty one of an agent of an older version: no word is no standstill.
pub fn age(run_dir: &Path, boot_id: &BootId, now: Moment) -> Option<u64> {
    let text = match fs::read_to_string(file(run_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(LEASE_LOOP_NEVER),
        Err(error) => {
            tracing::warn!(%error, "the agent's loop file can not be read");
            return None;
        }
    };
    let mut words = text.split_whitespace();
    let (Some(boot), Some(at), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let at = Moment(at.parse().ok()?);
    Some(if boot == boot_id.0 {
        now.since(at)
    } else {
        LEASE_LOOP_NEVER
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_clock_that_is_set_does_not_make_a_loop_stand_still() {
        let folder = tempfile::tempdir().expect("a folder");
        tell(folder.path(), &"b1".into(), Moment(10_000)).expect("tell");
        let hour = Duration::from_secs(3600);
        let wall = SystemTime::now();
        for changed in [wall - hour, wall, wall + hour] {
            let file = File::options().append(true).open(file(folder.path()));
            let file = file.expect("the file");
            file.set_modified(changed).expect("a time");
            assert_eq!(age(folder.path(), &"b1".into(), Moment(10_400)), Some(400));
        }
        tell(folder.path(), &"b1".into(), Moment(10_500)).expect("tell");
        assert_eq!(
            age(folder.path(), &"b1".into(), Moment(30_500)),
            Some(20_000)
        );
    }

    #[test]
    fn a_loop_of_another_boot_has_not_gone_round() {
        let folder = tempfile::tempdir().expect("a folder");
        let never = Some(LEASE_LOOP_NEVER);
        assert_eq!(
            age(folder.path(), &"b1".into(), Moment(50)),
            never,
            "no file"
        );
        // The clock begins anew with a boot: the time alone would be of the future, and young.
        tell(folder.path(), &"b1".into(), Moment(90_000)).expect("tell");
        assert_eq!(age(folder.path(), &"b2".into(), Moment(50)), never);
        assert_eq!(age(folder.path(), &"b2".into(), Moment(90_100)), never);
    }

    #[test]
    fn what_is_not_understood_is_no_word() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in ["", "b1", "b1 soon", "b1 -1", "b1 1 2", "\n"] {
            fs::write(file(folder.path()), text).expect("write");
            assert_eq!(
                age(folder.path(), &"b1".into(), Moment(5)),
                None,
                "{text:?}"
            );
        }
    }
}
