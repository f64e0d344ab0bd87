//! `drills/README.md` tells which stories of failover are played on a lab, and by what: no story, drill or test
//! is missing there, and none is made up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::plays::PROGRAMS;

/// Stories of failover.
const STORIES: usize = 60;
/// Nobody plays it.
const NOBODY: &str = "–";

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(of: &str) -> String {
    std::fs::read_to_string(path(of)).expect(of)
}

/// Rows of tables, cell by cell, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter_map(|line| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").collect::<Vec<_>>())
    });
    lines
        .filter(|cells| !["story", "drill"].contains(&cells[0]))
        .collect()
}

/// The number of the story that a row is about; none: it is about a drill.
fn story(cells: &[&str]) -> Option<usize> {
    cells[0].split(' ').next()?.parse().ok()
}

fn names(cell: &str) -> impl Iterator<Item = String> {
    let names = cell.split(", ").filter(|name| *name != NOBODY);
    names.map(str::to_owned)
}

/// Names of the drills in a folder.
fn drills_in(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path(folder)).expect(folder);
    let paths = entries.map(|entry| entry.expect(folder).path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_story_has_one_row_under_the_name_that_its_scenarios_have() {
    let (table, scenarios) = (read("drills/README.md"), read("../scenarios/README.md"));
    let (table, scenarios) = (rows(&table), rows(&scenarios));
    let of =
        |rows: &[Vec<&str>]| -> Vec<usize> { rows.iter().filter_map(|row| story(row)).collect() };
    let all: Vec<usize> = (1..=STORIES).collect();
    assert_eq!(of(&scenarios), all);
    assert_eq!(of(&table), all);
    let titles = table.iter().zip(&scenarios);
    for (here, there) in titles.filter(|(here, _)| story(here).is_some()) {
        assert_eq!(here[0], there[0]);
        assert_eq!(here.len(), 3, "{here:?}");
    }
}

#[test]
fn every_drill_is_in_the_table_and_every_name_in_it_exists() {
    let table = read("drills/README.md");
    let (mut drills, mut programs) = (BTreeSet::new(), BTreeSet::new());
    for row in rows(&table) {
        if story(&row).is_some() {
            drills.extend(names(row[1]));
            programs.extend(names(row[2]));
        } else {
            assert!(drills.insert(row[0].to_owned()), "{} has a story", row[0]);
        }
    }
    let folders = ["drills", "../../cli/drills", "tests/last_resort"];
    let there: BTreeSet<String> = folders.into_iter().flat_map(drills_in).collect();
    assert_eq!(drills, there);
    for program in programs {
        let places = [
            format!("tests/{program}.rs"),
            format!("tests/{program}/main.rs"),
            format!("src/bin/{program}.rs"),
        ];
        let exists = places.iter().any(|place| path(place).is_file());
        assert!(exists, "{program} is neither a test nor a program here");
    }
}

#[test]
fn what_the_long_programs_play_is_in_the_table() {
    let table = read("drills/README.md");
    let rows = rows(&table);
    for (program, played) in PROGRAMS {
        let number = |name: &&str| name.trim_end_matches(char::is_alphabetic).parse().ok();
        let played: BTreeSet<Option<usize>> = played.iter().map(number).collect();
        let told = rows.iter().filter(|row| {
            let is_named = || names(row[2]).any(|name| name == program);
            story(row).is_some() && is_named()
        });
        let told: BTreeSet<Option<usize>> = told.map(|row| story(row)).collect();
        assert_eq!(told, played, "{program}");
    }
}
