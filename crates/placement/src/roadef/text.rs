//! Reading and writing the benchmark's text files: integers separated by white space.
//!
//! Every error says which field and which line. Counts are checked against the bytes that are
//! left before anything is allocated for them, so a short file cannot ask for much memory.

use thiserror::Error;

use super::instance::{BalanceRule, Instance, Machine, Process, Service};

/// Why a file could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// The file stops before it is complete.
    #[error("line {line}: the file ends where {field} should be")]
    Ends {
        /// Line of the end.
        line: usize,
        /// What was expected.
        field: String,
    },
    /// Something that is not a non-negative integer of 64 bits.
    #[error("line {line}: {field} is {found:?}, not an integer from 0 to {max}")]
    Number {
        /// Its line.
        line: usize,
        /// What it was to be.
        field: String,
        /// The text found, cut to 40 bytes.
        found: String,
        /// The largest accepted value.
        max: i64,
    },
    /// A count that the rest of the file cannot hold.
    #[error("line {line}: {field} is {found}, but only {left} bytes follow")]
    Short {
        /// Its line.
        line: usize,
        /// Which count.
        field: String,
        /// Its value.
        found: i64,
        /// Bytes after it.
        left: usize,
    },
    /// Text after the last field.
    #[error("line {line}: {found:?} after the last field")]
    Trailing {
        /// Its line.
        line: usize,
        /// The text found, cut to 40 bytes.
        found: String,
    },
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Self {
        Reader {
            text,
            at: 0,
            line: 1,
        }
    }

    fn skip(&mut self) {
        while let Some(c) = self.text.get(self.at).filter(|c| c.is_ascii_whitespace()) {
            self.line += usize::from(*c == b'\n');
            self.at += 1;
        }
    }

    fn word(&mut self) -> &'a [u8] {
        self.skip();
        let rest = &self.text[self.at..];
        let len = rest
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The next integer from 0 to `max`. The field's name is only built for an error.
    fn number(&mut self, max: i64, field: impl Fn() -> String) -> Result<i64, ParseError> {
        let word = self.word();
        if word.is_empty() {
            return Err(ParseError::Ends {
                line: self.line,
                field: field(),
            });
        }
        let mut value: Option<i64> = Some(0);
        for c in word {
            value = match (value, c) {
                (Some(v), b'0'..=b'9') => v
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(i64::from(c - b'0'))),
                _ => None,
            };
        }
        match value {
            Some(v) if v <= max => Ok(v),
            _ => Err(ParseError::Number {
                line: self.line,
                field: field(),
                found: cut(word),
                max,
            }),
        }
    }

    /// A count of things that take at least `each` numbers each.
    fn count(&mut self, each: usize, field: &str) -> Result<usize, ParseError> {
        let found = self.number(i64::from(i32::MAX - 1), || format!("the number of {field}"))?;
        let left = self.text.len() - self.at;
        // A number takes two bytes with its white space; the last may lack the latter.
        if (found as usize).saturating_mul(each).saturating_mul(2) > left + 1 {
            let field = format!("the number of {field}");
            return Err(ParseError::Short {
                line: self.line,
                field,
                found,
                left,
            });
        }
        Ok(found as usize)
    }

    fn index(&mut self, count: usize, field: impl Fn() -> String) -> Result<u32, ParseError> {
        let max = (count as i64 - 1).max(-1);
        self.number(max, field).map(|v| v as u32)
    }

    fn row(&mut self, n: usize, field: impl Fn(usize) -> String) -> Result<Vec<i64>, ParseError> {
        (0..n).map(|r| self.number(i64::MAX, || field(r))).collect()
    }

    fn end(&mut self) -> Result<(), ParseError> {
        let word = self.word();
        if word.is_empty() {
            return Ok(());
        }
        Err(ParseError::Trailing {
            line: self.line,
            found: cut(word),
        })
    }
}

fn cut(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(40)]).into_owned()
}

const LABEL_MAX: i64 = u32::MAX as i64;

