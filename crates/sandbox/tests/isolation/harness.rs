//! The little of a test runner that a program with its own `main` needs: names, filters, one test after the other (each
//! starts a launcher, which must happen while this process has one thread), and the usual closing line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// How many sandboxes the launchers of the test at hand make ahead.
pub static AHEAD: AtomicU32 = AtomicU32::new(0);

pub struct Test {
    pub name: &'static str,
    pub ahead: u32,
    pub need: Need,
    pub run: fn(),
}

/// What a test needs of who runs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Root,
    /// Anybody may run it.
    Nothing,
}

/// A test that cannot be run here panics with this.
pub struct Skip(pub String);

/// Ends the test as skipped, loudly.
pub fn skip(why: impl Into<String>) -> ! {
    std::panic::resume_unwind(Box::new(Skip(why.into())))
}

pub fn run(tests: &[Test]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |test: &&Test| {
        let matches = |filter: &&String| {
            if exact { test.name == **filter } else { test.name.contains(filter.as_str()) }
        };
        filters.is_empty() || filters.iter().any(matches)
    };
    let chosen: Vec<&Test> = tests.iter().filter(wanted).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|test| println!("{}: test", test.name));
        return;
    }
    let root = rustix::process::geteuid().is_root();
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    let start = Instant::now();
    for test in &chosen {
        if test.need == Need::Root && !root {
            println!("test {} ... ignored, SKIPPED: needs root", test.name);
            skipped += 1;
            continue;
        }
        AHEAD.store(test.ahead, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(test.run)) {
            Ok(()) => {
                println!("test {} ... ok", test.name);
                passed += 1;
            }
            Err(panic) => match panic.downcast_ref::<Skip>() {
                Some(Skip(why)) => {
                    println!("test {} ... ignored, SKIPPED: {why}", test.name);
                    skipped += 1;
                }
                None => {
                    println!("test {} ... FAILED", test.name);
                    failed.push(test.name);
                }
            },
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    failed.iter().for_each(|name| println!("    {name}"));
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        failed.len(),
        tests.len() - chosen.len(),
        start.elapsed().as_secs_f32(),
    );
    if !failed.is_empty() {
        std::process::exit(101);
    }
}
