//! Heartbeat slots: one block of 4 KiB per host in folder `heartbeat` of a pool, written and
//! read by direct I/O, so that what is read lies on the pool and in no cache of this host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::HostName;
use serde::{Deserialize, Serialize};

use crate::storage::folder::PoolFolder;

/// Size and alignment of a slot, bytes: the largest logical block of disks in use.
const BLOCK: usize = 4096;
/// First line of a slot.
const MAGIC: &str = "zhengyun-heartbeat 1";
/// Longest content before the count at the block's end.
const TEXT_MAX: usize = BLOCK - 8;
/// Ending of a slot's file name.
const ENDING: &str = ".beat";
/// Slots that are looked at in one folder.
const SLOTS_MAX: usize = 4096;

/// What a host writes into its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beat {
    /// The host.
    pub host: HostName,
    /// Its boot, for people who look.
    pub boot_id: String,
    /// Grows with each beat, over reboots too.
    pub count: u64,
}

/// A block at an address that direct I/O takes.
struct Block {
    bytes: Vec<u8>,
    begin: usize,
}

impl Block {
    fn new() -> Self {
        let bytes = vec![0; 2 * BLOCK];
        let begin = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, begin }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.begin..self.begin + BLOCK]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..self.begin + BLOCK]
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

fn encode(beat: &Beat) -> io::Result<Block> {
    let text = format!("{MAGIC}\n{}\n", serde_json::to_string(beat)?);
    if text.len() > TEXT_MAX {
        return Err(invalid("the host's name is too long for a slot"));
    }
    let mut block = Block::new();
    block.get_mut()[..text.len()].copy_from_slice(text.as_bytes());
    // The count once more at the end: a block that was torn does not agree with itself.
    block.get_mut()[TEXT_MAX..].copy_from_slice(&beat.count.to_le_bytes());
    Ok(block)
}

fn decode(block: &[u8]) -> io::Result<Beat> {
    let (text, end) = block
        .split_at_checked(TEXT_MAX)
        .ok_or_else(|| invalid("the slot is too short"))?;
    let text = text
        .split(|byte| *byte == 0)
        .next()
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.strip_prefix(MAGIC))
        .ok_or_else(|| invalid("the slot holds no heartbeat"))?;
    let beat: Beat = serde_json::from_str(text)?;
    if end != beat.count.to_le_bytes() {
        return Err(invalid("the slot does not agree with itself"));
    }
    Ok(beat)
}

/// The folder of slots on one pool.
#[derive(Clone, Debug)]
pub struct Slots {
    pool: PoolFolder,
    folder: PathBuf,
}

impl Slots {
    /// Slots on a pool. A shared pool must be mounted: a heartbeat in the empty folder below a
    /// mount that is gone would keep a host alive that nobody sees.
    pub fn new(pool: &Path, must_be_mounted: bool) -> Self {
        Self {
            pool: PoolFolder::new(pool, must_be_mounted),
            folder: pool.join("heartbeat"),
        }
    }

    fn file(&self, host: &HostName) -> PathBuf {
        self.folder.join(format!("{host}{ENDING}"))
    }

    fn open(&self, host: &HostName, write: bool) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .custom_flags(libc::O_DIRECT | libc::O_DSYNC | libc::O_NOFOLLOW)
            .open(self.file(host))
    }

    /// Writes the own heartbeat and reads it back.
    ///
    /// # Errors
    /// The pool is not there, refuses direct I/O, or another writer uses this slot.
    pub fn write(&self, beat: &Beat) -> io::Result<()> {
        self.pool.check()?;
        if !self.folder.is_dir() {
            fs::create_dir(&self.folder)?;
        }
        let block = encode(beat)?;
        let file = self.open(&beat.host, true)?;
        file.write_all_at(block.get(), 0)?;
        let found = read(&file)?;
        if found != *beat {
            return Err(invalid(format!(
                "read back beat {} of boot {}, written was {}; another machine uses the name {}",
                found.count, found.boot_id, beat.count, beat.host
            )));
        }
        Ok(())
    }

    /// Reads a host's heartbeat.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub fn read(&self, host: &HostName) -> io::Result<Beat> {
        let beat = read(&self.open(host, false)?)?;
        if beat.host == *host {
            Ok(beat)
        } else {
            Err(invalid(format!(
                "the slot of {host} holds a beat of {}",
                beat.host
            )))
        }
    }

    /// Hosts that have a slot.
    ///
    /// # Errors
    /// The folder can not be read.
    pub fn hosts(&self) -> io::Result<Vec<HostName>> {
        let mut hosts = Vec::new();
        for entry in fs::read_dir(&self.folder)?.take(SLOTS_MAX) {
            let name = entry?.file_name();
            let host = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            hosts.extend(host.map(HostName::from));
        }
        Ok(hosts)
    }
}

fn read(file: &File) -> io::Result<Beat> {
    let mut block = Block::new();
    let length = file.read_at(block.get_mut(), 0)?;
    decode(&block.get()[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(count: u64) -> Beat {
        Beat {
            host: "h1".into(),
            boot_id: "b".to_owned(),
            count,
        }
    }

    fn slots() -> (tempfile::TempDir, Slots) {
        let folder = tempfile::tempdir().expect("a folder");
        let slots = Slots::new(folder.path(), false);
        (folder, slots)
    }

    #[test]
    fn a_beat_is_written_and_read_by_direct_io() {
        let (_folder, slots) = slots();
        for count in [1, 2] {
            slots.write(&beat(count)).expect("written and read back");
            assert_eq!(slots.read(&"h1".into()).expect("read"), beat(count));
        }
        assert_eq!(slots.hosts().expect("list"), [HostName::from("h1")]);
        slots.read(&"h2".into()).expect_err("no such slot");
    }

    #[test]
    fn torn_foreign_and_hostile_slots_are_no_heartbeats() {
        let (folder, slots) = slots();
        slots.write(&beat(7)).expect("write");
        let path = folder.path().join("heartbeat/h1.beat");
        let whole = fs::read(&path).expect("read");
        let mut torn = whole.clone();
        torn[BLOCK - 8] ^= 1;
        let mut foreign = whole.clone();
        foreign[..MAGIC.len()].fill(b'x');
        for hostile in [
            torn,
            foreign,
            Vec::new(),
            whole[..100].to_vec(),
            vec![0xff; BLOCK],
        ] {
            fs::write(&path, &hostile).expect("write");
            slots.read(&"h1".into()).expect_err("no heartbeat");
        }
        fs::write(folder.path().join("heartbeat/h9.beat"), &whole).expect("write");
        let error = slots.read(&"h9".into()).expect_err("another's").to_string();
        assert!(error.contains("holds a beat of h1"), "{error}");
    }

    #[test]
    fn a_shared_pool_that_is_not_mounted_takes_no_beat() {
        let (folder, _) = slots();
        let error = Slots::new(folder.path(), true)
            .write(&beat(1))
            .expect_err("not mounted");
        assert!(error.to_string().contains("nothing is mounted"), "{error}");
        assert!(!folder.path().join("heartbeat").exists());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_to_an_error_or_a_beat(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..BLOCK)) {
            let _ = decode(&bytes);
        }
    }
}
