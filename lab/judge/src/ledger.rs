//! Judges a guest's disk log: every counter exactly once, one writer at a time, nothing that was
//! acknowledged missing. Pure: bytes and acknowledgements in, verdict out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::record::{Record, SECTOR_BYTES, SLOTS_MAXIMUM, Sector, decode};

/// A write that the guest told somebody about: by then its disk had acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    /// Number of the write.
    pub counter: u64,
    /// Who wrote it, 32 hexadecimal digits.
    pub writer: String,
}

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum Problem {
    /// There is no record at all: nothing was written, or everything is gone.
    Empty,
    /// A write that must be there is not (a lost write).
    Missing {
        /// Number of the write.
        counter: u64,
    },
    /// A sector holds neither a record nor nothing.
    Broken {
        /// Which sector.
        slot: usize,
    },
    /// A record lies where another belongs (a misdirected write).
    Misplaced {
        /// Which sector.
        slot: usize,
        /// Number of the write found there.
        counter: u64,
    },
    /// A writer wrote again after another had begun: two at once.
    Interleaved {
        /// First write after the return.
        counter: u64,
        /// Who returned.
        writer: String,
    },
    /// A new writer did not continue the count of boots, or one writer has several.
    BootCount {
        /// Write at which it shows.
        counter: u64,
        /// Count of boots expected there.
        expected: u64,
        /// Count of boots found.
        found: u64,
    },
    /// A record does not continue the one before it: that one was written anew by somebody else.
    Overwritten {
        /// Write that continues something else.
        counter: u64,
    },
    /// The guest's time ran backwards within one boot.
    TimeFell {
        /// Write at which it shows.
        counter: u64,
    },
    /// The guest itself met records that it had not written.
    Conflict {
        /// First write that says so.
        counter: u64,
        /// How many it had met by the newest record.
        conflicts: u64,
    },
    /// Another guest's name is on the disk.
    Renamed {
        /// Write at which it shows.
        counter: u64,
        /// The other name.
        name: String,
    },
    /// A write that was acknowledged is not on the disk (a lost write).
    AcknowledgedLost {
        /// Number of the write.
        counter: u64,
    },
    /// An acknowledged write has been replaced by another writer's.
    AcknowledgedReplaced {
        /// Number of the write.
        counter: u64,
        /// Who was acknowledged.
        writer: String,
        /// Whose record lies there.
        found: String,
    },
}

/// Consecutive writes of one writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reign {
    /// The writer.
    pub writer: String,
    /// Its count of boots.
    pub boot_count: u64,
    /// First write.
    pub from: u64,
    /// Last write.
    pub to: u64,
}

/// Verdict on one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Verdict {
    /// Name of the guest on its records.
    pub guest: String,
    /// First write that the log still holds.
    pub first: u64,
    /// Newest write.
    pub last: u64,
    /// Who wrote, in order.
    pub reigns: Vec<Reign>,
    /// Acknowledged writes that were compared with the disk.
    pub acknowledged_checked: usize,
    /// A torn record where the next write belongs: a write that the power cut off; no problem.
    pub torn_last_write: bool,
    /// What is wrong; empty: nothing.
    pub problems: Vec<Problem>,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Judges the first bytes of a disk against what the guest acknowledged (possibly nothing).
pub fn judge(disk: &[u8], acknowledged: &BTreeSet<Acknowledged>) -> Verdict {
    let log = Log::read(disk);
    let mut problems = log.misplaced.clone();
    let Some(last) = log.records.keys().next_back().copied() else {
        problems.push(Problem::Empty);
        problems.extend(acknowledged.iter().map(|lost| Problem::AcknowledgedLost {
            counter: lost.counter,
        }));
        return Verdict {
            guest: String::new(),
            first: 0,
            last: 0,
            reigns: Vec::new(),
            acknowledged_checked: acknowledged.len(),
            torn_last_write: false,
            problems,
        };
    };
    let next_slot = (last % log.slots) as usize;
    let torn_last_write = log.broken.contains(&next_slot);
    problems.extend(
        log.broken
            .iter()
            .filter(|slot| **slot != next_slot)
            .map(|slot| Problem::Broken { slot: *slot }),
    );
    // Once the log has gone round, the torn next write has taken the place of the oldest record.
    let first =
        last.saturating_sub(log.slots - 1).max(1) + u64::from(torn_last_write && last >= log.slots);
    for counter in first..=last {
        if !log.records.contains_key(&counter) {
            problems.push(Problem::Missing { counter });
        }
    }
    problems.extend(
        log.records
            .keys()
            .filter(|counter| **counter < first)
            .map(|counter| Problem::Misplaced {
                slot: ((counter - 1) % log.slots) as usize,
                counter: *counter,
            }),
    );
    let records: Vec<&Record> = log
        .records
        .range(first..)
        .map(|(_, record)| record)
        .collect();
    problems.extend(judge_sequence(&records));
    let (checked, lost) = judge_acknowledged(&log.records, first, acknowledged);
    problems.extend(lost);
    Verdict {
        guest: records
            .last()
            .map(|record| record.name.clone())
            .unwrap_or_default(),
        first,
        last,
        reigns: reigns(&records),
        acknowledged_checked: checked,
        torn_last_write,
        problems,
    }
}

