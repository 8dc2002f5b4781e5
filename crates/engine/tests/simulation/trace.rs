//! The calls of a day.

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// A small generator of numbers that look random (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1, never 0.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.uniform().ln()
    }
}

/// What makes a function's calls come.
enum Pattern {
    /// Every so many microseconds, a little late each time.
    Timer { period: f64, jitter: f64 },
    /// By chance, so many microseconds apart on average, more by day.
    Chance { mean: f64 },
    /// Rows of calls close to each other, with silences between the rows that are mostly short and sometimes very long.
    Bursts { length: f64, within: f64, between: f64 },
}

pub(crate) struct Function {
    pub(crate) memory_bytes: u64,
    /// Of the execution time in microseconds: its typical value, and the spread of its logarithm.
    execution: f64,
    spread: f64,
    /// What its init phase takes, in microseconds.
    pub(crate) init: u64,
    pattern: Pattern,
    /// Calls and executions are thrown with dice of their own, so that the calls are the same whatever ran when.
    calls: Dice,
    runs: Dice,
    left_in_row: u64,
    next: f64,
}

/// Functions, and their calls in order.
pub(crate) struct Trace {
    pub(crate) functions: Vec<Function>,
}

/// Calls a day of the function at `quantile`: the published distribution, straight lines in logarithms between its
/// points.
fn calls_a_day(quantile: f64) -> f64 {
    const POINTS: [(f64, f64); 7] = [
        (0.0, 1.0),
        (0.15, 2.0),
        (0.3, 8.0),
        (0.45, 24.0),
        (0.81, 1440.0),
        (0.95, 12_000.0),
        (1.0, 21_600.0),
    ];
    let upper = POINTS.iter().position(|(at, _)| *at >= quantile).unwrap_or(POINTS.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (POINTS[upper - 1], POINTS[upper]);
    (y0.ln() + (quantile - x0) / (x1 - x0) * (y1.ln() - y0.ln())).exp()
}

/// More calls in the afternoon than before dawn.
fn daylight(at: f64) -> f64 {
    1.0 + 0.5 * ((at / DAY as f64 - 0.375) * std::f64::consts::TAU).sin()
}

impl Trace {
    /// So many functions; `busiest` cuts off the upper end of the distribution of calls (1: nothing).
    pub(crate) fn new(functions: usize, busiest: f64, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let functions = (0..functions).map(|number| {
            let quantile = (number as f64 + dice.uniform()) / functions as f64 * busiest;
            let mean = DAY as f64 / calls_a_day(quantile);
            let kind = dice.uniform();
            let pattern = if kind < 0.2 {
                // People write round periods.
                const PERIODS: [u64; 12] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 360, 720, 1440];
                let near = |minutes: &u64| ((minutes * MINUTE) as f64 / mean).ln().abs();
                let period =
                    PERIODS.iter().min_by(|a, b| near(a).total_cmp(&near(b))).copied().unwrap_or(60) * MINUTE;
                Pattern::Timer { period: period as f64, jitter: SECOND as f64 }
            } else if kind < 0.4 {
                Pattern::Chance { mean }
            } else {
                let length = 1.0 + dice.exponential(6.0);
                let within = (mean / 20.0).min(dice.exponential(10.0 * SECOND as f64));
                Pattern::Bursts { length, within, between: mean * length }
            };
            let memory_mb = 107.083 * (dice.uniform().powf(-1.0 / 0.221) - 1.0).powf(1.0 / 11.652);
            let execution = (-0.38 + 2.36 * dice.normal()).exp().clamp(0.001, 300.0) * SECOND as f64;
            let init = (0.4f64.ln() + 0.8 * dice.normal()).exp().clamp(0.03, 10.0) * SECOND as f64;
            let mut function = Function {
                memory_bytes: (memory_mb.clamp(16.0, 1500.0) * 1_048_576.0) as u64,
                // What is called often runs shortly: its calls keep a tenth of one environment busy at most.
                execution: execution.min(mean / 10.0),
                spread: 0.4,
                init: init as u64,
                pattern,
                calls: Dice::new(seed ^ (number as u64 + 1).wrapping_mul(0x2545_F491_4F6C_DD1D)),
                runs: Dice::new(seed ^ (number as u64 + 1).wrapping_mul(0x9FB2_1C65_1E98_DF25)),
                left_in_row: 0,
                next: 0.0,
            };
            function.next = function.calls.uniform() * function.silence(0.0).min(DAY as f64);
            function
        });
        Self { functions: functions.collect() }
    }
}

impl Function {
    /// The next call.
    pub(crate) fn next_call(&mut self) -> u64 {
        let at = self.next;
        self.next += self.silence(at).max(1.0);
        at as u64
    }

    fn silence(&mut self, at: f64) -> f64 {
        match self.pattern {
            Pattern::Timer { period, jitter } => {
                // Late by a little, but the clock does not shift.
                let due = (at / period).floor() * period + period;
                due - at + self.calls.uniform() * jitter
            }
            Pattern::Chance { mean } => self.calls.exponential(mean) / daylight(at),
            Pattern::Bursts { length, within, between } => {
                if self.left_in_row > 0 {
                    self.left_in_row -= 1;
                    // Most rows are somebody who calls again when he has the answer.
                    return 2.0 * self.execution + self.calls.exponential(within);
                }
                self.left_in_row = self.calls.exponential(length - 0.5) as u64;
                // A log-normal of that mean: median a third of it.
                let sigma: f64 = 1.5;
                between * (sigma * self.calls.normal() - sigma * sigma / 2.0).exp() / daylight(at)
            }
        }
    }

    /// How long one call runs.
    pub(crate) fn execution(&mut self) -> u64 {
        (self.execution * (self.spread * self.runs.normal()).exp()).clamp(200.0, 900e6) as u64
    }
}
