//! HTTP/1.1 transport: connections, limits, time-outs, draining. It knows nothing of what it carries.
//!
//! [`serve`] runs a listener in front of a [`Door`]. Whatever a client does wrong at this level (a head too large or
//! too slow, a body longer than it says, a connection too many) is answered or ended here, and hurts no other.

mod answer;
mod body;
mod connection;
mod door;
mod lanes;
mod options;
mod pulse;
mod room;
mod serve;
mod transport;

pub use answer::{Body, Broken, Source};
pub use door::{Admission, BodyFault, Door, Head, Response};
pub use lanes::Lanes;
pub use options::GatewayOptions;
pub use serve::{Served, Shutdown, Stage, serve, serve_on};
