//! How an accepted event reaches the engine, and where its owner has said how it is treated.

use martlet_engine::{Engine, Host, Rejected};
use martlet_events::{Answer, Attempt, Event, Invoker, Outcome, Treatment};
use martlet_functions::{Functions, Target, Unresolved};
use martlet_model::{Invocation, Trigger};
use std::time::Duration;

/// Runs accepted events on the engine, as the functions are at that time.
pub(super) struct EngineInvoker<H: Host> {
    pub(super) functions: Functions,
    pub(super) engine: Engine<H>,
}

impl<H: Host> Invoker for EngineInvoker<H> {
    fn treatment(&self, event: &Event) -> Option<Treatment> {
        let function = self.functions.get(&event.function)?;
        let attached = function.attached();
        let usual = Treatment::default();
        let asked =
            attached.event_invoke.get(&Target::of(event.target().as_ref())).cloned().unwrap_or_default();
        let version = function
            .standing(event.target().as_ref(), event.version)
            .and_then(|version| function.version(version));
        Some(Treatment {
            retries: asked.retries.unwrap_or(usual.retries),
            age: asked.age_seconds.map_or(usual.age, |seconds| Duration::from_secs(seconds.into())),
            on_success: asked.on_success,
            on_failure: asked.on_failure,
            dead_letter: version.and_then(|record| record.version.configuration.dead_letter.clone()),
            turned_off: attached.reserved_concurrency == Some(0),
            recursion_allowed: attached.recursion_allowed,
        })
    }

    async fn invoke(&self, attempt: Attempt) -> Outcome {
        let event = attempt.event;
        let function = self.functions.get(&event.function);
        let standing =
            function.as_ref().and_then(|function| function.standing(event.target().as_ref(), event.version));
        let (Some(function), Some(version)) = (function, standing) else { return Outcome::FunctionGone };
        let deployment = match function.resolve(Some(&version.qualifier())) {
            Ok(deployment) => deployment,
            Err(Unresolved::NotFound(_)) => return Outcome::FunctionGone,
            Err(Unresolved::NotActive(_) | Unresolved::RuntimeGone(_)) => return Outcome::Unavailable,
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
            tenant: event.tenant,
            trace_id: event.trace_id,
            accepted: event.accepted,
            trigger: Trigger::Event,
            attempt: attempt.number,
        };
        match self.engine.invoke(&deployment, invocation).await {
            Ok(completed) => Outcome::Completed(Answer {
                version,
                payload: completed.payload,
                function_error: completed.function_error.map(|error| error.as_str().to_owned()),
            }),
            Err(Rejected::Throttled { .. } | Rejected::Overloaded) => Outcome::Throttled,
            Err(error) => {
                tracing::warn!(function = %event.function, %error, "an accepted event could not be run now; it is tried again");
                Outcome::Unavailable
            }
        }
    }
}
