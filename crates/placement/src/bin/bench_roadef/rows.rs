//! Rows for the one table of `bench_placement --and FILE`, added to a file.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use crate::{ANCHORS, Solved};

/// The time for which the challenge's entries were judged, seconds.
const ENTRY_SECONDS: u64 = 300;
/// What the sum of the scores of set A may be after that time.
const SUM_MAX: f64 = 0.02;

/// Adds a row for each answer, and the sum for each time at which all of set A was solved.
pub fn append(file: &str, solved: &[Solved]) -> io::Result<()> {
    let mut out = OpenOptions::new().create(true).append(true).open(file)?;
    out.write_all(render(solved).as_bytes())
}

fn render(solved: &[Solved]) -> String {
    let mut times: Vec<(u64, u32)> = solved
        .iter()
        .map(|one| (one.seconds, one.threads))
        .collect();
    times.sort_unstable();
    times.dedup();
    let mut lines = String::new();
    for (seconds, threads) in times {
        let those: Vec<&Solved> = solved.iter().filter(|one| one.seconds == seconds).collect();
        let title = format!("ROADEF, {seconds} s x {threads} threads");
        let judged = |good: bool| match (seconds, good) {
            (ENTRY_SECONDS, true) => "met",
            (ENTRY_SECONDS, false) => "MISSED",
            _ => "",
        };
        for one in &those {
            let (bar, others, mark) = match one.anchor {
                Some((best, entry)) => (
                    format!("<= {entry} at {ENTRY_SECONDS} s"),
                    format!("best known {best}"),
                    judged(one.cost <= i128::from(entry)),
                ),
                None => Default::default(),
            };
            lines.push_str(&format!(
                "{title}: {}\t{}\t{bar}\t{others}\t{mark}\n",
                one.name, one.cost
            ));
        }
        let scores: Vec<f64> = those.iter().filter_map(|one| one.score).collect();
        if scores.len() == ANCHORS.len() {
            let sum: f64 = scores.iter().sum();
            lines.push_str(&format!(
                "{title}: sum of scores of set A\t{sum:.4}\t<= {SUM_MAX} at {ENTRY_SECONDS} s\t0 = best known\t{}\n",
                judged(sum <= SUM_MAX)
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, seconds: u64, cost: i128) -> Solved {
        let anchor = ANCHORS.iter().find(|(known, ..)| *known == name);
        Solved {
            name: name.to_owned(),
            seconds,
            threads: 2,
            cost,
            anchor: anchor.map(|&(_, best, entry)| (best, entry)),
            score: anchor.map(|(_, best, _)| (cost - i128::from(*best)) as f64),
        }
    }

    #[test]
    fn only_what_ran_as_long_as_the_entries_is_judged() {
        let mut all: Vec<Solved> = ANCHORS
            .iter()
            .map(|(name, best, _)| answer(name, 300, (*best).into()))
            .collect();
        all.push(answer("a2_1", 10, 330));
        all.push(answer("mine", 300, 7));
        let text = render(&all);
        assert_eq!(text.matches("\tmet\n").count(), ANCHORS.len() + 1, "{text}");
        assert!(
            text.contains("mine\t7\t\t\t\n") && !text.contains("MISSED"),
            "{text}"
        );
        assert!(render(&[answer("a2_1", 300, 330)]).contains("\tMISSED\n"));
    }
}
