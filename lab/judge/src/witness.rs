//! Judges what guests said about themselves over time: reboots, and two copies that answer at once.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::ledger::Acknowledged;
use crate::results::{GuestWord, Sample};

/// What the answers of one guest show.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Witness {
    /// Answers heard.
    pub answers: usize,
    /// Boot counts heard, each with when it was heard first (nanoseconds since 1970).
    pub boots: BTreeMap<u64, u64>,
    /// Uptime of the last answer less that of the first, seconds: negative when the guest booted.
    pub uptime_grew_seconds: f64,
    /// The first answer whose uptime is less than an earlier one's of the same boot count. A guest that is
    /// killed in the seconds after its boot may count that boot again: no problem by itself where hosts die.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_went_back: Option<String>,
    /// Highest counter that the disk had acknowledged.
    pub disk_counter: Option<u64>,
    /// Contradictions: two copies, a disk that went back, a conflict met. Empty: none.
    pub problems: Vec<String>,
}

/// Judges all samples by the guest that answered.
pub fn judge(samples: &[Sample]) -> BTreeMap<String, Witness> {
    let mut guests: BTreeMap<&str, Vec<(&Sample, &GuestWord)>> = BTreeMap::new();
    for sample in samples {
        if let Some(word) = &sample.guest {
            guests.entry(&word.name).or_default().push((sample, word));
        }
    }
    guests
        .into_iter()
        .map(|(name, words)| (name.to_owned(), judge_guest(words)))
        .collect()
}

fn judge_guest(mut words: Vec<(&Sample, &GuestWord)>) -> Witness {
    words.sort_by_key(|(sample, _)| sample.at);
    let mut witness = Witness {
        answers: words.len(),
        ..Witness::default()
    };
    for (sample, word) in &words {
        let first = witness
            .boots
            .entry(word.boot_count)
            .or_insert(sample.ended());
        *first = (*first).min(sample.ended());
        if let Some(disk) = word.disk.as_ref().filter(|disk| disk.counter > 0) {
            witness.disk_counter = witness.disk_counter.max(Some(disk.counter));
        }
    }
    if let (Some((_, first)), Some((_, last))) = (words.first(), words.last()) {
        witness.uptime_grew_seconds = last.uptime_seconds - first.uptime_seconds;
    }
    witness.uptime_went_back = uptime_went_back(&words);
    if let Some(disk) = words
        .iter()
        .filter_map(|(_, word)| word.disk.as_ref())
        .find(|disk| disk.conflicts > 0)
    {
        witness.problems.push(format!(
            "met {} foreign records on its data disk: two writers",
            disk.conflicts
        ));
    }
    witness
        .problems
        .extend(backwards(&words, "boot count", |word| {
            Some(word.boot_count)
        }));
    witness
        .problems
        .extend(backwards(&words, "disk counter", |word| {
            word.disk
                .as_ref()
                .map(|disk| disk.counter)
                .filter(|counter| *counter > 0)
        }));
    witness.problems.extend(returned_writer(&words));
    witness
}

/// A number that must never fall: compares each answer with those that had ended before it began, so
/// that probes under way at the same time prove nothing. Tells the first fall only.
fn backwards(
    words: &[(&Sample, &GuestWord)],
    what: &str,
    number: impl Fn(&GuestWord) -> Option<u64>,
) -> Option<String> {
    let mut by_end: Vec<_> = words.to_vec();
    by_end.sort_by_key(|(sample, _)| sample.ended());
    let mut ended = by_end.into_iter().peekable();
    let mut highest = 0;
    for (sample, word) in words {
        while let Some((_, before)) = ended.next_if(|(before, _)| before.ended() < sample.at) {
            highest = highest.max(number(before).unwrap_or(0));
        }
        if let Some(value) = number(word).filter(|value| *value < highest) {
            return Some(format!(
                "{what} fell from {highest} to {value}: an older copy answers, or writes were lost"
            ));
        }
    }
    None
}

/// Uptime of one boot only grows: a smaller one in an answer that began after another had ended comes from a
/// copy that booted anew without counting it. Tells the first fall only.
fn uptime_went_back(words: &[(&Sample, &GuestWord)]) -> Option<String> {
    let mut by_end: Vec<_> = words.to_vec();
    by_end.sort_by_key(|(sample, _)| sample.ended());
    let mut ended = by_end.into_iter().peekable();
    let mut longest: BTreeMap<u64, f64> = BTreeMap::new();
    for (sample, word) in words {
        while let Some((_, before)) = ended.next_if(|(before, _)| before.ended() < sample.at) {
            let known = longest.entry(before.boot_count).or_insert(0.0);
            *known = known.max(before.uptime_seconds);
        }
        let known = longest.get(&word.boot_count).copied().unwrap_or(0.0);
        if word.uptime_seconds < known {
            return Some(format!(
                "uptime went back from {known:.1} to {:.1} s within boot {}: it booted, or an older copy answers",
                word.uptime_seconds, word.boot_count
            ));
        }
    }
    None
}

