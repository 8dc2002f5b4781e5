//! Attacks on a sandbox, and what must work in one, against the real kernel.
//!
//! The tests start the launcher, which is this very program with a hidden argument, so `main` is our own. Those that need
//! root are skipped by name when run as a user; the rootless ones run as a user that root switches to.

#![allow(unreachable_pub, reason = "a test program has no outside")]

mod attacks;
mod copies;
mod endings;
mod furnish;
mod harness;
mod limits;
mod rootless;
mod ways;
mod world;

use harness::{Need, Test};

fn main() {
    let first = std::env::args().nth(1);
    match first.as_deref() {
        Some(martlet_sandbox::LAUNCHER_COMMAND) => martlet_sandbox::launcher_main(),
        Some(endings::SERVER_COMMAND) => endings::serve(),
        Some(rootless::ROLE_COMMAND) => rootless::play(),
        _ => harness::run(&tests()),
    }
}

macro_rules! tests {
    ($need:expr, $ahead:expr, $prefix:literal; $($module:ident: $($name:ident)*;)*) => {
        [$($(Test {
            name: concat!($prefix, stringify!($module), "::", stringify!($name)),
            ahead: $ahead,
            need: $need,
            run: $module::$name,
        },)*)*]
    };
}

fn tests() -> Vec<Test> {
    let as_root = tests! { Need::Root, 0, "";
        ways: exit_codes_and_signals_arrive_exactly what_cannot_start_says_why the_environment_is_only_what_was_given
            descriptors_are_only_what_was_given output_can_be_reopened_by_name it_runs_as_one_ordinary_user
            host_paths_behind_closed_doors_can_be_shown binds_are_read_only_and_keep_their_order
            files_replace_our_own a_listener_inside_is_served_from_outside interpreters_of_this_machine_run
            a_full_house_refuses_by_name launches_side_by_side orphans_are_reaped;
        attacks: host_processes_are_out_of_sight nothing_outside_tmp_can_be_written forbidden_calls_are_refused
            pid_1_keeps_its_memory_to_itself the_network_ends_at_loopback host_sockets_are_out_of_reach
            another_sandbox_is_out_of_reach the_kernel_is_masked the_root_stays_closed a_hostile_server_is_shown_nothing_else;
        limits: a_fork_bomb_is_bounded memory_ends_at_the_limit open_files_end_at_the_limit
            disk_tmp_is_a_hard_limit_that_costs_no_memory a_disk_tmp_is_new_for_each memory_tmp_is_a_hard_limit cpu_is_proportional
            a_frozen_sandbox_stands_still a_frozen_sandbox_can_be_killed without_cgroups_data_is_limited
            without_cgroups_it_freezes_by_signal;
        copies: a_copy_stands_in_a_sandbox_of_its_own a_copy_finds_nothing_of_an_earlier_one copies_outlive_their_template the_end_of_a_copy_is_told_as_it_was
            a_template_that_ended_is_told_so many_copies;
        furnish: a_running_program_and_its_copies_are_shown_it it_happens_once_and_only_where_a_place_is;
        endings: dropping_the_handle_ends_it nothing_is_left_behind killing_the_server_ends_everything
            killing_the_launcher_ends_everything what_both_left_the_next_start_removes an_abandoned_launch_leaves_nothing
            shutdown_waits_for_the_launcher a_second_launcher_of_one_directory_is_refused
            the_doctor_agrees_with_the_launcher;
        rootless: a_server_without_privileges_controls_its_sandboxes;
    };
    // Whatever was made ahead must be no different.
    let made_ahead = tests! { Need::Root, 2, "ahead::";
        ways: exit_codes_and_signals_arrive_exactly the_environment_is_only_what_was_given
            descriptors_are_only_what_was_given output_can_be_reopened_by_name it_runs_as_one_ordinary_user
            host_paths_behind_closed_doors_can_be_shown binds_are_read_only_and_keep_their_order
            files_replace_our_own a_listener_inside_is_served_from_outside interpreters_of_this_machine_run
            a_full_house_refuses_by_name launches_side_by_side orphans_are_reaped;
        attacks: host_processes_are_out_of_sight nothing_outside_tmp_can_be_written forbidden_calls_are_refused
            pid_1_keeps_its_memory_to_itself host_sockets_are_out_of_reach another_sandbox_is_out_of_reach
            the_kernel_is_masked the_root_stays_closed a_hostile_server_is_shown_nothing_else;
        limits: a_fork_bomb_is_bounded memory_ends_at_the_limit open_files_end_at_the_limit;
        copies: a_copy_stands_in_a_sandbox_of_its_own the_end_of_a_copy_is_told_as_it_was many_copies;
        furnish: a_running_program_and_its_copies_are_shown_it;
        endings: shutdown_waits_for_the_launcher;
    };
    let as_anybody = tests! { Need::Nothing, 0, "";
        rootless: a_user_gets_the_same_isolation a_user_is_refused_what_needs_root;
    };
    as_root.into_iter().chain(made_ahead).chain(as_anybody).collect()
}
