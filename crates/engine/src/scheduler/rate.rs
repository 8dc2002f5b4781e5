//! How often something may be done.

use super::Moment;

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Moment,
}

/// What a bucket holds and how fast it fills; kept apart, because all versions share it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) burst: f64,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Moment) -> Self {
        Self { tokens: rate.burst, filled: now }
    }

    pub(super) fn empty(now: Moment) -> Self {
        Self { tokens: 0.0, filled: now }
    }

    /// Whether one may be taken; nothing is taken yet.
    pub(super) fn has_one(&mut self, rate: Rate, now: Moment) -> bool {
        self.has(1.0, rate, now)
    }

    /// The same of `count`.
    pub(super) fn has(&mut self, count: f64, rate: Rate, now: Moment) -> bool {
        let passed = now.since(self.filled) as f64 / 1e6;
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.filled = self.filled.max(now);
        self.tokens >= count
    }

    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// When the next one can be taken, counted from the last look.
    pub(super) fn next(&self, rate: Rate) -> Moment {
        let missing = (1.0 - self.tokens).max(0.0);
        self.filled.plus((missing / rate.per_second * 1e6).ceil() as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate { per_second: 10.0, burst: 3.0 };
        let mut bucket = Bucket::full(rate, Moment(0));
        for _ in 0..3 {
            assert!(bucket.has_one(rate, Moment(0)));
            bucket.take();
        }
        assert!(!bucket.has_one(rate, Moment(0)));
        let next = bucket.next(rate);
        assert!((100_000..100_010).contains(&next.0), "{next:?}");
        assert!(bucket.has_one(rate, next));
        assert!(bucket.has_one(rate, Moment(60_000_000)));
        assert!(bucket.tokens <= 3.0);
    }
}
