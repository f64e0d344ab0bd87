//! Quantities in the notation of Kubernetes (`512Mi`, `8Gi`), parsed once at the edge.

use std::fmt;

use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Why a text is no quantity of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not a whole number followed by a known unit.
    #[error(
        "{0:?} is not a quantity of bytes; write a whole number and a unit, such as 512Mi or 8Gi"
    )]
    Malformed(String),
    /// More than 2^63 bytes.
    #[error("{0:?} is too large; the largest quantity is 8191Pi")]
    TooLarge(String),
}

/// Binary and decimal units of Kubernetes quantities, without the fractional ones.
const UNITS: [(&str, u64); 11] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

impl Bytes {
    /// One MiB, the unit of memory of libvirt's and the design's figures.
    pub const MIB: u64 = 1 << 20;

    /// Parses `512Mi`, `8Gi`, `1000000`.
    ///
    /// # Errors
    /// Names the text and the accepted form.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?
            .1;
        let too_large = || QuantityError::TooLarge(text.to_owned());
        let number: u64 = number.parse().map_err(|_| too_large())?;
        let bytes = number.checked_mul(factor).ok_or_else(too_large)?;
        if bytes > i64::MAX as u64 {
            return Err(too_large());
        }
        Ok(Self(bytes))
    }

    /// Whole MiB, rounded up.
    pub fn mebibytes(self) -> u64 {
        self.0.div_ceil(Self::MIB)
    }
}

/// The largest number where the sum has none: sizes that users give may add up to more than 64 bits hold, and what
/// they are bounded by would be passed by a sum that begins anew.
impl std::iter::Sum for Bytes {
    fn sum<Sizes: Iterator<Item = Self>>(sizes: Sizes) -> Self {
        sizes.fold(Self(0), |sum, one| Self(sum.0.saturating_add(one.0)))
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that divides the number without rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS[..5].iter().rev() {
            if self.0 != 0 && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_units_of_kubernetes() {
        assert_eq!(Bytes::parse("512Mi"), Ok(Bytes(512 << 20)));
        assert_eq!(Bytes::parse("8Gi"), Ok(Bytes(8 << 30)));
        assert_eq!(Bytes::parse("2G"), Ok(Bytes(2_000_000_000)));
        assert_eq!(Bytes::parse("77"), Ok(Bytes(77)));
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "Gi", "1.5Gi", "-1Gi", "1 Gi", "1gi", "0x10"] {
            assert!(
                matches!(Bytes::parse(text), Err(QuantityError::Malformed(_))),
                "{text}"
            );
        }
        assert!(matches!(
            Bytes::parse("99999999999999999999"),
            Err(QuantityError::TooLarge(_))
        ));
        assert!(matches!(
            Bytes::parse("9000Pi"),
            Err(QuantityError::TooLarge(_))
        ));
    }

    #[test]
    fn sizes_that_are_too_many_for_a_number_add_up_to_the_largest() {
        let sum = |sizes: &[&str]| -> Bytes {
            let sizes = sizes.iter().map(|size| Bytes::parse(size));
            sizes.map(|size| size.expect("a size")).sum()
        };
        assert_eq!(sum(&[]), Bytes(0));
        assert_eq!(sum(&["1Gi", "512Mi"]), Bytes(1536 << 20));
        assert_eq!(sum(&["4194304Ti"; 3]), Bytes(3 << 62));
        assert_eq!(sum(&["4194304Ti"; 4]), Bytes(u64::MAX));
    }

    #[test]
    fn prints_what_it_parses() {
        for text in ["512Mi", "8Gi", "1Ti", "1536Mi", "77", "0"] {
            assert_eq!(
                Bytes::parse(text).map(|b| b.to_string()),
                Ok(text.to_owned())
            );
        }
    }
}