/// The sectors of a log, sorted.
struct Log {
    slots: u64,
    records: BTreeMap<u64, Record>,
    broken: BTreeSet<usize>,
    misplaced: Vec<Problem>,
}

impl Log {
    fn read(disk: &[u8]) -> Self {
        let slots = (disk.len() / SECTOR_BYTES).clamp(1, SLOTS_MAXIMUM) as u64;
        let mut log = Log {
            slots,
            records: BTreeMap::new(),
            broken: BTreeSet::new(),
            misplaced: Vec::new(),
        };
        for (slot, bytes) in disk
            .chunks_exact(SECTOR_BYTES)
            .take(SLOTS_MAXIMUM)
            .enumerate()
        {
            match decode(bytes) {
                Sector::Blank => {}
                Sector::Broken => {
                    log.broken.insert(slot);
                }
                Sector::Record(record) if (record.counter - 1) % slots == slot as u64 => {
                    log.records.insert(record.counter, record);
                }
                Sector::Record(record) => {
                    log.misplaced.push(Problem::Misplaced {
                        slot,
                        counter: record.counter,
                    });
                }
            }
        }
        log
    }
}

/// Judges each record against the one before it.
fn judge_sequence(records: &[&Record]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut former_writers = BTreeSet::new();
    if let Some(record) = records.iter().find(|record| record.conflicts > 0) {
        let conflicts = records.last().map_or(0, |newest| newest.conflicts);
        problems.push(Problem::Conflict {
            counter: record.counter,
            conflicts,
        });
    }
    for pair in records.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let counter = after.counter;
        if before.counter + 1 != counter {
            continue; // Already told as missing; nothing follows from a record that is not there.
        }
        let changed = before.writer != after.writer;
        if changed {
            former_writers.insert(&before.writer);
            if former_writers.contains(&after.writer) {
                problems.push(Problem::Interleaved {
                    counter,
                    writer: after.writer.clone(),
                });
            }
        } else if after.monotonic_nanoseconds < before.monotonic_nanoseconds {
            problems.push(Problem::TimeFell { counter });
        }
        let expected = before.boot_count + u64::from(changed);
        if after.boot_count != expected {
            problems.push(Problem::BootCount {
                counter,
                expected,
                found: after.boot_count,
            });
        }
        if after.previous_checksum != before.checksum {
            problems.push(Problem::Overwritten { counter });
        }
        if after.name != before.name {
            problems.push(Problem::Renamed {
                counter,
                name: after.name.clone(),
            });
        }
    }
    problems
}

/// Compares acknowledged writes that the log can still hold with it; returns how many.
fn judge_acknowledged(
    records: &BTreeMap<u64, Record>,
    first: u64,
    acknowledged: &BTreeSet<Acknowledged>,
) -> (usize, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut checked = 0;
    for told in acknowledged.iter().filter(|told| told.counter >= first) {
        checked += 1;
        match records.get(&told.counter) {
            None => problems.push(Problem::AcknowledgedLost {
                counter: told.counter,
            }),
            Some(record) if record.writer != told.writer => {
                problems.push(Problem::AcknowledgedReplaced {
                    counter: told.counter,
                    writer: told.writer.clone(),
                    found: record.writer.clone(),
                })
            }
            Some(_) => {}
        }
    }
    (checked, problems)
}

fn reigns(records: &[&Record]) -> Vec<Reign> {
    let mut reigns: Vec<Reign> = Vec::new();
    for record in records {
        match reigns.last_mut() {
            Some(reign)
                if reign.writer == record.writer && reign.boot_count == record.boot_count =>
            {
                reign.to = record.counter;
            }
            _ => reigns.push(Reign {
                writer: record.writer.clone(),
                boot_count: record.boot_count,
                from: record.counter,
                to: record.counter,
            }),
        }
    }
    reigns
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
