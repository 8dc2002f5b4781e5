//! When a function will be called again, from when it was.
//!
//! This is the hybrid histogram of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020): how long a function was idle before
//! each call, in bins of a minute up to four hours. From it comes a [`Window`]: let go at once and be ready again shortly
//! before the next call (prewarm), or keep until a call is no longer likely. Differences to the paper:
//!
//! - Percentiles bound the window; inside of these it is cut to where it pays: idle time is spent only as long as it saves
//!   enough starts. So a function with one call in a row of long silences is not kept through all of them.
//! - Intervals below a minute are counted, but tell nothing: every window covers them, and were they to weigh in the percentiles,
//!   a busy minute would hide the silence after it.
//! - For intervals beyond the histogram, a moving mean of the last few takes the place of ARIMA, and only if they are alike.

use super::MINUTE;

/// Bins of a minute; intervals beyond them are kept one by one.
const BINS: usize = 240;
/// Fewer intervals than these say nothing.
const ENOUGH: u32 = 3;
/// Letting go for fewer bins than these saves less than starting again costs.
const SHORTEST_GAP: usize = 3;
/// Below this coefficient of variation, the bins are too even for a pattern.
const REPRESENTATIVE: f64 = 2.0;
/// How much earlier and later than the histogram says.
const MARGIN: f64 = 0.02;
/// The same for a mean of a few long intervals, which differ by less among each other.
const FAR_MARGIN: f64 = 0.005;
/// How many long intervals are remembered.
const FAR: usize = 4;

/// How long to keep something from the end of the last call on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Let go at once, and have it ready again after so many microseconds; `None`: keep it all the time.
    pub(super) prewarm: Option<u64>,
    /// With `prewarm`: let go after so many microseconds, which is zero unless calls come in quick succession at times.
    pub(super) linger: u64,
    /// Let go for good after so many microseconds.
    pub(super) keep: u64,
}

/// What is known about the calls of one version.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Intervals of a minute and more; made with the first such interval, since most functions that are busy never have one.
    bins: Option<Box<[u8; BINS]>>,
    /// Intervals below a minute.
    short: u32,
    /// The sum of the bins, and of their squares.
    counted: u32,
    squares: u32,
    /// How many intervals were beyond the last bin, and the last of these, in seconds.
    beyond: u32,
    far: [u32; FAR],
    /// A mean of all intervals that follows them, in microseconds.
    mean: f32,
}

impl History {
    /// A call came after `idle` microseconds without any. True when that may change the window.
    pub(super) fn record(&mut self, idle: u64) -> bool {
        let weight = if self.mean == 0.0 { 1.0 } else { 0.125 };
        self.mean += (idle as f32 - self.mean) * weight;
        let bin = (idle / MINUTE) as usize;
        if bin == 0 {
            self.short = self.short.saturating_add(1);
            return self.short <= ENOUGH;
        }
        if bin >= BINS {
            self.far[self.beyond as usize % FAR] = u32::try_from(idle / 1_000_000).unwrap_or(u32::MAX);
            self.beyond += 1;
            return true;
        }
        let bins = self.bins.get_or_insert_with(|| Box::new([0; BINS]));
        if bins[bin] == u8::MAX {
            // What is old counts less and less.
            bins.iter_mut().for_each(|count| *count /= 2);
            self.beyond /= 2;
            self.counted = bins.iter().map(|count| u32::from(*count)).sum();
            self.squares = bins.iter().map(|count| u32::from(*count).pow(2)).sum();
        }
        self.squares += 2 * u32::from(bins[bin]) + 1;
        bins[bin] += 1;
        self.counted += 1;
        true
    }

    /// Calls a second, roughly; 0 while there was no second call.
    pub(super) fn rate(&self) -> f64 {
        if self.mean == 0.0 { 0.0 } else { 1e6 / f64::from(self.mean).max(1.0) }
    }

    /// For how long to keep something, when a start is worth `worth` microseconds of idle time, and `fixed` is what to do
    /// as long as nothing is known.
    pub(super) fn window(&self, worth: u64, fixed: u64) -> Window {
        let unknown = Window { prewarm: None, linger: 0, keep: fixed };
        let known = self.counted + self.beyond;
        if known < ENOUGH {
            return unknown;
        }
        if self.beyond * 2 > known {
            return self.far_window(worth).unwrap_or_else(|| self.cut(0, BINS, worth));
        }
        if self.variation() < REPRESENTATIVE {
            return self.cut(0, BINS, worth);
        }
        let (head, tail) = (self.percentile(5), self.percentile(99) + 1);
        self.cut(head, tail, worth)
    }

    /// Around the mean of the last intervals beyond the bins, as wide as these differ; `None` if that is too wide to
    /// pay.
    fn far_window(&self, worth: u64) -> Option<Window> {
        let far = &self.far[..FAR.min(self.beyond as usize)];
        let mean = far.iter().map(|seconds| f64::from(*seconds)).sum::<f64>() / far.len().max(1) as f64;
        let apart = far.iter().map(|seconds| (f64::from(*seconds) - mean).abs()).fold(0.0, f64::max);
        let margin = (2.0 * apart + mean * FAR_MARGIN).max(60.0);
        (far.len() >= 2 && margin * 2e6 < worth as f64).then(|| Window {
            prewarm: Some(((mean - margin) * 1e6) as u64),
            linger: self.linger(),
            keep: ((mean + margin) * 1e6) as u64,
        })
    }

