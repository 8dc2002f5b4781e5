//! HTTP/1.1 transport: connections, limits, time-outs, draining. It knows nothing of what it carries.

mod body;
mod door;
mod server;

pub use door::{Admission, BodyFault, Door, Head, Response};
pub use server::{Options, serve};
