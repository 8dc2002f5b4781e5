//! The bootstraps of the managed runtimes, as they are carried inside the binary.

mod compiled;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod node_stream_tests;
#[cfg(test)]
mod node_template_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod park_harness;
#[cfg(test)]
mod python_template_tests;
#[cfg(test)]
mod python_tests;

pub(crate) use compiled::Compiled;
use martlet_sandbox::PARK_LIBRARY;

/// The directory of the bootstraps inside a sandbox.
pub(crate) const RUNTIME_DIR: &str = "/var/runtime";
/// The Unix socket on which a bootstrap and the server speak.
pub(crate) const CONTROL_FD: i32 = 3;
/// The descriptor for framed log records.
pub(crate) const TELEMETRY_FD: i32 = 4;

/// The socket on which a template waits to be forked.
pub(crate) const PARK_FD: i32 = 5;
/// Tells a bootstrap that it is to become a template, beside [`PARK_FD`] being open.
pub(crate) const TEMPLATE_VARIABLE: (&str, &str) = ("_MARTLET_TEMPLATE", "1");
/// The same, and that it is to wait to be told its function first.
pub(crate) const RUNTIME_TEMPLATE_VARIABLE: (&str, &str) = (TEMPLATE_VARIABLE.0, "runtime");

/// Python source; runs on 3.8 and later.
pub(crate) const PYTHON: &str = include_str!("../../../../runtimes/python/bootstrap.py");
/// CommonJS source; runs on Node 18 and later.
pub(crate) const NODE: &str = include_str!("../../../../runtimes/nodejs/bootstrap.cjs");

const PYTHON_TEMPLATE: &str = include_str!("../../../../runtimes/python/martlet_template.py");
const PYTHON_HOOKS: &str = include_str!("../../../../runtimes/python/snapshot_restore_py.py");
const NODE_STREAM: &str = include_str!("../../../../runtimes/nodejs/stream.cjs");
const NODE_TEMPLATE: &str = include_str!("../../../../runtimes/nodejs/template.cjs");
const NODE_WORKER: &str = include_str!("../../../../runtimes/nodejs/worker.cjs");

/// Options of the Python interpreter: no user site directory, no site module (the bootstrap sets up the path by itself),
/// output that is not held back.
pub(crate) const PYTHON_OPTIONS: [&str; 3] = ["-s", "-S", "-u"];

/// What lies beside the bootstrap in [`RUNTIME_DIR`], as name and content; `template` says that the process is to become
/// one.
pub(crate) fn companions(node: bool, template: bool) -> Vec<(&'static str, &'static [u8])> {
    let own: &[(&str, &[u8])] = match (node, template) {
        (true, false) => &[("stream.cjs", NODE_STREAM.as_bytes())],
        (true, true) => &[
            ("stream.cjs", NODE_STREAM.as_bytes()),
            ("template.cjs", NODE_TEMPLATE.as_bytes()),
            ("worker.cjs", NODE_WORKER.as_bytes()),
            ("park.so", PARK_LIBRARY),
        ],
        (false, false) => &[("snapshot_restore_py.py", PYTHON_HOOKS.as_bytes())],
        (false, true) => &[
            ("snapshot_restore_py.py", PYTHON_HOOKS.as_bytes()),
            ("martlet_template.py", PYTHON_TEMPLATE.as_bytes()),
            ("park.so", PARK_LIBRARY),
        ],
    };
    own.to_vec()
}

/// Options of the Node interpreter: a heap that fits the function's memory, unless the function's own options
/// (`NODE_OPTIONS`) set one. V8 would otherwise size it by the machine, and run out of memory before it collects.
///
/// In a template V8 does without threads where it can: they would be missing in what is forked from it. One is there all
/// the same, since V8 hands out some work without asking, and Node waits for it; a size of 0 means as many as there are
/// processors to some versions of Node, and to others none.
pub(crate) fn node_options(memory_mb: u32, own_options: &str, template: bool) -> Vec<String> {
    let mut options = Vec::new();
    if !own_options.replace('_', "-").contains("--max-old-space-size") {
        options.push(format!("--max-old-space-size={}", memory_mb / 4 * 3));
    }
    if template {
        options.extend(["--v8-pool-size=1", "--single-threaded"].map(str::to_owned));
    }
    options
}