/// A writer heard again after another one: two copies answer in turn.
fn returned_writer(words: &[(&Sample, &GuestWord)]) -> Option<String> {
    let mut current: Option<(&str, u64)> = None;
    let mut former: BTreeMap<&str, u64> = BTreeMap::new();
    for (sample, word) in words {
        let Some(disk) = word.disk.as_ref().filter(|disk| disk.counter > 0) else {
            continue;
        };
        let writer = disk.writer.as_str();
        match current {
            Some((known, _)) if known == writer => {}
            Some((known, _)) => {
                // An answer that began before the change was heard may still come from the former boot.
                if former
                    .get(writer)
                    .is_some_and(|changed| *changed < sample.at)
                {
                    return Some(format!(
                        "writer {writer} answers again after {known}: two copies"
                    ));
                }
                former.insert(known, sample.ended());
                current = Some((writer, sample.at));
            }
            None => current = Some((writer, sample.at)),
        }
    }
    None
}

/// Writes that a guest has told the prober about: by then its disk had acknowledged them.
pub fn acknowledged(samples: &[Sample], guest: &str) -> BTreeSet<Acknowledged> {
    samples
        .iter()
        .filter_map(|sample| sample.guest.as_ref())
        .filter(|word| word.name == guest)
        .filter_map(|word| word.disk.as_ref())
        .filter(|disk| disk.counter > 0)
        .map(|disk| Acknowledged {
            counter: disk.counter,
            writer: disk.writer.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::DiskWord;

    fn word(at: u64, took: u64, boot_count: u64, writer: &str, counter: u64) -> Sample {
        let disk = DiskWord {
            counter,
            writer: writer.to_owned(),
            conflicts: 0,
        };
        let guest = GuestWord {
            name: "db".into(),
            boot_count,
            uptime_seconds: 1.0,
            disk: Some(disk),
        };
        Sample {
            at,
            target: "t".into(),
            ok: true,
            took,
            error: None,
            guest: Some(guest),
        }
    }

    fn problems(samples: &[Sample]) -> Vec<String> {
        judge(samples)["db"].problems.clone()
    }

    fn up(at: u64, boot_count: u64, uptime_seconds: f64) -> Sample {
        let mut sample = word(at, 1, boot_count, "a", 0);
        if let Some(guest) = &mut sample.guest {
            guest.uptime_seconds = uptime_seconds;
        }
        sample
    }

    #[test]
    fn an_uptime_that_goes_back_is_red() {
        let grows = [up(0, 1, 20.0), up(10, 1, 20.5), up(20, 1, 30.0)];
        let witness = judge(&grows)["db"].clone();
        assert_eq!(witness.uptime_went_back, None);
        assert_eq!(witness.uptime_grew_seconds, 10.0);
        let falls = [up(0, 1, 20.0), up(10, 1, 3.0), up(20, 1, 24.0)];
        let told = judge(&falls)["db"].uptime_went_back.clone();
        let told = told.unwrap_or_default();
        assert!(told.contains("from 20.0 to 3.0 s"), "{told}");
    }

    #[test]
    fn a_counted_boot_begins_its_uptime_anew() {
        let witness = judge(&[up(0, 1, 20.0), up(10, 2, 3.0)])["db"].clone();
        assert_eq!(witness.uptime_went_back, None);
        assert_eq!(witness.uptime_grew_seconds, -17.0);
    }

    #[test]
    fn a_restart_is_no_contradiction() {
        let samples = [
            word(0, 1, 1, "a", 5),
            word(10, 1, 1, "a", 6),
            word(90, 1, 2, "b", 7),
            word(95, 1, 2, "b", 9),
        ];
        let witness = &judge(&samples)["db"];
        assert!(witness.problems.is_empty(), "{:?}", witness.problems);
        assert_eq!(witness.boots, BTreeMap::from([(1, 1), (2, 91)]));
        assert_eq!(witness.disk_counter, Some(9));
    }

    #[test]
    fn two_copies_that_answer_in_turn_are_red() {
        let samples = [
            word(0, 1, 1, "a", 5),
            word(10, 1, 1, "b", 6),
            word(20, 1, 1, "a", 7),
        ];
        assert!(
            problems(&samples)[0].contains("two copies"),
            "{:?}",
            problems(&samples)
        );
    }

    #[test]
    fn a_disk_that_goes_back_is_red() {
        let samples = [word(0, 1, 1, "a", 50), word(10, 1, 1, "a", 49)];
        assert!(problems(&samples)[0].contains("fell from 50 to 49"));
    }

    #[test]
    fn probes_under_way_at_once_prove_nothing() {
        assert!(
            problems(&[
                word(0, 100, 1, "a", 49),
                word(10, 1, 1, "a", 50),
                word(20, 100, 1, "a", 49)
            ])
            .len()
                == 1
        );
        assert!(problems(&[word(0, 100, 1, "a", 50), word(10, 1, 1, "a", 49)]).is_empty());
    }

    #[test]
    fn a_conflict_that_a_guest_tells_is_red() {
        let mut sample = word(0, 1, 1, "a", 5);
        if let Some(disk) = sample.guest.as_mut().and_then(|guest| guest.disk.as_mut()) {
            disk.conflicts = 3;
        }
        assert!(problems(&[sample])[0].contains("3 foreign records"));
    }

    #[test]
    fn acknowledged_writes_are_collected_by_guest() {
        let samples = [
            word(0, 1, 1, "a", 5),
            word(1, 1, 1, "a", 5),
            word(2, 1, 1, "a", 0),
        ];
        assert_eq!(acknowledged(&samples, "db").len(), 1);
        assert!(acknowledged(&samples, "other").is_empty());
    }
}
