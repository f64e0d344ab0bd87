//! A small seeded generator (xoshiro256**, Blackman and Vigna, public domain algorithm), so that a
//! seed gives the same search on every platform and in every version of every dependency.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Rng {
    s: [u64; 4],
}

impl Rng {
    /// A stream for a seed; different `stream` numbers give unrelated streams.
    pub fn new(seed: u64, stream: u64) -> Rng {
        // SplitMix64 spreads the seed over the whole state, which must not be all zero.
        let mut z = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        let mut next = || {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        Rng {
            s: [next(), next(), next(), next() | 1],
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let out = self.s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = self.s[1] << 17;
        self.s[2] ^= self.s[0];
        self.s[3] ^= self.s[1];
        self.s[1] ^= self.s[2];
        self.s[0] ^= self.s[3];
        self.s[2] ^= t;
        self.s[3] = self.s[3].rotate_left(45);
        out
    }

    /// A number below `n`; 0 when `n` is 0. The bias, below n / 2^32, does not matter to a search.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }

    /// All of these, from any one on, and round to the one before it.
    pub fn around<'a, T>(&mut self, all: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let (before, after) = all.split_at(self.below(all.len()));
        after.iter().chain(before)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
