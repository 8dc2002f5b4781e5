use super::*;
use martlet_sandbox::ExitStatus;
use proptest::prelude::*;

struct World {
    origin: Instant,
    life: Life,
}

impl World {
    fn new() -> Self {
        let origin = Instant::now();
        Self { origin, life: Life::new(origin, Duration::from_secs(3)) }
    }

    fn template() -> Self {
        let origin = Instant::now();
        Self { origin, life: Life::template(origin, Duration::from_secs(3)) }
    }

    fn forked(init: Option<Duration>) -> Self {
        let origin = Instant::now();
        Self { origin, life: Life::forked(origin, Duration::from_secs(3), init) }
    }

    fn at(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros)
    }

    fn input(&mut self, micros: u64, input: Input) -> Output {
        let now = self.at(micros);
        self.life.input(now, input)
    }

    fn ready(mut self) -> Self {
        assert_eq!(self.input(200_000, Input::Ready), Output::Initialized);
        self
    }

    fn broken(mut self) -> Self {
        let failed = self.input(5_000, Input::InitError(failure("Runtime.ImportModuleError")));
        assert!(matches!(failed, Output::InitFailed { .. }), "{failed:?}");
        self
    }

    fn begin(&mut self, micros: u64) -> Output {
        let now = self.at(micros);
        self.life.begin(now)
    }
}

fn failure(error_type: &str) -> Failure {
    Failure { error_type: error_type.into(), document: Bytes::from_static(b"{}") }
}

fn exit(status: ExitStatus) -> Exit {
    Exit { status, out_of_memory: false }
}

fn finished(output: Output) -> Finish {
    match output {
        Output::Finish(finish) => finish,
        other => panic!("{other:?} is no end"),
    }
}

#[test]
fn the_first_invocation_is_billed_with_the_init_phase() {
    let mut world = World::new().ready();
    assert_eq!(world.life.deadline(), None);
    assert_eq!(world.begin(1_000_000), Output::Deliver);
    assert_eq!(world.life.deadline(), Some(world.at(4_000_000)));
    let first = finished(world.input(1_012_340, Input::Response(Bytes::from_static(b"1"))));
    assert_eq!(first.verdict, Verdict::Response(Bytes::from_static(b"1")));
    assert_eq!(
        (first.duration, first.init),
        (Duration::from_micros(12_340), Some(Duration::from_millis(200)))
    );
    assert_eq!((first.billed_ms, first.reusable), (213, true));

    assert_eq!(world.begin(2_000_000), Output::Deliver);
    let second = finished(world.input(2_000_001, Input::Error { failure: failure("E"), fatal: false }));
    assert_eq!((second.init, second.billed_ms, second.reusable), (None, 1, true));
}

#[test]
fn an_init_phase_has_ten_seconds() {
    let mut world = World::new();
    assert_eq!(world.life.deadline(), Some(world.at(10_000_000)));
    let late = world.at(10_000_500);
    assert_eq!(
        world.life.expire(late),
        Output::InitFailed { took: Duration::from_micros(10_000_500), why: InitFailure::TimedOut }
    );
    assert_eq!(world.life.deadline(), None);
}

#[test]
fn making_the_sandbox_is_no_part_of_the_init_phase() {
    let mut world = World::new();
    let launched = world.at(30_000);
    world.life.launched(launched);
    assert_eq!(world.life.deadline(), Some(world.at(10_030_000)));
    world.input(130_000, Input::Ready);
    world.begin(200_000);
    let first = finished(world.input(200_500, Input::Response(Bytes::new())));
    assert_eq!((first.init, first.billed_ms), (Some(Duration::from_millis(100)), 101));

    // In a suppressed init it is: the function's timeout is running.
    let mut world = World::new().broken();
    world.begin(0);
    let launched = world.at(30_000);
    world.life.launched(launched);
    assert_eq!(world.life.deadline(), Some(world.at(3_000_000)));
    let failed = finished(world.input(50_000, Input::InitError(failure("Runtime.X"))));
    assert_eq!(
        (failed.duration, failed.failed_init),
        (Duration::from_millis(50), Some(Duration::from_millis(20)))
    );
}

