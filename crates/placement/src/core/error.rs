//! Why a stated problem cannot be used.

use thiserror::Error;

/// What is wrong with a [`super::Spec`]; the message says where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ModelError {
    /// A vector has the wrong number of entries.
    #[error("{what} {index} has {found} {of}, expected {expected}")]
    Length {
        /// Kind of thing: host, item, class.
        what: &'static str,
        /// Its index.
        index: usize,
        /// What is counted.
        of: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// An index names something that does not exist.
    #[error("{what} {index} names {of} {found}, of {count}")]
    Reference {
        /// Kind of thing.
        what: &'static str,
        /// Its index.
        index: usize,
        /// Kind of what it names.
        of: &'static str,
        /// The index it names.
        found: usize,
        /// How many there are.
        count: usize,
    },
    /// A number that must not be negative.
    #[error("{what} {index}: {of} is {found}, less than zero")]
    Negative {
        /// Kind of thing.
        what: &'static str,
        /// Its index.
        index: usize,
        /// The field.
        of: &'static str,
        /// Its value.
        found: i64,
    },
    /// Sums of the stated numbers could leave 64 bits.
    #[error("the numbers are too large: {what} could leave 64 bits")]
    TooLarge {
        /// The sum that could overflow.
        what: &'static str,
    },
    /// More of something than 32-bit indices hold.
    #[error("too many {what}: {found}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        found: usize,
    },
}
