//! How an accepted event reaches the engine.

use martlet_engine::{Engine, Host, Rejected};
use martlet_events::{Attempt, Invoker, Outcome};
use martlet_functions::{Functions, Unresolved};
use martlet_model::{Invocation, Trigger};

/// Runs accepted events on the engine, as the functions are at that time.
pub(super) struct EngineInvoker<H: Host> {
    pub(super) functions: Functions,
    pub(super) engine: Engine<H>,
}

impl<H: Host> Invoker for EngineInvoker<H> {
    async fn invoke(&self, attempt: Attempt) -> Outcome {
        let event = attempt.event;
        let deployment = match self.functions.resolve(&event.function, Some(&event.version.qualifier())) {
            Ok(deployment) => deployment,
            Err(Unresolved::NotFound(_)) => return Outcome::FunctionGone,
            Err(Unresolved::NotActive(_)) => return Outcome::Unavailable,
        };
        let invoked_arn = match &event.qualifier {
            Some(qualifier) => format!("{}:{qualifier}", event.function),
            None => event.function.to_string(),
        };
        let invocation = Invocation {
            request_id: event.request_id,
            invoked_arn,
            payload: event.payload,
            client_context: None,
            trace_id: event.trace_id,
            accepted: event.accepted,
            trigger: Trigger::Event,
            attempt: attempt.number,
        };
        match self.engine.invoke(&deployment, invocation).await {
            Ok(_) => Outcome::Completed,
            Err(Rejected::Throttled { .. } | Rejected::Overloaded) => {
                Outcome::Throttled { retry_after: None }
            }
            Err(error) => {
                tracing::warn!(function = %event.function, %error, "an accepted event could not be run now; it is tried again");
                Outcome::Unavailable
            }
        }
    }
}