#[test]
fn a_failed_init_phase_runs_again_inside_the_first_invocation() {
    let mut world = World::new().broken();
    assert_eq!(world.begin(1_000_000), Output::Restart);
    assert_eq!(world.life.deadline(), Some(world.at(4_000_000)));
    assert_eq!(world.input(2_000_000, Input::Ready), Output::Deliver);
    assert_eq!(world.life.deadline(), Some(world.at(4_000_000)), "both share the function's timeout");
    let finish = finished(world.input(2_500_000, Input::Response(Bytes::new())));
    assert_eq!((finish.duration, finish.billed_ms), (Duration::from_millis(1500), 1500));
    assert_eq!((finish.init, finish.failed_init, finish.reusable), (None, None, true));
}

#[test]
fn a_second_failure_of_the_init_phase_is_the_answer() {
    let mut world = World::new().broken();
    world.begin(0);
    let finish = finished(world.input(85_230, Input::InitError(failure("Runtime.ImportModuleError"))));
    assert_eq!(finish.verdict, Verdict::Error(failure("Runtime.ImportModuleError")));
    assert_eq!((finish.failed_init, finish.reusable), (Some(Duration::from_micros(85_230)), false));

    let mut world = World::new().broken();
    world.begin(0);
    let late = world.at(3_000_700);
    let finish = finished(world.life.expire(late));
    assert_eq!(finish.verdict, Verdict::TimedOut);
    assert_eq!(finish.duration, Duration::from_secs(3));
    assert!(finish.failed_init.is_some());
}

#[test]
fn a_deadline_is_billed_as_the_timeout_and_ends_the_environment() {
    let mut world = World::new().ready();
    world.begin(0);
    let late = world.at(3_004_000);
    let finish = finished(world.life.expire(late));
    assert_eq!((finish.verdict, finish.duration), (Verdict::TimedOut, Duration::from_secs(3)));
    assert_eq!((finish.billed_ms, finish.reusable), (3200, false));
    assert_eq!(world.begin(4_000_000), Output::Undelivered);
}

#[test]
fn a_crash_is_the_answer_and_the_end() {
    let mut world = World::new().ready();
    world.begin(0);
    let finish = finished(world.input(10, Input::Exited(exit(ExitStatus::Signal(11)))));
    assert_eq!(finish.verdict, Verdict::Exited(exit(ExitStatus::Signal(11))));
    assert!(!finish.reusable);
    assert_eq!(
        world.input(11, Input::Response(Bytes::new())),
        Output::Wait,
        "what comes after the end is nothing"
    );
}

#[test]
fn an_event_that_was_not_seen_comes_back() {
    let mut world = World::new().ready();
    assert_eq!(world.input(1, Input::Exited(exit(ExitStatus::Signal(9)))), Output::Wait);
    assert_eq!(world.begin(2), Output::Undelivered);

    let mut world = World::new().ready();
    world.begin(0);
    assert_eq!(world.input(5, Input::Lost), Output::Undelivered);
    assert!(!world.life.is_busy());
}

#[test]
fn speaking_out_of_turn_ends_the_environment() {
    let mut idle = World::new().ready();
    assert_eq!(idle.input(1, Input::Response(Bytes::new())), Output::Wait);
    assert_eq!(idle.begin(2), Output::Undelivered);

    let mut running = World::new().ready();
    running.begin(0);
    let finish = finished(running.input(5, Input::Ready));
    assert_eq!((finish.verdict, finish.reusable), (Verdict::Exited(Exit::KILLED), false));

    let mut starting = World::new();
    let failed = starting.input(5, Input::Response(Bytes::new()));
    assert!(matches!(failed, Output::InitFailed { why: InitFailure::Exited(_), .. }), "{failed:?}");
}

#[test]
fn a_template_parks_and_is_no_environment() {
    let mut world = World::template();
    assert_eq!(world.life.deadline(), Some(world.at(10_000_000)));
    let launched = world.at(30_000);
    world.life.launched(launched);
    assert_eq!(world.input(230_000, Input::Parked), Output::Parked { took: Duration::from_millis(200) });
    assert_eq!(world.life.deadline(), None);
    assert_eq!(world.begin(300_000), Output::Undelivered);
    assert_eq!(world.input(300_001, Input::Ready), Output::Wait);
}

#[test]
fn a_template_that_cannot_be_forked_is_the_environment() {
    let mut world = World::template();
    assert_eq!(world.input(200_000, Input::Unforkable("x".into())), Output::Unforkable("x".into()));
    assert_eq!(world.begin(300_000), Output::Deliver);
    let first = finished(world.input(310_000, Input::Response(Bytes::new())));
    assert_eq!((first.init, first.billed_ms), (Some(Duration::from_millis(200)), 210));
}

