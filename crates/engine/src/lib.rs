//! Engine.
pub mod scheduler;
