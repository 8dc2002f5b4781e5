//! AWS's wire protocols, driven by the public service models: nothing here knows an operation by name.

mod decode;
mod dialect;
mod error;
mod event_stream;
mod input;
mod model;
mod output;
mod pattern;
mod raw;
mod router;
pub mod time;
mod uri;
mod validate;
mod value;

pub use decode::well_formed;
pub(crate) use dialect::Dialect;
pub use error::ApiError;
pub use event_stream::{EVENT_STREAM, event};
pub(crate) use input::Binding;
pub use input::Input;
#[cfg(test)]
pub(crate) use model::testing;
pub use model::{Model, ModelError, OperationModel, Protocol, ShapeId};
pub use output::{ERROR_TYPE, Output, REQUEST_ID};
pub(crate) use output::{Shaper, error as encode_error};
pub(crate) use router::{Labels, Router};
pub(crate) use validate::check;
pub use value::{Blob, Value};
