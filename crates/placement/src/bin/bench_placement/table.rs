//! The one table: rows that were measured here, and rows that other programs left in a file.

use std::borrow::Cow;

/// A figure beside its bar.
pub struct Row {
    pub what: String,
    pub measured: String,
    pub bar: Cow<'static, str>,
    /// What others reached on a case of that shape, where they published it.
    pub anchor: Cow<'static, str>,
    pub good: Option<bool>,
}

/// Rows of a file: on each line what, measured, bar, what others reached, and `met`, `MISSED` or nothing, separated by tabs.
pub fn read(file: &str) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("--and {file}: {error}"))?;
    let row = |(number, line): (usize, &str)| {
        let refuse = || format!("--and {file}, line {}: {line:?} is no row", number + 1);
        let fields: Vec<&str> = line.split('\t').collect();
        let [what, measured, bar, anchor, judged] = fields[..] else {
            return Err(refuse());
        };
        let good = match judged {
            "met" => Some(true),
            "MISSED" => Some(false),
            "" => None,
            _ => return Err(refuse()),
        };
        let (bar, anchor) = (bar.to_owned().into(), anchor.to_owned().into());
        let (what, measured) = (what.to_owned(), measured.to_owned());
        Ok(Row {
            what,
            measured,
            bar,
            anchor,
            good,
        })
    };
    text.lines().enumerate().map(row).collect()
}

/// Prints all rows.
pub fn print(rows: &[Row]) {
    let width = |get: fn(&Row) -> usize| rows.iter().map(get).max().unwrap_or(0);
    let (what, measured) = (
        width(|row| row.what.chars().count()),
        width(|row| row.measured.chars().count()),
    );
    let bar = width(|row| row.bar.chars().count());
    println!(
        "{:what$}  {:>measured$}  {:bar$}  {:6}  others",
        "what", "measured", "bar", ""
    );
    for row in rows {
        let judged = match row.good {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let line = format!(
            "{:what$}  {:>measured$}  {:bar$}  {judged:6}  {}",
            row.what, row.measured, row.bar, row.anchor
        );
        println!("{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_are_read_or_refused_with_their_line() {
        let file = std::env::temp_dir().join(format!("zy-rows-{}", std::process::id()));
        let name = file.display().to_string();
        std::fs::write(&file, "a\t1\t<= 2\tthem: 3\tmet\nb\t4\t\t\t\n").expect("written");
        let rows = read(&name).expect("rows");
        std::fs::write(&file, "a\t1\t\t\t\nb\t4\n").expect("written");
        let refused = read(&name).err().expect("refused");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(
            (rows.len(), rows[0].good, rows[1].good),
            (2, Some(true), None)
        );
        assert!(refused.contains("line 2"), "{refused}");
    }
}
