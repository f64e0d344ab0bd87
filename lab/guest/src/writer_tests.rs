//! Tests of the disk log: it continues, goes round, and notices every second writer.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::fs;
use std::path::PathBuf;

struct Disk(PathBuf);

impl Disk {
    fn new(name: &str, sectors: usize) -> Self {
        let path = std::env::temp_dir().join(format!("guest-writer-{}-{name}", std::process::id()));
        fs::write(&path, vec![0u8; sectors * SECTOR_BYTES]).unwrap();
        Self(path)
    }

    fn open(&self, writer: u8) -> Log {
        Log::open(&self.0, "vm", [writer; 16], false).unwrap()
    }

    fn record(&self, slot: usize) -> Option<Record> {
        let bytes = fs::read(&self.0).unwrap();
        Record::decode(&bytes[slot * SECTOR_BYTES..(slot + 1) * SECTOR_BYTES])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn append(log: &mut Log, times: u64) {
    for _ in 0..times {
        log.append(Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn counter_and_boot_count_continue_after_a_restart() {
    let disk = Disk::new("continue", 1024);
    append(&mut disk.open(1), 600);
    let mut second = disk.open(2);
    append(&mut second, 2);
    let state = second.state();
    assert_eq!(
        (state.boot_count, state.counter, state.conflicts),
        (2, 602, 0)
    );
    let (before, after) = (disk.record(599).unwrap(), disk.record(600).unwrap());
    assert_eq!((before.boot_count, after.boot_count), (1, 2));
    assert_eq!(
        after.previous_checksum,
        record::checksum_of(&before.encode())
    );
    let same_boot = disk.open(2).state();
    assert_eq!(
        (same_boot.boot_count, same_boot.counter),
        (2, 602),
        "a restarted program is no new boot"
    );
}

#[test]
fn the_ring_goes_round_without_conflicts() {
    let disk = Disk::new("ring", 8);
    append(&mut disk.open(1), 30);
    let mut again = disk.open(1);
    append(&mut again, 1);
    assert_eq!((again.state().counter, again.state().conflicts), (31, 0));
    assert_eq!(disk.record(((31 - 1) % 8) as usize).unwrap().counter, 31);
}

#[test]
fn a_torn_record_is_written_again() {
    let disk = Disk::new("torn", 16);
    append(&mut disk.open(1), 5);
    let mut bytes = fs::read(&disk.0).unwrap();
    bytes[4 * SECTOR_BYTES + 300] ^= 1;
    fs::write(&disk.0, bytes).unwrap();
    let mut log = disk.open(2);
    append(&mut log, 1);
    assert_eq!((log.state().counter, log.state().conflicts), (5, 0));
}

#[test]
fn a_second_writer_is_noticed_by_one_of_the_two() {
    for first_is_ahead_by in 0..3 {
        let disk = Disk::new(&format!("second-{first_is_ahead_by}"), 64);
        append(&mut disk.open(9), 10);
        let (mut first, mut second) = (disk.open(1), disk.open(2));
        append(&mut first, first_is_ahead_by);
        append(&mut second, 1);
        append(&mut first, 1);
        append(&mut second, 1);
        assert!(
            first.state().conflicts + second.state().conflicts > 0,
            "ahead by {first_is_ahead_by}"
        );
    }
}

#[test]
fn two_copies_of_one_boot_are_noticed() {
    // The source of a live migration that runs on has the same writer number as the target.
    let disk = Disk::new("copies", 64);
    let (mut source, mut target) = (disk.open(1), disk.open(1));
    append(&mut source, 1);
    target.append(Duration::from_secs(2)).unwrap();
    source.append(Duration::from_secs(3)).unwrap();
    assert!(source.state().conflicts + target.state().conflicts > 0);
}

#[test]
fn conflicts_stay_on_the_record() {
    let disk = Disk::new("sticky", 64);
    let (mut first, mut second) = (disk.open(1), disk.open(2));
    append(&mut first, 1);
    append(&mut second, 1);
    assert_eq!(second.state().conflicts, 1);
    drop(first);
    let mut third = disk.open(3);
    append(&mut third, 1);
    assert_eq!(third.state().conflicts, 1);
    assert_eq!(disk.record(1).unwrap().conflicts, 1);
}

#[test]
fn a_disk_without_room_is_refused() {
    let disk = Disk::new("small", 0);
    let error = Log::open(&disk.0, "vm", [1; 16], false).err().unwrap();
    assert!(error.to_string().contains("needs at least 512"), "{error}");
}

#[test]
fn the_end_is_found_wherever_it_lies() {
    // Around chunk borders, one round and two rounds into the ring.
    for count in [
        1, 255, 256, 257, 511, 512, 513, 999, 1000, 1001, 1255, 1256, 1257, 2100,
    ] {
        let disk = Disk::new(&format!("end-{count}"), 1000);
        append(&mut disk.open(1), count);
        assert_eq!(disk.open(2).state().counter, count);
    }
}

#[test]
fn records_behind_a_broken_one_are_met_as_conflicts() {
    let disk = Disk::new("broken", 1000);
    append(&mut disk.open(1), 400);
    let mut bytes = fs::read(&disk.0).unwrap();
    bytes[300 * SECTOR_BYTES] ^= 1;
    fs::write(&disk.0, bytes).unwrap();
    let mut log = disk.open(2);
    append(&mut log, 2);
    assert!(log.state().conflicts > 0);
}
