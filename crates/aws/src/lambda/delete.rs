//! DeleteFunction: a function with all its versions, or one version.

use super::Lambda;
use super::errors::{function_not_found, invalid, refused};
use super::named::Named;
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use bytes::Bytes;
use martlet_functions::{FunctionsError, Refused};
use martlet_model::Qualifier;
use std::sync::Arc;

/// What AWS has always answered; its service model has become vague about it.
const NO_CONTENT: u16 = 204;

pub(super) async fn delete_function(lambda: Arc<Lambda>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    let named = Named::read(&ctx, "DeleteFunction", name, input.text("Qualifier"))?;
    let deleted = match &named.qualifier {
        None => lambda.functions.delete(&named.function).await,
        Some(Qualifier::Latest) => {
            return Err(invalid("$LATEST version cannot be deleted without deleting the function."));
        }
        Some(Qualifier::Version(number)) => lambda.functions.delete_version(&named.function, *number).await,
        Some(Qualifier::Alias(_)) => return Err(invalid("Deletion of aliases is not currently supported.")),
    };
    match deleted {
        Ok(()) => Ok(Output::payload(Bytes::new()).status(NO_CONTENT)),
        Err(FunctionsError::Refused(Refused::NoSuchVersion(_))) => Err(function_not_found(named.arn())),
        Err(error) => Err(refused(error)),
    }
}
