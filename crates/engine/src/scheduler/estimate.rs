//! What a duration will be, from what it was.

/// A mean that follows what is observed: the first observation counts whole, each later one with a share of its own, so that
/// what was long ago is forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    mean: f32,
    seen: u8,
}

/// Weight of one observation among many, as a power of two: an eighth.
const SETTLED: u8 = 8;

impl Estimate {
    /// Nothing was observed; until it is, `guess` microseconds stand for it.
    pub(super) fn guess(guess: u64) -> Self {
        Self { mean: guess as f32, seen: 0 }
    }

    pub(super) fn observe(&mut self, micros: u64) {
        // A plain mean of the first few, so that one odd first value is soon outweighed.
        self.seen = self.seen.saturating_add(1).min(SETTLED);
        self.mean += (micros as f32 - self.mean) / f32::from(self.seen);
    }

    /// In microseconds.
    pub(super) fn micros(&self) -> u64 {
        self.mean as u64
    }

    /// `None` while it is a guess.
    pub(super) fn known(&self) -> Option<u64> {
        (self.seen > 0).then(|| self.micros())
    }
}

#[cfg(test)]
mod tests {
    use super::Estimate;

    #[test]
    fn it_starts_with_what_it_sees_first_and_follows_a_change() {
        let mut estimate = Estimate::guess(5);
        assert_eq!((estimate.known(), estimate.micros()), (None, 5));
        estimate.observe(1000);
        assert_eq!(estimate.known(), Some(1000));
        estimate.observe(3000);
        assert_eq!(estimate.known(), Some(2000));
        for _ in 0..40 {
            estimate.observe(100);
        }
        assert!((100..130).contains(&estimate.micros()), "{estimate:?}");
    }
}
