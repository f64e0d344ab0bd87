//! The ledger judges disks that the guest's real writer has written: honest ones green, and red
//! when a second writer or a dropped write is planted.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use guest::writer::Log;
use judge::judge_disk;
use judge::ledger::Problem;
use judge::results::{DiskWord, GuestWord, Sample};

struct Disk {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    fn new(sectors: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.raw");
        fs::write(&path, vec![0u8; sectors * 512]).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn open(&self, writer: u8) -> Log {
        Log::open(&self.path, "oa-database-0", [writer; 16], false).unwrap()
    }
}

fn write(log: &mut Log, times: u64) {
    for _ in 0..times {
        let counter = log.append(Duration::from_secs(1)).unwrap();
        assert!(counter > 0);
    }
}

fn told(writer: u8, counter: u64) -> Sample {
    let disk = DiskWord {
        counter,
        writer: format!("{writer:02x}").repeat(16),
        conflicts: 0,
    };
    let guest = GuestWord {
        name: "oa-database-0".into(),
        boot_count: 1,
        uptime_seconds: 1.0,
        disk: Some(disk),
    };
    Sample {
        at: counter,
        target: "t".into(),
        ok: true,
        took: 1,
        error: None,
        guest: Some(guest),
    }
}

#[test]
fn boots_one_after_another_are_clean() {
    let disk = Disk::new(2048);
    write(&mut disk.open(1), 300);
    write(&mut disk.open(2), 300);
    let verdict = judge_disk(&disk.path, &[told(1, 300), told(2, 555)]).unwrap();
    assert!(verdict.is_clean(), "{:?}", verdict.problems);
    assert_eq!(
        (
            verdict.last,
            verdict.reigns.len(),
            verdict.acknowledged_checked
        ),
        (600, 2, 2)
    );
}

#[test]
fn a_ring_that_went_round_is_clean() {
    let disk = Disk::new(16);
    write(&mut disk.open(1), 100);
    write(&mut disk.open(2), 7);
    assert!(judge_disk(&disk.path, &[told(1, 100)]).unwrap().is_clean());
}

#[test]
fn a_planted_second_writer_is_red_however_the_two_are_timed() {
    for lead in 0..4 {
        let disk = Disk::new(2048);
        write(&mut disk.open(1), 20);
        let (mut first, mut second) = (disk.open(2), disk.open(3));
        write(&mut first, lead);
        for _ in 0..5 {
            write(&mut second, 1);
            write(&mut first, 1);
        }
        let verdict = judge_disk(&disk.path, &[]).unwrap();
        assert!(!verdict.is_clean(), "lead {lead}");
        let conflict = verdict
            .problems
            .iter()
            .any(|problem| matches!(problem, Problem::Conflict { .. }));
        assert!(conflict, "lead {lead}: {:?}", verdict.problems);
    }
}

#[test]
fn two_copies_of_one_boot_are_red() {
    let disk = Disk::new(2048);
    let mut source = disk.open(1);
    write(&mut source, 20);
    let mut target = disk.open(1);
    for _ in 0..3 {
        write(&mut target, 1);
        source.append(Duration::from_secs(9)).unwrap();
    }
    assert!(!judge_disk(&disk.path, &[]).unwrap().is_clean());
}

#[test]
fn a_write_dropped_below_the_guest_is_red() {
    let disk = Disk::new(2048);
    write(&mut disk.open(1), 50);
    let mut bytes = fs::read(&disk.path).unwrap();
    bytes[29 * 512..30 * 512].fill(0);
    fs::write(&disk.path, &bytes).unwrap();
    let verdict = judge_disk(&disk.path, &[]).unwrap();
    assert_eq!(verdict.problems, [Problem::Missing { counter: 30 }]);
}

#[test]
fn a_disk_that_forgets_its_newest_writes_is_red_by_what_was_acknowledged() {
    // A disk restored from a snapshot, or a host that lied about a flush: the log itself looks whole.
    let disk = Disk::new(2048);
    write(&mut disk.open(1), 50);
    let old = fs::read(&disk.path).unwrap();
    write(&mut disk.open(1), 5);
    fs::write(&disk.path, old).unwrap();
    assert!(judge_disk(&disk.path, &[]).unwrap().is_clean());
    let verdict = judge_disk(&disk.path, &[told(1, 55)]).unwrap();
    assert_eq!(
        verdict.problems,
        [Problem::AcknowledgedLost { counter: 55 }]
    );
}
