//! How long a live migration takes.
//!
//! Pre-copy sends the memory, then what was written meanwhile, then what was written meanwhile…
//! With r = dirty rate / bandwidth, the rounds are a geometric series, memory · (1 + r + r² + …)
//! = memory / (1 − r), which is the same as copying at (bandwidth − dirty rate). A VM that
//! writes too fast is slowed down (auto-converge), which caps the sum.

/// A move as the estimate sees it. Floating point: every value is far below 2⁵³, and only
/// basic operations are used, so the same input gives the same result everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    /// Bytes of memory.
    pub memory: f64,
    /// Bytes written per second.
    pub dirty: f64,
    /// Memory sent at most, as a multiple of the VM's.
    pub sent_max: f64,
}

impl Copying {
    /// Bytes of memory that are settled per second at a bandwidth.
    pub(super) fn progress(&self, bandwidth: f64) -> f64 {
        (bandwidth - self.dirty).max(bandwidth / self.sent_max)
    }

    /// Seconds of the whole move at a steady bandwidth.
    pub(super) fn seconds(&self, bandwidth: f64) -> f64 {
        self.memory / self.progress(bandwidth)
    }

    /// Bytes on the wire at a steady bandwidth.
    pub(super) fn bytes(&self, bandwidth: f64) -> f64 {
        bandwidth * self.seconds(bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The closed form against the rounds it stands for.
    #[test]
    fn the_estimate_is_the_sum_of_the_rounds() {
        for dirty in [0.0, 30.0, 60.0, 90.0, 200.0] {
            let copying = Copying {
                memory: 8_000.0,
                dirty,
                sent_max: 3.0,
            };
            let (mut round, mut sum) = (8_000.0, 0.0);
            for _ in 0..200 {
                sum += round;
                round *= dirty / 100.0;
            }
            let sum = f64::min(sum, 3.0 * 8_000.0);
            assert!(
                (copying.bytes(100.0) - sum).abs() < 1.0,
                "{dirty}: {} and {sum}",
                copying.bytes(100.0)
            );
        }
    }

    #[test]
    fn sharing_a_link_never_saves_bytes() {
        let copying = Copying {
            memory: 8_000.0,
            dirty: 40.0,
            sent_max: 4.0,
        };
        assert!(copying.bytes(50.0) > copying.bytes(100.0));
    }
}
