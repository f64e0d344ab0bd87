//! The stories of the design are all told, briefly: `tests/scenarios/README.md` names every directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The design's stories.
const STORIES: u32 = 60;
/// Lines of a directory's files together.
const LINES: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

/// Every directory by its story's number.
fn directories() -> BTreeMap<u32, BTreeSet<String>> {
    let mut all: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(root()).expect("tests/scenarios") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
            let number = digits.parse();
            let number = number.unwrap_or_else(|_| panic!("{name} begins with no number"));
            all.entry(number).or_default().insert(name.into_owned());
        }
    }
    all
}

#[test]
fn every_story_has_two_variants_and_no_other_number_is_used() {
    let all = directories();
    let numbers: Vec<u32> = all.keys().copied().collect();
    assert_eq!(numbers, (1..=STORIES).collect::<Vec<u32>>());
    let alone: Vec<_> = all.iter().filter(|(_, names)| names.len() < 2).collect();
    assert!(alone.is_empty(), "one variant only: {alone:?}");
}

#[test]
fn every_directory_is_short_and_whole() {
    for name in directories().into_values().flatten() {
        let folder = root().join(&name);
        let mut lines = 0;
        for file in ["README.md", "scenario.yaml", "expected.yaml"] {
            let text = std::fs::read_to_string(folder.join(file));
            let text = text.unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
            assert!(!text.trim().is_empty(), "{name}/{file} is empty");
            lines += text.lines().count();
        }
        assert!(lines <= LINES, "{name} has {lines} lines");
        let files = std::fs::read_dir(&folder).expect("a directory").count();
        assert_eq!(files, 3, "{name} holds other files");
    }
}

#[test]
fn the_table_names_every_directory_in_its_storys_row() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("the table");
    let mut told: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [story, directories] = cells.as_slice() else {
            panic!("not two cells: {line}");
        };
        let number = story.split(' ').next().unwrap_or_default();
        if let Ok(number) = number.parse() {
            let names = directories.split(", ").map(str::to_owned).collect();
            told.insert(number, names);
        }
    }
    assert_eq!(told, directories());
}
