//! A BMC that an operator caught lying, as the Host's status tells it: the operator that found it may be gone, and the next
//! one has seen nothing of it.

/// Whether a host's BMC is held for lying on somebody's word, whatever this observer saw of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldLie {
    /// The status told it at the last step.
    told: bool,
    /// It counts: this observer has not read On since it was told.
    pub(super) holds: bool,
}

impl ToldLie {
    /// Takes what the status tells. It counts from the moment at which it is told anew: what is told on after this observer
    /// has read On is only not written yet. Whoever does not lead reads no power and follows the status; a leader writes it,
    /// and takes nothing back because of a status that is of before (a late write, an etcd that was restored).
    pub(super) fn hear(&mut self, told: bool, leads: bool) {
        match (self.told, told) {
            (false, true) => self.holds = true,
            (_, false) if !leads => self.holds = false,
            _ => {}
        }
        self.told = told;
    }

    /// It counts no more: every BMC of the host read On, or the host has booted anew.
    pub(super) fn end(&mut self) {
        self.holds = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_holds_until_it_was_read_on() {
        let mut lie = ToldLie::default();
        lie.hear(true, false);
        lie.hear(true, true);
        assert!(lie.holds);
        lie.end();
        lie.hear(true, true);
        assert!(!lie.holds, "it is not written yet");
        lie.hear(false, true);
        lie.hear(true, true);
        assert!(lie.holds, "caught once more");
    }

    #[test]
    fn only_who_leads_knows_better_than_the_status() {
        for (leads, holds) in [(false, false), (true, true)] {
            let mut lie = ToldLie::default();
            lie.hear(true, leads);
            lie.hear(false, leads);
            assert_eq!(lie.holds, holds);
        }
    }
}
