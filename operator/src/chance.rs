//! Seeded chance for fuzz tests: cheap, the same everywhere, no dependency.

/// Cases of a fuzz test: `ZY_FUZZ_CASES`, else as many as take about a second.
pub(crate) fn cases() -> u64 {
    number("ZY_FUZZ_CASES", 20_000)
}

/// A run of other cases than were asked for would pass for the one that was.
fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| {
            panic!("{variable}={text}: write a whole number in digits, such as 5000000")
        }),
        Err(std::env::VarError::NotPresent) => otherwise,
        Err(error) => panic!("{variable}: {error}"),
    }
}

/// A generator (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    /// Seeded by `ZY_FUZZ_SEED`, else always the same.
    pub(crate) fn from_environment() -> Self {
        Self(number("ZY_FUZZ_SEED", 1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// A document with none to a few of: bytes flipped, cut off, doubled, words swapped for wrong
    /// ones, deep nesting put in.
    pub(crate) fn mangle(&mut self, document: &[u8]) -> Vec<u8> {
        const WORDS: [&[u8]; 10] = [
            b"null",
            b"[]",
            b"{}",
            b"\"Off\"",
            b"\"On\"",
            b"-1",
            b"1e999",
            b"true",
            b"\"\\ud800\"",
            b"\"PowerState\":\"Off\",",
        ];
        let mut bytes = document.to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                1 => bytes.truncate(at),
                2 => {
                    let piece = bytes[at..].to_vec();
                    bytes.extend(piece);
                }
                3 => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                4 => {
                    let word = WORDS[self.below(WORDS.len())];
                    self.replace_value(&mut bytes, word);
                }
                5 => {
                    let deep = vec![b'['; 1 + self.below(300)];
                    bytes.splice(at..at, deep);
                }
                _ if at < bytes.len() => {
                    bytes.remove(at);
                }
                _ => {}
            }
        }
        bytes
    }

    /// Replaces what stands after some colon, up to the next comma or brace: well-formed and wrong.
    fn replace_value(&mut self, bytes: &mut Vec<u8>, word: &[u8]) {
        let colons: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b':').collect();
        if colons.is_empty() {
            return;
        }
        let from = colons[self.below(colons.len())] + 1;
        let to = bytes[from..]
            .iter()
            .position(|byte| b",}]".contains(byte))
            .map_or(bytes.len(), |length| from + length);
        bytes.splice(from..to, word.iter().copied());
    }
}