    /// Of the windows within bins `head..tail` and of those from 0 on, the one that pays most: each start that it saves is worth `worth`, each
    /// microsecond that something idles costs one.
    fn cut(&self, head: usize, tail: usize, worth: u64) -> Window {
        let minute = MINUTE as f64;
        let (mut best, mut best_gain) = (Window { prewarm: None, linger: 0, keep: MINUTE }, f64::MIN);
        let mut consider = |from: usize| {
            // Half a bin earlier, so that what takes long to start is ready.
            let begin = if from == 0 { 0.0 } else { (from as f64 - 0.5) * (1.0 - MARGIN) * minute };
            let mut gain = 0.0;
            let mut left = self.counted + self.beyond;
            for bin in 1..tail {
                let end = (bin + 1) as f64 * minute;
                let count = self.bin(bin);
                let at = (bin as f64 + 0.5) * minute;
                if at < begin {
                    left -= count;
                    continue;
                }
                // What comes in this bin is met; what comes later costs the whole window.
                gain += f64::from(count) * (worth as f64 - (at - begin));
                left -= count;
                let total = gain - f64::from(left) * (end - begin);
                if count > 0 && total > best_gain {
                    best_gain = total;
                    let keep = (end * (1.0 + MARGIN)) as u64;
                    best =
                        Window { prewarm: (from > 0).then_some(begin as u64), linger: self.linger(), keep };
                }
            }
        };
        consider(0);
        if head >= SHORTEST_GAP {
            consider(head);
        }
        if best_gain <= 0.0 { Window { prewarm: None, linger: 0, keep: MINUTE } } else { best }
    }

    /// For how long to keep what is let go, for the sake of calls in quick succession.
    fn linger(&self) -> u64 {
        if u64::from(self.short) * 20 > u64::from(self.counted + self.beyond) { MINUTE } else { 0 }
    }

    fn bin(&self, bin: usize) -> u32 {
        self.bins.as_ref().map_or(0, |bins| u32::from(bins[bin]))
    }

    /// The first bin by whose end `percent` of the intervals in bins are over.
    fn percentile(&self, percent: u32) -> usize {
        let wanted = (self.counted * percent).div_ceil(100).max(1);
        let mut sum = 0;
        (0..BINS)
            .find(|bin| {
                sum += self.bin(*bin);
                sum >= wanted
            })
            .unwrap_or(BINS - 1)
    }

    /// Standard deviation of the bins over their mean.
    fn variation(&self) -> f64 {
        let mean = f64::from(self.counted) / BINS as f64;
        let variance = f64::from(self.squares) / BINS as f64 - mean * mean;
        variance.max(0.0).sqrt() / mean.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORTH: u64 = 30 * MINUTE;
    const FIXED: u64 = 10 * MINUTE;

    fn after(minutes: impl IntoIterator<Item = f64>) -> Window {
        let mut history = History::default();
        for minutes in minutes {
            history.record((minutes * MINUTE as f64) as u64);
        }
        history.window(WORTH, FIXED)
    }

    #[test]
    fn it_says_nothing_until_it_has_seen_enough() {
        let unknown = Window { prewarm: None, linger: 0, keep: FIXED };
        assert_eq!(after([]), unknown);
        assert_eq!(after([30.0, 30.0]), unknown);
        assert_eq!(after([0.1; 1000]), unknown, "what is called all the time shows nothing of its silences");
    }

    #[test]
    fn a_regular_function_is_ready_just_before_its_call() {
        let window = after([30.2; 5]);
        let prewarm = window.prewarm.unwrap();
        assert!((28 * MINUTE..30 * MINUTE).contains(&prewarm), "{window:?}");
        assert!((30 * MINUTE + MINUTE / 2..33 * MINUTE).contains(&window.keep), "{window:?}");
        assert_eq!(window.linger, 0);
        // Called twice each time: the second call comes at once.
        assert_eq!(after([30.2, 0.1].repeat(5)).linger, MINUTE);
    }

    #[test]
    fn beyond_the_bins_only_what_is_alike_is_waited_for() {
        let window = after([720.0, 720.1, 719.9]);
        assert!(
            window.prewarm.is_some_and(|prewarm| (700 * MINUTE..720 * MINUTE).contains(&prewarm)),
            "{window:?}"
        );
        assert!(window.keep < 740 * MINUTE, "{window:?}");
        assert_eq!(after([300.0, 900.0, 500.0]), Window { prewarm: None, linger: 0, keep: MINUTE });
    }

    #[test]
    fn idle_time_is_spent_only_where_it_pays() {
        // Mostly a few minutes, now and then hours: kept through the former.
        let window = after([2.5, 3.5, 4.5, 2.5, 3.5, 180.0]);
        assert!((4 * MINUTE..10 * MINUTE).contains(&window.keep) && window.prewarm.is_none(), "{window:?}");
        // Each silence is longer than a start is worth.
        let window = after([65.5, 80.5, 95.5, 120.5, 150.5, 180.5, 200.5, 230.5]);
        assert!(window.prewarm.is_some() || window.keep == MINUTE, "{window:?}");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut history = History::default();
        for minutes in [90; 300].into_iter().chain([3; 2000]) {
            history.record(minutes * MINUTE);
        }
        assert!(history.window(WORTH, FIXED).keep < 10 * MINUTE);
        assert!((history.rate() - 1.0 / 180.0).abs() < 1e-4);
        let bins = history.bins.as_ref().unwrap();
        assert_eq!(history.counted, bins.iter().map(|count| u32::from(*count)).sum::<u32>());
    }
}
