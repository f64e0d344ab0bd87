//! A small seeded source of chance (SplitMix64, Steele, Lea and Flood 2014): the same seed
//! gives the same schedule on every machine.

/// The source.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Seeds it; neighbouring seeds give unrelated streams.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, zero when `end` is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }

    /// An index below `end`.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(u64::try_from(end).unwrap_or(0))).unwrap_or(0)
    }

    /// A number from `from` up to, but without, `to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_stream_and_all_values_occur() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            let value = a.index(10);
            assert_eq!(value, b.index(10));
            seen[value] += 1;
        }
        assert!(seen.iter().all(|count| *count > 800), "{seen:?}");
        assert_ne!(Rng::new(7).bits(), Rng::new(8).bits());
    }
}
