//! When a renewal is sent: once in an interval, and one that failed is sent again sooner, as two
//! that are missed make a host `Suspect`.
//!
//! Each failure in a row doubles the wait, up to the interval: an API server that refuses because it
//! has too much to do gets three renewals more from a host, and then no more than from a healthy one.

use failover::Moment;

/// From sending a renewal that failed to sending the next, after the first failure, milliseconds.
const AGAIN: u64 = 250;

/// Paces renewals; one is under way at most. Time is the host's CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    due: Moment,
    sent_at: Moment,
    under_way: bool,
    failures: u32,
}

impl Pace {
    /// Whether one is to be sent now.
    pub fn is_due(&self, now: Moment) -> bool {
        !self.under_way && now >= self.due
    }

    /// One is sent; the next follows after the policy's interval, milliseconds.
    pub fn sent(&mut self, now: Moment, interval: u64) {
        self.under_way = true;
        self.sent_at = now;
        self.due = now.plus(interval);
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self) {
        self.under_way = false;
        self.failures = 0;
    }

    /// It failed, or was not answered in time.
    pub fn failed(&mut self) {
        self.under_way = false;
        let times = 1_u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        let wait = AGAIN.saturating_mul(times);
        self.no_later_than(self.sent_at.plus(wait));
        self.failures = self.failures.saturating_add(1);
    }

    /// There is something to tell by then.
    pub fn no_later_than(&mut self, at: Moment) {
        self.due = self.due.min(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 2_000;
    /// The guard's turn.
    const TURN: u64 = 250;

    /// When renewals are sent within a time, given for each whether it fails, and how long it takes.
    fn sent(lasts: u64, takes: u64, fails: impl Fn(usize) -> bool) -> Vec<u64> {
        let mut pace = Pace::default();
        let (mut sent, mut ends) = (Vec::new(), None);
        for now in (0..lasts).step_by(TURN as usize) {
            if ends.is_some_and(|at| now >= at) {
                ends = None;
                match fails(sent.len() - 1) {
                    true => pace.failed(),
                    false => pace.acknowledged(),
                }
            }
            if pace.is_due(Moment(now)) {
                assert_eq!(ends, None, "one is under way at most");
                pace.sent(Moment(now), INTERVAL);
                sent.push(now);
                ends = Some(now + takes);
            }
        }
        sent
    }

    #[test]
    fn without_failures_it_is_one_in_an_interval() {
        let minute = sent(60_000, TURN, |_| false);
        assert_eq!(minute.len(), 30);
        assert!(minute.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
    }

    #[test]
    fn a_refused_renewal_is_sent_again_before_the_host_is_suspect() {
        let fails = |index| index == 1;
        assert_eq!(sent(5_000, TURN, fails), [0, 2_000, 2_250, 4_250]);
    }

    #[test]
    fn one_that_was_not_answered_in_time_is_sent_again_at_once() {
        let fails = |index| index == 1;
        assert_eq!(sent(6_000, 1_500, fails), [0, 2_000, 3_500, 5_500]);
        let never = sent(10_000, 1_500, |index| index > 0);
        assert_eq!(never, [0, 2_000, 3_500, 5_000, 6_500, 8_500]);
    }

    #[test]
    fn refusals_in_a_row_cost_three_renewals_more_and_no_more() {
        let refused = sent(60_000, TURN, |_| true);
        assert_eq!(refused[..6], [0, 250, 750, 1_750, 3_750, 5_750]);
        assert_eq!(refused.len(), 3 + 30);
        let every_other = sent(60_000, TURN, |index| index % 2 == 0);
        assert!(
            every_other
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= AGAIN)
        );
        assert!(every_other.len() <= 2 * 30);
    }

    #[test]
    fn no_number_of_failures_wears_the_pause_out() {
        let mut pace = Pace::default();
        for _ in 0..70 {
            pace.sent(Moment(0), INTERVAL);
            pace.failed();
            assert!(!pace.is_due(Moment(AGAIN - 1)));
        }
    }

    #[test]
    fn a_word_that_is_due_waits_for_the_renewal_under_way() {
        let mut pace = Pace::default();
        pace.sent(Moment(0), INTERVAL);
        pace.no_later_than(Moment(500));
        assert!(!pace.is_due(Moment(600)));
        pace.acknowledged();
        assert!(pace.is_due(Moment(600)));
    }
}
