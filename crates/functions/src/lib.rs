//! The control plane's state: which functions exist, in which versions, with which code.

pub mod package;
