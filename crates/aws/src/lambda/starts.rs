//! How environments start: what a developer may ask for, and what everybody is told.

use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Output};
use http::HeaderName;
use martlet_engine::{Start, Wanted};
use martlet_environment::Deployment;
use serde::Serialize;
use std::sync::Arc;

const ASK: &str = "x-martlet-cold-start";
const TELL: HeaderName = HeaderName::from_static("x-martlet-start");

/// How the environments of a function version start: the member `Martlet` of its configuration, which AWS has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartShown {
    /// `fork`, `ordinary`, or `unknown` while nothing has been tried.
    pub start: &'static str,
    /// Why not by fork: one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StartShown {
    /// Nothing has been tried yet.
    pub const UNKNOWN: Self = Self { start: "unknown", reason: None };
}

/// What this server lets developers ask of starts.
#[derive(Clone)]
pub struct Starts {
    /// Whether a request may ask for a cold start by header.
    pub by_header: bool,
    /// The start that every synchronous invocation is given, whatever environment is idle.
    pub always: Option<Start>,
    /// What is known of a version.
    pub shown: Arc<dyn Fn(&Deployment) -> StartShown + Send + Sync>,
}

impl Default for Starts {
    fn default() -> Self {
        Self { by_header: false, always: None, shown: Arc::new(|_| StartShown::UNKNOWN) }
    }
}

impl Starts {
    /// The environment that a request asks for.
    ///
    /// # Errors
    /// The header asks for what there is not, or may not be sent to this server at all.
    pub(super) fn wanted(&self, ctx: &Ctx) -> Result<Wanted, ApiError> {
        let usual = self.always.map_or(Wanted::Any, Wanted::Cold);
        let Some(asked) = ctx.headers.get(ASK) else { return Ok(usual) };
        if !self.by_header {
            return Err(super::errors::invalid(
                "X-Martlet-Cold-Start is for development: start the server with --dev, or leave the header out",
            ));
        }
        match asked.to_str().ok().and_then(start_of) {
            Some(start) => Ok(Wanted::Cold(start)),
            None => Err(super::errors::invalid(
                "X-Martlet-Cold-Start takes spare, fork or ordinary: the kind of start that the invocation is to have",
            )),
        }
    }

    /// `output`, which tells the developer which start the invocation had.
    pub(super) fn tell(&self, output: Output, start: Start) -> Output {
        if self.by_header || self.always.is_some() { output.own_header(TELL, name_of(start)) } else { output }
    }
}

/// The start of that name that can be asked for.
#[must_use]
pub fn start_of(name: &str) -> Option<Start> {
    [Start::Spare, Start::Fork, Start::Ordinary].into_iter().find(|start| name_of(*start) == name)
}

fn name_of(start: Start) -> &'static str {
    match start {
        Start::Warm => "warm",
        Start::Spare => "spare",
        Start::Fork => "fork",
        Start::Ordinary => "ordinary",
    }
}
