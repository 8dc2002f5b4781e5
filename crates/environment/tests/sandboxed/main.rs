//! Environments in real sandboxes. Needs what the sandbox needs; where a launcher cannot be started, it says so and runs
//! nothing.
//!
//! The launcher is this very program with a hidden argument, so the tests have a `main` of their own. Arguments select
//! tests by a part of their names.

mod ahead;
mod clients;
mod extensions;
mod hostile;
mod managed;
mod provided;
mod streams;
mod templates;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;
use world::World;

type Test = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>>);

/// Lists tests by their paths.
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |world| Box::pin($module::$name(world)))),*]
    };
}

const TESTS: &[Test] = tests![
    managed::a_function_is_invoked_again_and_again,
    managed::node_runs_too,
    managed::a_tight_loop_is_stopped_at_its_deadline,
    managed::crashes_are_told_by_their_cause,
    managed::running_out_of_memory_is_told_as_such,
    managed::a_failed_init_phase_is_run_again_inside_the_invocation,
    managed::an_init_phase_that_takes_too_long_gets_the_functions_timeout,
    managed::limits_of_events_and_results_hold,
    managed::an_invocation_survives_that_nobody_waits_for_it,
    managed::an_environment_that_dies_idle_gives_the_event_back,
    managed::output_is_complete_and_in_order,
    managed::a_wrapper_starts_the_interpreter,
    managed::later_starts_use_the_compiled_bootstrap,
    managed::the_function_sees_lambdas_world,
    provided::an_executable_is_served_the_runtime_api,
    provided::a_package_without_a_usable_bootstrap_says_why,
    provided::its_failures_are_told,
    provided::an_environment_that_dies_idle_gives_the_event_back,
    streams::an_event_that_was_answered_in_part_is_nobody_elses,
    streams::a_stream_without_end_ends_at_the_deadline,
    streams::a_stream_that_keeps_no_rules_ends_its_environment,
    streams::what_is_bought_by_a_stream_is_metered,
    templates::python_environments_are_forked,
    templates::node_environments_are_forked,
    templates::many_are_forked_at_once_and_share_no_randomness,
    templates::environments_outlive_their_template,
    templates::a_fork_that_nobody_waits_for_leaves_nothing,
    templates::a_function_that_cannot_be_forked_says_so_once,
    templates::some_functions_are_never_tried,
    templates::a_failed_init_phase_leaves_an_environment,
    templates::a_failing_hook_fails_the_fork_and_not_the_invocation,
    ahead::a_first_call_finds_its_interpreter_started,
    ahead::its_limits_are_the_functions,
    ahead::an_interpreter_that_died_is_not_missed,
    extensions::an_external_one_is_told_and_waited_for,
    extensions::one_that_crashes_fails_the_invocation,
    extensions::one_that_cannot_start_fails_the_init_phase,
    extensions::an_internal_one_is_told_and_the_runtime_may_end_in_peace,
    extensions::a_time_out_is_told_as_the_reason,
    extensions::telemetry_comes_by_http_and_by_tcp,
    extensions::those_that_others_wrote_run_unmodified,
    extensions::provided_runtimes_have_them_too,
    hostile::what_it_answers_ends_nothing_but_itself,
    hostile::one_that_ends_unasked_is_not_made_for_ever,
    hostile::one_that_never_parks_is_given_up,
    hostile::a_fork_that_never_gets_ready_is_given_up,
    clients::the_official_clients_run_unmodified,
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).as_deref() == Some(martlet_sandbox::LAUNCHER_COMMAND) {
        martlet_sandbox::launcher_main();
    }
    let filter = arguments.find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen: Vec<&Test> = TESTS.iter().filter(|(name, _)| name.contains(&filter)).collect();
    let launcher = match world::start_launcher() {
        Ok(launcher) => launcher,
        Err(reason) => {
            println!("no sandbox can be made here, so nothing was tested: {reason}");
            return ExitCode::SUCCESS;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let failed = runtime.expect("a runtime").block_on(run(launcher, &chosen));
    println!("\n{} tests in sandboxes, {failed} failed", chosen.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the tests, a few at a time, and returns how many failed.
async fn run(launcher: martlet_sandbox::LauncherProcess, tests: &[&Test]) -> usize {
    let launcher = launcher.connect().expect("a launcher");
    let mut failed = 0;
    for group in tests.chunks(4) {
        let running: Vec<_> = group
            .iter()
            .map(|(name, test)| {
                let begun = Instant::now();
                (name, begun, tokio::spawn(test(World::new(&launcher))))
            })
            .collect();
        for (name, begun, test) in running {
            let passed = test.await.is_ok();
            failed += usize::from(!passed);
            println!("test {name} ... {} ({:.1?})", if passed { "ok" } else { "FAILED" }, begun.elapsed());
        }
    }
    launcher.shutdown().await;
    failed
}