/// Reads a model file.
pub fn parse_model(text: &[u8]) -> Result<Instance, ParseError> {
    let mut read = Reader::new(text);
    let n_resources = read.count(2, "resources")?;
    let mut resources = Vec::with_capacity(n_resources);
    for r in 0..n_resources {
        let transient = read.number(1, || format!("the transient flag of resource {r}"))? == 1;
        resources.push((
            transient,
            read.number(i64::MAX, || format!("the weight of resource {r}"))?,
        ));
    }
    let n_machines = read.count(2 + 2 * n_resources, "machines")?;
    let mut machines = Vec::with_capacity(n_machines);
    let mut machine_move_cost = Vec::new();
    for m in 0..n_machines {
        let machine = Machine {
            neighbourhood: read.number(LABEL_MAX, || format!("the neighbourhood of machine {m}"))?
                as u32,
            location: read.number(LABEL_MAX, || format!("the location of machine {m}"))? as u32,
            capacity: read.row(n_resources, |r| {
                format!("the capacity of machine {m}, resource {r}")
            })?,
            safety: read.row(n_resources, |r| {
                format!("the safety capacity of machine {m}, resource {r}")
            })?,
        };
        machines.push(machine);
        for to in 0..n_machines {
            let cost = read.number(LABEL_MAX, || {
                format!("the move cost from machine {m} to {to}")
            })?;
            machine_move_cost.push(cost as u32);
        }
    }
    let n_services = read.count(2, "services")?;
    let mut services = Vec::with_capacity(n_services);
    for s in 0..n_services {
        let spread_min =
            read.number(LABEL_MAX, || format!("the least spread of service {s}"))? as u32;
        let deps = read.count(1, &format!("dependencies of service {s}"))?;
        let depends_on = (0..deps)
            .map(|d| read.index(n_services, || format!("dependency {d} of service {s}")))
            .collect::<Result<_, _>>()?;
        services.push(Service {
            spread_min,
            depends_on,
        });
    }
    let n_processes = read.count(2 + n_resources, "processes")?;
    let mut processes = Vec::with_capacity(n_processes);
    for p in 0..n_processes {
        processes.push(Process {
            service: read.index(n_services, || format!("the service of process {p}"))?,
            need: read.row(n_resources, |r| {
                format!("the requirement of process {p}, resource {r}")
            })?,
            move_cost: read.number(i64::MAX, || format!("the move cost of process {p}"))?,
        });
    }
    let n_balances = read.count(4, "balance costs")?;
    let mut balances = Vec::with_capacity(n_balances);
    for b in 0..n_balances {
        let mut resource = |k: &str| {
            read.index(n_resources, || {
                format!("the {k} resource of balance cost {b}")
            })
        };
        let resources = (resource("first")? as usize, resource("second")? as usize);
        balances.push(BalanceRule {
            resources,
            target: read.number(i64::MAX, || format!("the target of balance cost {b}"))?,
            weight: read.number(i64::MAX, || format!("the weight of balance cost {b}"))?,
        });
    }
    let mut weight = |what: &str| read.number(i64::MAX, || format!("the weight of {what} moves"));
    let process_move_weight = weight("process")?;
    let service_move_weight = weight("service")?;
    let machine_move_weight = weight("machine")?;
    read.end()?;
    Ok(Instance {
        resources,
        machines,
        machine_move_cost,
        services,
        processes,
        balances,
        process_move_weight,
        service_move_weight,
        machine_move_weight,
    })
}

/// Reads an assignment: one machine per process of the instance.
pub fn parse_assignment(text: &[u8], instance: &Instance) -> Result<Vec<u32>, ParseError> {
    let mut read = Reader::new(text);
    let machines = instance.machines.len();
    let assignment = (0..instance.processes.len())
        .map(|p| read.index(machines, || format!("the machine of process {p}")))
        .collect::<Result<Vec<_>, _>>()?;
    read.end()?;
    Ok(assignment)
}

/// The text of an assignment: machines in the order of the processes, separated by spaces.
pub fn write_assignment(assignment: &[u32]) -> String {
    let words: Vec<String> = assignment.iter().map(u32::to_string).collect();
    words.join(" ") + "\n"
}
