//! What happened, as structured events in order. Told only when somebody listens: a failing
//! seed is run again with a story, the thousands that pass are run without.

use std::fmt;

/// One event: who did or suffered what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Virtual milliseconds since the start.
    pub at: u64,
    /// The actor (`operator-a`, `agent h1`, `world`).
    pub who: String,
    /// The kind, in camelCase; a closed set that scenarios name.
    pub what: &'static str,
    /// Its properties in a fixed order.
    pub fields: Vec<(&'static str, String)>,
}

impl Told {
    /// A property by name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.at / 1000, self.at % 1000);
        write!(f, "{seconds:>4}.{rest:03}  {:<11} {}", self.who, self.what)?;
        self.fields
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// A kind of event with properties that it must have; `vm1` stands for every VM of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The kind.
    pub what: String,
    /// Properties; an event may have more.
    pub fields: Vec<(String, String)>,
}

impl Pattern {
    /// Whether an event is of this kind.
    pub fn matches(&self, told: &Told) -> bool {
        told.what == self.what
            && self.fields.iter().all(|(key, wanted)| {
                let value = if key == "who" {
                    Some(told.who.as_str())
                } else {
                    told.field(key)
                };
                value.is_some_and(|value| {
                    let rest = value.strip_prefix(wanted.as_str());
                    let numbered = key == "vm" && rest.is_some_and(|rest| rest.starts_with('-'));
                    value == wanted || numbered
                })
            })
    }
}

/// A story under way.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Whether anybody listens.
    pub heard: bool,
    /// What was told.
    pub lines: Vec<Told>,
}

impl Story {
    /// Tells one event; the closure runs only when somebody listens.
    pub fn tell(
        &mut self,
        at: u64,
        what: &'static str,
        tell: impl FnOnce() -> (String, Vec<(&'static str, String)>),
    ) {
        if self.heard {
            let (who, fields) = tell();
            self.lines.push(Told {
                at,
                who,
                what,
                fields,
            });
        }
    }
}

/// The lines of a story for people: what is said again and again is said once, with a count.
pub fn lines(story: &[Told]) -> Vec<String> {
    let mut out: Vec<(String, &Told, u32)> = Vec::new();
    for told in story {
        let again = out.iter_mut().rev().take(3).find(|(_, known, _)| {
            (&known.who, known.what, &known.fields) == (&told.who, told.what, &told.fields)
        });
        match again {
            Some((_, _, count)) => *count += 1,
            None => out.push((told.to_string(), told, 1)),
        }
    }
    out.into_iter()
        .map(|(line, _, count)| {
            if count > 1 {
                format!("{line} ({count} times)")
            } else {
                line
            }
        })
        .collect()
}
