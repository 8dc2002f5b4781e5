//! Plays a day of 10,000 functions through the scheduler and prints what each way of keeping environments costs.
//!
//!     cargo run --release -p martlet-engine --example simulate [FUNCTIONS [SEED]]

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use martlet_engine::EngineOptions;
use simulation::{Figures, STARTS, Trace, play, plenty};

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let functions = arguments.next().unwrap_or(10_000) as usize;
    let seed = arguments.next().unwrap_or(1);
    println!("{functions} functions, one day, seed {seed}");
    println!(
        "{:34} {:>10} {:>9} {:>9} {:>9} {:>12} {:>9}",
        "", "calls", "by init", "by fork", "cold/1000", "wasted GB h", "wait ms"
    );
    let run = |name: &str, options: EngineOptions| {
        let figures = play(&mut Trace::new(functions, 1.0, seed), options, STARTS);
        show(name, &figures);
        figures
    };
    let fixed = run("fixed 10 minutes", EngineOptions { adaptive_idle: false, ..plenty() });
    let history = run("by history", plenty());
    run("fixed 10 minutes, forked", EngineOptions { adaptive_idle: false, fork_start: true, ..plenty() });
    run("by history, forked", EngineOptions { fork_start: true, ..plenty() });
    println!(
        "by history: {:.3} of the cold starts at {:.3} of the wasted memory of fixed 10 minutes",
        history.cold_per_mille() / fixed.cold_per_mille(),
        history.wasted_gb_hours / fixed.wasted_gb_hours
    );
}

fn show(name: &str, figures: &Figures) {
    assert_eq!(figures.lost, 0, "callers are forgotten");
    println!(
        "{name:34} {:>10} {:>9} {:>9} {:>9.3} {:>12.1} {:>9.1}",
        figures.calls,
        figures.cold_init,
        figures.cold_fork,
        figures.cold_per_mille(),
        figures.wasted_gb_hours,
        figures.cold_wait_ms,
    );
}
