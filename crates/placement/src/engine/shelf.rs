//! Hosts of one kind in the order in which they are wanted: most free memory first, ties by
//! rank (the order of names).
//!
//! A sorted list cut into short runs, each of which knows the most CPU that any host of it has
//! free. A question reads one number per run and then one run, so it takes microseconds for
//! thousands of hosts, even when memory is plenty and CPU is what lacks.

use crate::fleet::Free;

/// Longest run. The square root of some ten thousand hosts: both halves of a question cost
/// the same there.
const RUN: usize = 96;

/// A host on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub free: Free,
    pub rank: u64,
    pub host: u32,
}

impl Entry {
    fn key(&self) -> (std::cmp::Reverse<u64>, u64) {
        (std::cmp::Reverse(self.free.memory_bytes), self.rank)
    }
}

#[derive(Clone, Debug, Default)]
struct Run {
    most_cpu: u64,
    entries: Vec<Entry>,
}

impl Run {
    fn new(entries: Vec<Entry>) -> Self {
        let most_cpu = entries
            .iter()
            .map(|entry| entry.free.cpu)
            .max()
            .unwrap_or(0);
        Self { most_cpu, entries }
    }
}

/// Hosts of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    runs: Vec<Run>,
    len: usize,
}

impl Shelf {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The run in which an entry is, or belongs.
    fn run_of(&self, entry: &Entry) -> usize {
        let after = self.runs.partition_point(|run| {
            run.entries
                .first()
                .is_some_and(|first| first.key() <= entry.key())
        });
        after.saturating_sub(1)
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        let at = self.run_of(&entry);
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(Run::new(vec![entry]));
            return;
        };
        let place = run
            .entries
            .partition_point(|other| other.key() < entry.key());
        run.entries.insert(place, entry);
        run.most_cpu = run.most_cpu.max(entry.free.cpu);
        if run.entries.len() > RUN {
            let tail = run.entries.split_off(RUN / 2);
            let head = std::mem::take(&mut run.entries);
            self.runs[at] = Run::new(head);
            self.runs.insert(at + 1, Run::new(tail));
        }
    }

    /// Takes an entry away; it must be given as it was inserted.
    pub(crate) fn remove(&mut self, entry: &Entry) {
        let at = self.run_of(entry);
        let Some(run) = self.runs.get_mut(at) else {
            return;
        };
        let Ok(place) = run
            .entries
            .binary_search_by(|other| other.key().cmp(&entry.key()))
        else {
            return;
        };
        run.entries.remove(place);
        self.len -= 1;
        if run.entries.is_empty() {
            self.runs.remove(at);
        } else if run.most_cpu == entry.free.cpu {
            *run = Run::new(std::mem::take(&mut run.entries));
        }
        self.join(at);
    }

    /// Joins a run with the next when both are short, so that their number stays proportional
    /// to the hosts'.
    fn join(&mut self, at: usize) {
        let short = |run: Option<&Run>| run.is_some_and(|run| run.entries.len() < RUN / 4);
        if short(self.runs.get(at)) && short(self.runs.get(at + 1)) {
            let next = self.runs.remove(at + 1);
            let run = &mut self.runs[at];
            run.most_cpu = run.most_cpu.max(next.most_cpu);
            run.entries.extend(next.entries);
        }
    }

    /// Hosts with this room, the most wanted first.
    pub(crate) fn fitting(&self, size: Free) -> impl Iterator<Item = &Entry> {
        self.runs
            .iter()
            .filter(move |run| run.most_cpu >= size.cpu)
            .take_while(move |run| {
                run.entries
                    .first()
                    .is_some_and(|first| first.free.memory_bytes >= size.memory_bytes)
            })
            .flat_map(|run| &run.entries)
            .filter(move |entry| {
                entry.free.cpu >= size.cpu && entry.free.memory_bytes >= size.memory_bytes
            })
    }

    /// Hosts with this room, the fullest first.
    pub(crate) fn tightest(&self, size: Free) -> impl Iterator<Item = &Entry> {
        let end = self.runs.partition_point(|run| {
            run.entries
                .first()
                .is_some_and(|first| first.free.memory_bytes >= size.memory_bytes)
        });
        self.runs
            .get(..end)
            .unwrap_or_default()
            .iter()
            .rev()
            .filter(move |run| run.most_cpu >= size.cpu)
            .flat_map(|run| run.entries.iter().rev())
            .filter(move |entry| {
                entry.free.cpu >= size.cpu && entry.free.memory_bytes >= size.memory_bytes
            })
    }

    /// How many hosts have less memory than that.
    pub(crate) fn with_less_memory(&self, memory_bytes: u64) -> usize {
        let mut enough = 0;
        for run in &self.runs {
            let here = run
                .entries
                .partition_point(|entry| entry.free.memory_bytes >= memory_bytes);
            enough += here;
            if here < run.entries.len() {
                break;
            }
        }
        self.len - enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list, through insertions and removals that split and join runs.
        #[test]
        fn a_shelf_answers_like_a_sorted_list(
            steps in proptest::collection::vec((0..400_u64, 0..40_u64, 0..9_u64), 1..900),
            wanted in (0..9_u64, 0..40_u64),
        ) {
            let (mut shelf, mut list) = (Shelf::default(), Vec::<Entry>::new());
            for (rank, memory_bytes, cpu) in steps {
                match list.iter().position(|entry| entry.rank == rank) {
                    Some(old) => shelf.remove(&list.remove(old)),
                    None => {
                        let free = Free { cpu, memory_bytes };
                        let entry = Entry { free, rank, host: u32::try_from(rank).unwrap() };
                        shelf.insert(entry);
                        list.push(entry);
                    }
                }
            }
            list.sort_by_key(Entry::key);
            let size = Free { cpu: wanted.0, memory_bytes: wanted.1 };
            let fits = |entry: &&Entry| entry.free.cpu >= size.cpu && entry.free.memory_bytes >= size.memory_bytes;
            let expected: Vec<Entry> = list.iter().filter(fits).copied().collect();
            prop_assert_eq!(shelf.fitting(size).copied().collect::<Vec<_>>(), expected.clone());
            let backwards: Vec<Entry> = expected.into_iter().rev().collect();
            prop_assert_eq!(shelf.tightest(size).copied().collect::<Vec<_>>(), backwards);
            let less = list.iter().filter(|entry| entry.free.memory_bytes < size.memory_bytes).count();
            prop_assert_eq!(shelf.with_less_memory(size.memory_bytes), less);
            prop_assert_eq!(shelf.len(), list.len());
        }
    }
}
