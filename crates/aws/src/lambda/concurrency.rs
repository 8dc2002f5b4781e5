//! PutFunctionConcurrency, GetFunctionConcurrency and DeleteFunctionConcurrency: what a function has of the account for itself.

use super::Lambda;
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use crate::pipeline::{Ctx, Operation};
use crate::protocol::{ApiError, Input, Output};
use bytes::Bytes;
use martlet_functions::Function;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) const PUT: Operation = Operation::new(
    "PutFunctionConcurrency",
    "lambda:PutFunctionConcurrency",
    &["FunctionName", "ReservedConcurrentExecutions"],
);

pub(super) const GET: Operation =
    Operation::new("GetFunctionConcurrency", "lambda:GetFunctionConcurrency", &["FunctionName"]);

pub(super) const DELETE: Operation =
    Operation::new("DeleteFunctionConcurrency", "lambda:DeleteFunctionConcurrency", &["FunctionName"]);

/// What nobody can take for himself: the functions without a reservation have at least so much, as on AWS.
const LEAST_UNRESERVED: u32 = 100;
const NO_CONTENT: u16 = 204;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequest {
    function_name: String,
    reserved_concurrent_executions: u32,
}

/// A reservation as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Concurrency {
    reserved_concurrent_executions: u32,
}

/// The same where it may be absent.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_concurrent_executions: Option<u32>,
}

impl Concurrency {
    pub(super) fn of(function: &Function) -> Option<Self> {
        let reserved = function.attached().reserved_concurrency?;
        Some(Self { reserved_concurrent_executions: reserved })
    }
}

/// What functions without a reservation, and without anything provisioned, share.
pub(super) fn unreserved(lambda: &Lambda) -> u32 {
    let taken = u32::try_from(lambda.functions.shares(None)).unwrap_or(u32::MAX);
    lambda.concurrency.saturating_sub(taken)
}

/// Whether a function may have `share` of the account's concurrency when all others have `others`. Says the most that it may have
/// if not, and what has to be left.
pub(super) fn fits(concurrency: u32, share: u64, others: u64) -> Result<(), (u64, u32)> {
    let least = LEAST_UNRESERVED.min(concurrency);
    let most = u64::from(concurrency - least).saturating_sub(others);
    // Turning a function off takes nothing from anybody, even where a lower limit has left nothing to take.
    if share == 0 || share <= most { Ok(()) } else { Err((most, least)) }
}

pub(super) async fn put_function_concurrency(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: PutRequest = input.parse()?;
    let function = Named::unqualified(&ctx, "PutFunctionConcurrency", &request.function_name)?;
    let reserved = request.reserved_concurrent_executions;
    let concurrency = lambda.concurrency;
    let put = lambda.functions.attach_share(&function, move |attached, _, others| {
        fits(concurrency, reserved.into(), others).map_err(|(most, least)| {
            invalid(format!(
                "Specified ReservedConcurrentExecutions for function decreases account's \
                 UnreservedConcurrentExecution below its minimum value of [{least}]. At most {most} can be reserved for \
                 this function: the server's account_concurrency is {concurrency}."
            ))
        })?;
        let provisioned = attached.provisioned_sum();
        if u64::from(reserved) < provisioned {
            return Err(invalid(format!(
                "Specified ReservedConcurrentExecutions for function must not be less than its provisioned \
                 concurrency, which is [{provisioned}]"
            )));
        }
        attached.reserved_concurrency = Some(reserved);
        Ok(())
    });
    put.await.map_err(refused)??;
    Output::json(&Concurrency { reserved_concurrent_executions: reserved })
}

pub(super) async fn get_function_concurrency(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let arn = Named::unqualified(&ctx, "GetFunctionConcurrency", name)?;
    let function = lambda.functions.get(&arn).ok_or_else(|| function_not_found(&arn))?;
    Output::json(&Found { reserved_concurrent_executions: function.attached().reserved_concurrency })
}

pub(super) async fn delete_function_concurrency(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let function = Named::unqualified(&ctx, "DeleteFunctionConcurrency", name)?;
    let deleted = lambda.functions.attach_share(&function, |attached, _, _| {
        attached.reserved_concurrency = None;
        Ok::<(), ApiError>(())
    });
    deleted.await.map_err(refused)??;
    Ok(Output::payload(Bytes::new()).status(NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_are_left_to_those_without_a_reservation() {
        for (concurrency, share, others, expected) in [
            (1000, 900, 0, Ok(())),
            (1000, 901, 0, Err((900, 100))),
            (1000, 1, 900, Err((0, 100))),
            (1000, 0, 5000, Ok(())),
            (50, 1, 0, Err((0, 50))),
            (50, 0, 0, Ok(())),
        ] {
            assert_eq!(
                fits(concurrency, share, others),
                expected,
                "{share} of {concurrency} beside {others}"
            );
        }
    }
}
