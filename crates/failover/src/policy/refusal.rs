//! A value that is refused, and what would be safe: in this crate's words, or in those of whoever set it.

use std::fmt;

/// One value that is refused, with what is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The field, in the words of this crate's policy.
    pub field: &'static str,
    /// The refused value.
    pub value: u64,
    /// What would go wrong.
    pub because: &'static str,
    /// What is safe.
    pub safe: Bounds,
}

/// What a field may be. Numbers are in the unit of the refused field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// Whatever the other fields are.
    Range {
        /// This or more.
        least: u64,
        /// This or less.
        most: u64,
    },
    /// Beside other fields.
    MoreThan {
        /// More than this.
        bound: u64,
        /// How the bound is made of the fields.
        how: &'static str,
        /// The fields that make the bound.
        of: &'static [&'static str],
    },
    /// Beside other fields.
    AtLeast {
        /// This or more.
        bound: u64,
        /// How the bound is made of the fields.
        how: &'static str,
        /// The fields that make the bound.
        of: &'static [&'static str],
    },
    /// Several fields, added up.
    Together {
        /// The fields.
        of: &'static [&'static str],
        /// Their sum may be this or less.
        most: u64,
        /// Their sum.
        now: u64,
    },
}

impl PolicyError {
    /// The refusal for whoever set the policy: `named` says what they call a field, and how many of the
    /// field's own units make one of theirs. Bounds are rounded to what is safe in theirs.
    pub fn told(&self, named: impl Fn(&'static str) -> (String, u64)) -> String {
        let (name, unit) = named(self.field);
        let unit = unit.max(1);
        let names = |of: &[&'static str]| {
            let names: Vec<String> = of.iter().map(|field| named(field).0).collect();
            match names.split_last() {
                Some((last, before)) if !before.is_empty() => {
                    format!("{} and {last}", before.join(", "))
                }
                _ => names.concat(),
            }
        };
        let safe = match self.safe {
            Bounds::Range { least, most } => {
                format!("{} to {}", least.div_ceil(unit), most / unit)
            }
            Bounds::MoreThan { bound, how, of } => {
                format!("more than {} ({how}{})", bound / unit, names(of))
            }
            Bounds::AtLeast { bound, how, of } => {
                format!("at least {} ({how}{})", bound.div_ceil(unit), names(of))
            }
            Bounds::Together { of, most, now } => format!(
                "{} together at most {}, now {}",
                names(of),
                most / unit,
                now.div_ceil(unit)
            ),
        };
        format!(
            "{name}: {} is refused, because {}; safe: {safe}",
            self.value / unit,
            self.because
        )
    }
}

/// In the words of this crate's policy.
impl fmt::Display for PolicyError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.told(|field| (field.to_owned(), 1)))
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_in_the_readers_words_and_rounded_to_what_is_safe() {
        let seconds = |field: &'static str| match field.strip_suffix("Milliseconds") {
            Some(name) => (format!("spec.{name}Seconds"), 1000),
            None => (format!("spec.{field}"), 1),
        };
        let refused = |safe| PolicyError {
            field: "waitMilliseconds",
            value: 20_000,
            because: "it is so",
            safe,
        };
        let of = &["aMilliseconds", "bMilliseconds"];
        for (safe, told) in [
            (
                Bounds::Range {
                    least: 500,
                    most: 14_500,
                },
                "1 to 14",
            ),
            (
                Bounds::AtLeast {
                    bound: 2_001,
                    how: "twice ",
                    of: &["n"],
                },
                "at least 3 (twice spec.n)",
            ),
            (
                Bounds::MoreThan {
                    bound: 3_000,
                    how: "the sum of ",
                    of,
                },
                "more than 3 (the sum of spec.aSeconds and spec.bSeconds)",
            ),
            (
                Bounds::Together {
                    of: &["aMilliseconds", "bMilliseconds", "c"],
                    most: 50_000,
                    now: 50_001,
                },
                "spec.aSeconds, spec.bSeconds and spec.c together at most 50, now 51",
            ),
        ] {
            assert_eq!(
                refused(safe).told(seconds),
                format!("spec.waitSeconds: 20 is refused, because it is so; safe: {told}")
            );
        }
    }
}
