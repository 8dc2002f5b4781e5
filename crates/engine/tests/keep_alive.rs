//! Keeping functions by their history, against keeping each for ten minutes. The example `simulate` prints the same for
//! ten thousand functions; the few that are played here differ from these by chance, so the bounds leave room.

mod simulation;

use martlet_engine::EngineOptions;
use simulation::{Figures, STARTS, Trace, play, plenty};

/// Functions enough for a figure, and few enough for a moment; those that are called more than once a minute are left
/// out: most of the work, and hardly ever cold.
fn day(options: EngineOptions) -> Figures {
    let figures = play(&mut Trace::new(240, 0.8, 7), options, STARTS);
    assert_eq!((figures.lost, figures.refused), (0, 0), "{figures:?}");
    assert!(figures.from_spare <= figures.calls && figures.cold_wait_ms > 0.0, "{figures:?}");
    figures
}

#[test]
fn history_has_little_more_than_half_the_cold_starts_of_ten_minutes_for_less_memory() {
    let fixed = day(EngineOptions { adaptive_idle: false, ..plenty() });
    let history = day(plenty());
    assert!(history.cold_per_mille() <= 0.6 * fixed.cold_per_mille(), "{history:?} {fixed:?}");
    assert!(history.wasted_gb_hours <= fixed.wasted_gb_hours, "{history:?} {fixed:?}");
}

#[test]
fn forks_make_most_of_what_is_left_short() {
    let ordinary = day(EngineOptions { adaptive_idle: false, ..plenty() });
    let forked = day(EngineOptions { fork_start: true, ..plenty() });
    assert!(forked.cold_init * 10 <= ordinary.cold_init * 6, "{forked:?} {ordinary:?}");
    assert!(forked.wasted_gb_hours <= ordinary.wasted_gb_hours, "{forked:?} {ordinary:?}");
}
