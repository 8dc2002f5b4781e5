//! Names, ARNs, configurations, invocations, limits: the words that every other room speaks.
//!
//! No I/O, no async, no clock: a time is always a parameter. Everything here is plain data with the rules that
//! make it valid, so any room may depend on it and it depends on none.

pub mod arn;
pub mod function;
pub mod invocation;
pub mod layer;
pub mod limits;
pub mod lineage;
pub mod runtime;
pub mod time;

pub use arn::{AccountId, FunctionArn, FunctionName, FunctionRef, ParseError, Qualifier, Region};
pub use function::{Code, Configuration, FunctionVersion, Version};
pub use invocation::{Invocation, RequestId, Trigger};
pub use layer::{Layer, LayerArn, LayerVersionArn};
pub use runtime::{RuntimeFamily, RuntimeName};
pub use time::Timestamp;
