//! Writes a stamped record to the data disk every 200 ms, past every cache, and looks out for others.
//!
//! Before each write the writer reads back its last record and the place of the next one. A record
//! there that it did not write means that a second copy of this VM, or another VM, has the same disk:
//! the conflict is counted in every later record and told over HTTP. Nothing on the disk is ever
//! repaired: the log is evidence.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::{self, Record, SECTOR_BYTES};
use crate::status::{DiskState, Status};

/// Time between two records.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// `O_DIRECT | O_SYNC` of this architecture: std names neither.
#[cfg(target_arch = "x86_64")]
const DIRECT_AND_SYNCHRONOUS: i32 = 0o40000 | 0o4010000;
#[cfg(target_arch = "aarch64")]
const DIRECT_AND_SYNCHRONOUS: i32 = 0o200000 | 0o4010000;

/// Sectors read at once, and between two samples, when the log is searched for its end.
const SCAN_SECTORS: usize = 256;

/// Memory for direct I/O, which must be aligned to the disk's blocks.
#[repr(C, align(4096))]
struct Aligned<const BYTES: usize>([u8; BYTES]);

/// The log of one disk, open for writing.
pub struct Log {
    file: File,
    slots: u64,
    writer: [u8; 16],
    name: String,
    boot_count: u64,
    conflicts: u64,
    /// Counter and bytes of the newest record, as the disk should hold them.
    last: Option<(u64, [u8; SECTOR_BYTES])>,
    /// The write of the next record was tried and failed: its place may hold our own attempt.
    attempted: bool,
}

