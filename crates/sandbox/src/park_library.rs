//! The library that makes a running interpreter a template.

/// A shared object for the target of this build. An interpreter that loads it, as a Python extension module
/// (`martlet_park`) or an addon of Node, can be parked on a socket and then forked into other sandboxes; `park/park.h`
/// says how it is called. It needs nothing but the interpreter's own C library, and no right beyond those of its process.
pub const PARK_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/park.so"));
