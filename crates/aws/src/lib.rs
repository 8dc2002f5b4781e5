//! AWS's APIs: one pipeline, one codec per wire protocol, one folder a service.
//!
//! [`protocol`] interprets the public service models (`models/`, carried in the program), [`pipeline`] is the one
//! front door that every request goes through, and a service ([`lambda`], [`logs`]) is a table of operations.

mod heavy;
pub mod lambda;
pub mod logs;
pub mod pipeline;
pub mod protocol;
pub mod urls;

/// The checked-in service models, as `models/make.py` cuts them from the public ones.
pub mod models {
    /// AWS Lambda, 2015-03-31.
    pub const LAMBDA: &str = include_str!("../models/lambda.json");
    /// CloudWatch Logs, 2014-03-28.
    pub const LOGS: &str = include_str!("../models/logs.json");
}