impl Log {
    /// Opens the disk and finds the end of its log. `direct` goes past every cache; tests on files
    /// of file systems without direct I/O switch it off.
    pub fn open(path: &Path, name: &str, writer: [u8; 16], direct: bool) -> io::Result<Self> {
        let flags = if direct { DIRECT_AND_SYNCHRONOUS } else { 0 };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        let slots = record::slots(bytes);
        if slots == 0 {
            let message = format!(
                "{} holds {bytes} bytes; a data disk needs at least {SECTOR_BYTES}",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let newest = newest_record(&file, slots)?;
        let (boot_count, conflicts) = match &newest {
            // The program was started again within one boot.
            Some((record, _)) if record.writer == writer => (record.boot_count, record.conflicts),
            Some((record, _)) => (record.boot_count + 1, record.conflicts),
            None => (1, 0),
        };
        Ok(Self {
            file,
            slots,
            writer,
            name: name.to_owned(),
            boot_count,
            conflicts,
            last: newest.map(|(record, bytes)| (record.counter, bytes)),
            attempted: false,
        })
    }

    /// What is known about the disk, without time and message.
    pub fn state(&self) -> DiskState {
        DiskState {
            writer: self.writer,
            boot_count: self.boot_count,
            counter: self.last.map_or(0, |(counter, _)| counter),
            conflicts: self.conflicts,
            acknowledged_at: None,
            message: String::new(),
        }
    }

    /// Looks for foreign records, then writes the next one. Returns its counter once the disk has it.
    pub fn append(&mut self, monotonic: Duration) -> io::Result<u64> {
        let counter = self.last.map_or(1, |(counter, _)| counter + 1);
        if self.foreign_record_near(counter)? {
            self.conflicts += 1;
        }
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let record = Record {
            writer: self.writer,
            boot_count: self.boot_count,
            counter,
            monotonic_nanoseconds: monotonic.as_nanos() as u64,
            wall_nanoseconds: wall.as_nanos() as u64,
            conflicts: self.conflicts,
            previous_checksum: self
                .last
                .map_or(0, |(_, bytes)| record::checksum_of(&bytes)),
            name: self.name.clone(),
        };
        let mut sector = Aligned([0; SECTOR_BYTES]);
        sector.0 = record.encode();
        self.attempted = true;
        self.file
            .write_all_at(&sector.0, record::offset(counter, self.slots))?;
        self.attempted = false;
        self.last = Some((counter, sector.0));
        Ok(counter)
    }

    /// Whether the last record has changed, or the place of the next one is taken.
    fn foreign_record_near(&self, next: u64) -> io::Result<bool> {
        let mut sector = Aligned([0; SECTOR_BYTES]);
        if let Some((counter, bytes)) = &self.last {
            self.file
                .read_exact_at(&mut sector.0, record::offset(*counter, self.slots))?;
            if sector.0 != *bytes {
                return Ok(true);
            }
        }
        if self.slots == 1 {
            return Ok(false);
        }
        self.file
            .read_exact_at(&mut sector.0, record::offset(next, self.slots))?;
        let taken = Record::decode(&sector.0).is_some_and(|found| {
            let our_failed_attempt =
                self.attempted && found.writer == self.writer && found.counter == next;
            found.counter >= next && !our_failed_attempt
        });
        Ok(taken)
    }
}

/// The newest record, and its bytes. Looks at the first sector of each chunk, then follows the
/// records from the newest of these on: reading a whole log takes half a second under emulation.
/// A record that is broken in the middle ends the search early; the writer then meets the records
/// behind it as conflicts, which is what such a disk is.
fn newest_record(file: &File, slots: u64) -> io::Result<Option<(Record, [u8; SECTOR_BYTES])>> {
    let mut sector = Aligned([0; SECTOR_BYTES]);
    let mut start: Option<(u64, u64)> = None;
    for slot in (0..slots).step_by(SCAN_SECTORS) {
        file.read_exact_at(&mut sector.0, slot * SECTOR_BYTES as u64)?;
        match Record::decode(&sector.0) {
            Some(found) if start.is_none_or(|(best, _)| best < found.counter) => {
                start = Some((found.counter, slot));
            }
            Some(_) => {}
            // The log is written from the front: behind a place never written lies nothing.
            None if sector.0.iter().all(|byte| *byte == 0) => break,
            None => {}
        }
    }
    // Without any whole sample the log is new, or broken at its front: then follow it from there.
    follow(file, slots, start.map_or(0, |(_, slot)| slot))
}

/// The last of the consecutive records from `start` (a multiple of [`SCAN_SECTORS`]) on.
fn follow(file: &File, slots: u64, start: u64) -> io::Result<Option<(Record, [u8; SECTOR_BYTES])>> {
    let mut buffer = Box::new(Aligned([0; SCAN_SECTORS * SECTOR_BYTES]));
    let mut newest: Option<(Record, [u8; SECTOR_BYTES])> = None;
    let (mut slot, mut followed) = (start, 0);
    while followed < slots {
        let sectors = (slots - slot).min(SCAN_SECTORS as u64) as usize;
        let chunk = &mut buffer.0[..sectors * SECTOR_BYTES];
        file.read_exact_at(chunk, slot * SECTOR_BYTES as u64)?;
        for sector in chunk.chunks_exact(SECTOR_BYTES) {
            let expected = newest.as_ref().map(|(record, _)| record.counter + 1);
            match Record::decode(sector) {
                Some(found) if expected.is_none_or(|expected| found.counter == expected) => {
                    let mut bytes = [0; SECTOR_BYTES];
                    bytes.copy_from_slice(sector);
                    newest = Some((found, bytes));
                }
                // Broken sectors before the first record of a log are passed over.
                None if expected.is_none() => {}
                _ => return Ok(newest),
            }
        }
        if newest.is_none() && chunk.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        followed += sectors as u64;
        slot = (slot + sectors as u64) % slots;
    }
    Ok(newest)
}

/// Opens the log of `disk` and writes to it until `stop`; publishes every change in `status`.
/// Errors are shown and tried again: a disk that hangs or fails may come back.
pub fn run(status: &Arc<Status>, disk: &Path, writer: [u8; 16], stop: &AtomicBool) {
    let began = Instant::now();
    let mut log = loop {
        match Log::open(disk, &status.identity.name, writer, true) {
            Ok(log) => break log,
            Err(error) => {
                let message = format!("{}: {error}", disk.display());
                status.set_disk(DiskState {
                    writer,
                    acknowledged_at: Some(began),
                    message,
                    ..DiskState::default()
                });
            }
        }
        if stop.load(Ordering::SeqCst) {
            return;
        }
        thread::sleep(INTERVAL);
    };
    let mut acknowledged_at = began;
    let mut due = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let message = match log.append(status.uptime()) {
            Ok(_) => {
                acknowledged_at = Instant::now();
                String::new()
            }
            Err(error) => format!("{}: {error}", disk.display()),
        };
        status.set_disk(DiskState {
            acknowledged_at: Some(acknowledged_at),
            message,
            ..log.state()
        });
        // After a pause the rhythm goes on from now: a burst would only hide the pause.
        due = (due + INTERVAL).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
