//! The Lambda Runtime API, version 2018-06-01, for runtimes that a package brings itself.
//!
//! [`machine`] knows which call is allowed when and what is answered to one that is not; [`server`] carries it over
//! HTTP. Responses in streaming mode are handed on as they come. The restore calls do
//! not exist, because no environment is started from a snapshot; the Extensions API is on the same listener (`crate::extensions`).

mod machine;
mod server;

pub(crate) use server::{Answer, Caller, RuntimeApi};
