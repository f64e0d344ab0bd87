//! The reader against bad text and absurd numbers, and whole runs from files.

use super::tests::{TOY, optimum};
use super::*;
use crate::core::Model;
use crate::search::{Budget, improve};

#[test]
fn bad_text_is_refused_with_its_line_and_field() {
    let says = |text: &str, expected: &str| {
        let error = parse_model(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    };
    says("", "line 1: the file ends where the number of resources");
    says(
        "2\n1 100\n",
        "line 3: the file ends where the transient flag of resource 1",
    );
    says(
        &TOY.replace("0 10\n4", "2 10\n4"),
        "line 3: the transient flag of resource 1 is \"2\"",
    );
    says(
        &TOY.replace("30 400", "30 x400"),
        "line 5: the capacity of machine 0, resource 1",
    );
    says(
        &TOY.replace("30 400", "30 -4"),
        "\"-4\", not an integer from 0",
    );
    says(
        &TOY.replace("\n4\n", "\n2000000000\n"),
        "the number of machines is 2000000000, but only",
    );
    says(
        &TOY.replace("1 1 0\n3", "1 1 2\n3"),
        "line 11: dependency 0 of service 1 is \"2\"",
    );
    says(
        &TOY.replace("1 6 200", "9 6 200"),
        "line 15: the service of process 2 is \"9\"",
    );
    says(
        &TOY.replace("0 1 20\n", "0 2 20\n"),
        "the second resource of balance cost 0",
    );
    says(
        &TOY.replace("1 10 100", "1 10 99999999999999999999"),
        "the weight of machine moves",
    );
    says(&format!("{TOY} 5"), "\"5\" after the last field");
    let instance = parse_model(TOY.as_bytes()).unwrap();
    for text in ["0 3", "0 3 4", "0 3 0 1", "0 3 \u{fffd}"] {
        assert!(
            parse_assignment(text.as_bytes(), &instance).is_err(),
            "{text:?}"
        );
    }
}

#[test]
fn a_file_cut_anywhere_or_with_absurd_numbers_is_an_error_never_a_panic() {
    let whole = TOY.trim_end().len();
    for end in 0..whole {
        let cut = parse_model(&TOY.as_bytes()[..end]);
        // Cutting inside the last number leaves a shorter, valid one.
        assert!(cut.is_err() || end >= whole - 2, "cut at {end}");
    }
    let words: Vec<&str> = TOY.split_whitespace().collect();
    let mut refused = 0;
    for k in 0..words.len() {
        for absurd in [
            "9223372036854775807",
            "18446744073709551616",
            "4294967296",
            "2147483647",
        ] {
            let mut changed = words.clone();
            changed[k] = absurd;
            let Ok(instance) = parse_model(changed.join(" ").as_bytes()) else {
                refused += 1;
                continue;
            };
            match Model::new(instance.to_spec(&[0, 3, 0])) {
                Err(_) => refused += 1,
                Ok(model) => {
                    improve(&model, 1, 1, Budget::Proposals(2_000));
                }
            }
        }
    }
    assert!(refused > words.len());
}

#[test]
fn a_command_line_is_pairs_of_known_options() {
    let parse = |line: &str| {
        let args = line.split_whitespace().map(str::to_owned);
        Options::new(args, &["-t", "--threads"])
    };
    let options = parse("-t 5").unwrap();
    assert_eq!(options.required("-t"), Ok("5"));
    assert_eq!(options.number("--threads", 2), Ok(2));
    assert!(options.required("--threads").is_err());
    for wrong in ["-x 1", "-t", "-t 1 -t 2"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    assert!(parse("-t five").unwrap().number("-t", 1).is_err());
}

#[test]
fn files_are_solved_or_refused_with_their_name() {
    let directory = std::env::temp_dir().join(format!("roadef-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (model, start) = (directory.join("model.txt"), directory.join("start.txt"));
    let effort = Effort {
        used: &std::time::Duration::default,
        time: std::time::Duration::from_secs(1),
        iterations: Some(20_000),
        seed: 3,
        threads: 2,
    };
    std::fs::write(&model, TOY).unwrap();
    let missing = solve_files(&model, &start, effort, |_| panic!("no legal start"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("start.txt"), "{missing}");
    std::fs::write(&start, "0 0 0\n").unwrap();
    let illegal = solve_files(&model, &start, effort, |_| panic!("no legal start"))
        .unwrap_err()
        .to_string();
    assert!(
        illegal.contains("the start breaks 2 hard constraints"),
        "{illegal}"
    );
    std::fs::write(&start, "0 3 0\n").unwrap();
    let mut first = Vec::new();
    let started = |homes: &[u32]| {
        first = homes.to_vec();
        Ok(())
    };
    let answer = solve_files(&model, &start, effort, started).unwrap();
    assert_eq!(
        first.len(),
        answer.assignment.len(),
        "the start is an answer"
    );
    let instance = parse_model(TOY.as_bytes()).unwrap();
    assert_eq!(answer.cost.total(), optimum(&instance, &[0, 3, 0]));
    std::fs::remove_dir_all(&directory).unwrap();
}