#[test]
fn a_template_that_fails_leaves_an_environment_to_try_again() {
    let mut world = World::template().broken();
    assert_eq!(world.begin(0), Output::Restart);

    let mut world = World::template();
    let late = world.at(10_000_000);
    assert!(matches!(world.life.expire(late), Output::InitFailed { why: InitFailure::TimedOut, .. }));
    assert_eq!(world.begin(10_000_001), Output::Restart);
}

#[test]
fn a_fork_is_billed_with_its_own_time_and_the_first_with_the_templates() {
    for (init, expected, billed) in [(Some(200), 202, 203), (None, 2, 3)] {
        let mut world = World::forked(init.map(Duration::from_millis));
        assert_eq!(world.life.deadline(), Some(world.at(10_000_000)));
        world.input(2_000, Input::Ready);
        assert_eq!(world.begin(5_000), Output::Deliver);
        let first = finished(world.input(5_500, Input::Response(Bytes::new())));
        assert_eq!((first.init, first.billed_ms), (Some(Duration::from_millis(expected)), billed));
        world.begin(6_000);
        let second = finished(world.input(6_500, Input::Response(Bytes::new())));
        assert_eq!((second.init, second.billed_ms), (None, 1));
    }
}

#[test]
fn a_fork_that_fails_is_started_anew_inside_the_invocation() {
    let mut silent = World::forked(None);
    let late = silent.at(10_000_000);
    assert!(matches!(silent.life.expire(late), Output::InitFailed { why: InitFailure::TimedOut, .. }));

    let mut parked = World::forked(None);
    assert!(matches!(parked.input(1, Input::Parked), Output::InitFailed { why: InitFailure::Exited(_), .. }));

    let mut world = World::forked(Some(Duration::from_millis(200))).broken();
    assert_eq!(world.begin(0), Output::Restart);
    assert_eq!(world.input(50_000, Input::Ready), Output::Deliver);
    let first = finished(world.input(51_000, Input::Response(Bytes::new())));
    assert_eq!(
        first.init,
        Some(Duration::from_millis(200)),
        "the template's init phase is still to be paid for"
    );
}

fn inputs() -> impl Strategy<Value = u8> {
    0u8..11
}

proptest! {
    #[test]
    fn every_event_that_begins_ends_exactly_once(
        birth in 0u8..3,
        steps in prop::collection::vec((inputs(), 1u64..2_000_000), 0..60),
    ) {
        let mut world = match birth {
            0 => World::new(),
            1 => World::template(),
            _ => World::forked(Some(Duration::from_millis(7))),
        };
        let (mut clock, mut open, mut billed) = (0, false, 0);
        for (step, pause) in steps {
            clock += pause;
            let now = world.at(clock);
            let output = match step {
                0 => {
                    let output = world.life.begin(now);
                    if matches!(output, Output::Deliver | Output::Restart) {
                        prop_assert!(!open);
                        open = true;
                    }
                    if output == Output::Undelivered {
                        prop_assert!(!open);
                        continue;
                    }
                    output
                }
                1 if world.life.deadline().is_some_and(|deadline| deadline <= now) => world.life.expire(now),
                1 => continue,
                2 => world.life.input(now, Input::Ready),
                3 => world.life.input(now, Input::InitError(failure("Runtime.X"))),
                4 => world.life.input(now, Input::Response(Bytes::new())),
                5 => world.life.input(now, Input::Error { failure: failure("E"), fatal: pause % 2 == 0 }),
                6 => world.life.input(now, Input::Exited(exit(ExitStatus::Code(1)))),
                7 => world.life.input(now, Input::Lost),
                8 => world.life.input(now, Input::Parked),
                9 => world.life.input(now, Input::Unforkable(String::new())),
                _ => world.life.input(now, Input::Violation),
            };
            match output {
                Output::Finish(finish) => {
                    prop_assert!(open);
                    open = false;
                    if finish.init.is_some() {
                        billed += 1;
                    }
                    prop_assert!(finish.billed_ms as u128 * 1_000_000 >= finish.duration.as_nanos());
                }
                Output::Undelivered => {
                    prop_assert!(open);
                    open = false;
                }
                _ => {}
            }
            prop_assert_eq!(open, world.life.is_busy());
        }
        prop_assert!(billed <= 1, "an init phase is billed once");
    }
}
