//! Functions as targets of what came of events.

use martlet_events::{AsyncInvocations, Delivery, Destination, Event, Message, Undelivered};
use martlet_functions::{Functions, Unresolved};
use martlet_model::{FunctionArn, FunctionRef, RequestId, limits};
use std::pin::Pin;

/// Hands records and dead letters to functions, as events of their own.
pub(super) struct ToFunctions {
    pub(super) functions: Functions,
    pub(super) events: AsyncInvocations,
}

impl Destination for ToFunctions {
    fn deliver<'a>(
        &'a self,
        target: &'a str,
        delivery: Delivery,
    ) -> Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>> {
        Box::pin(async move {
            let event = self.event(target, delivery)?;
            self.events.accept(event).await.map_err(|error| Undelivered::NotNow(error.to_string()))
        })
    }
}

impl ToFunctions {
    fn event(&self, target: &str, delivery: Delivery) -> Result<Event, Undelivered> {
        let refused = |reason: &str| Undelivered::Refused(reason.to_owned());
        let found = FunctionRef::parse(target).map_err(|error| Undelivered::Refused(error.to_string()))?;
        let (Some(region), Some(account)) = (found.region, found.account) else {
            return Err(refused("the ARN names no region or no account"));
        };
        let function = FunctionArn { region, account, name: found.name };
        let deployment =
            self.functions.resolve(&function, found.qualifier.as_ref()).map_err(|error| match error {
                Unresolved::NotFound(_) => Undelivered::Refused(error.to_string()),
                Unresolved::NotActive("Failed") => Undelivered::Refused(error.to_string()),
                Unresolved::NotActive(_) | Unresolved::RuntimeGone(_) => {
                    Undelivered::NotNow(error.to_string())
                }
            })?;
        let payload = match delivery.message {
            Message::Record(record) => record,
            Message::DeadLetter(letter) => letter.as_event(&delivery.source, delivery.at),
        };
        if payload.len() > limits::ASYNC_REQUEST_BYTES {
            return Err(Undelivered::Refused(format!(
                "it has {} bytes, and an event at most {}",
                payload.len(),
                limits::ASYNC_REQUEST_BYTES
            )));
        }
        if deployment.version.configuration.per_tenant {
            return Err(Undelivered::Refused(
                "its tenants have environments of their own, and this names none".to_owned(),
            ));
        }
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| Undelivered::NotNow(error.to_string()))?;
        Ok(Event {
            request_id: RequestId::from_random(seed),
            function,
            qualifier: found.qualifier.map(|qualifier| qualifier.to_string()),
            version: deployment.version.version,
            payload,
            trace_id: delivery.trace_id,
            tenant: None,
            accepted: delivery.at,
        })
    }
}
