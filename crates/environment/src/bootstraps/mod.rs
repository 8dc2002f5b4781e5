//! The bootstraps of the managed runtimes, as they are carried inside the binary.

mod compiled;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod python_tests;

pub(crate) use compiled::Compiled;

/// The directory of the bootstraps inside a sandbox.
pub(crate) const RUNTIME_DIR: &str = "/var/runtime";
/// The Unix socket on which a bootstrap and the server speak.
pub(crate) const CONTROL_FD: i32 = 3;
/// The descriptor for framed log records.
pub(crate) const TELEMETRY_FD: i32 = 4;

/// Python source; runs on 3.8 and later.
pub(crate) const PYTHON: &str = include_str!("../../../../runtimes/python/bootstrap.py");
/// CommonJS source; runs on Node 18 and later.
pub(crate) const NODE: &str = include_str!("../../../../runtimes/nodejs/bootstrap.cjs");

/// Options of the Python interpreter: no user site directory, no site module (the bootstrap sets up the path by itself),
/// output that is not held back.
pub(crate) const PYTHON_OPTIONS: [&str; 3] = ["-s", "-S", "-u"];

/// Options of the Node interpreter: a heap that fits the function's memory, unless the function's own options
/// (`NODE_OPTIONS`) set one. V8 would otherwise size it by the machine, and run out of memory before it collects.
pub(crate) fn node_options(memory_mb: u32, own_options: &str) -> Vec<String> {
    if own_options.replace('_', "-").contains("--max-old-space-size") {
        return Vec::new();
    }
    vec![format!("--max-old-space-size={}", memory_mb / 4 * 3)]
}
