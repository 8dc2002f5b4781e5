//! Refusals in AWS's words.

use crate::protocol::ApiError;
use martlet_functions::package::PackageError;
use martlet_functions::{FunctionsError, PackagesError, Refused, Unresolved};
use martlet_model::limits;

const COULD_NOT_UNZIP: &str =
    "Could not unzip uploaded file. Please check your file, then try to upload again.";

pub(super) fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterValueException", text)
}

/// What the model's own checks would say, for limits that are ours: those of ordinary functions.
pub(super) fn above(value: u32, member: &str, most: u32) -> ApiError {
    let text = format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must have \
         value less than or equal to {most}"
    );
    ApiError::new("ValidationException", text)
}

pub(super) fn function_not_found(arn: impl std::fmt::Display) -> ApiError {
    ApiError::new("ResourceNotFoundException", format!("Function not found: {arn}"))
}

pub(super) fn conflict(text: impl Into<String>) -> ApiError {
    ApiError::new("ResourceConflictException", text)
}

fn wrong_state(state: &str) -> ApiError {
    conflict(format!(
        "The operation cannot be performed at this time. The function is currently in the following state: {state}"
    ))
}

pub(super) fn unresolved(error: Unresolved) -> ApiError {
    match error {
        Unresolved::NotFound(arn) => function_not_found(arn),
        Unresolved::NotActive(state) => wrong_state(state),
        Unresolved::RuntimeGone(_) => {
            ApiError::new("InvalidRuntimeException", error.to_string()).with_status(502)
        }
    }
}

/// What the registry refused. What was not the caller's fault goes to the log with all its causes.
pub(super) fn refused(error: FunctionsError) -> ApiError {
    match error {
        FunctionsError::NotFound(arn) => function_not_found(arn),
        FunctionsError::Exists(name) => conflict(format!("Function already exist: {name}")),
        FunctionsError::Refused(refused) => match refused {
            Refused::NotActive(state) => wrong_state(state),
            Refused::UpdateInProgress(arn) => conflict(format!(
                "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
            )),
            Refused::Revision => ApiError::new(
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API \
                 to retrieve the latest Revision Id",
            ),
            Refused::TooManyTags => invalid("Number of tags exceeds resource tag limit."),
            // Their callers know more and answer these themselves.
            Refused::CodeDigest(_) | Refused::NoSuchVersion(_) => invalid(refused.to_string()),
            Refused::AliasExists(_) => conflict(refused.to_string()),
            Refused::NoSuchAlias(_) => ApiError::new("ResourceNotFoundException", refused.to_string()),
            Refused::Referenced(_, aliases) => conflict(format!(
                "Unable to delete version because the following aliases reference it: [{}]",
                aliases.join(", ")
            )),
            Refused::SameVersionTwice(number) => invalid(format!(
                "Invalid function version {number}. Function version {number} is already included in routing \
                 configuration."
            )),
            Refused::LatestWithCanary => {
                invalid("$LATEST is not supported for an alias pointing to more than 1 version")
            }
            Refused::Unlike(one, other, what) => invalid(format!(
                "Versions {one} and {other} have different {what}; an alias with two versions needs the same for both"
            )),
            Refused::TooManyAliases => ApiError::new("AliasLimitExceededException", refused.to_string()),
        },
        FunctionsError::NoSigningConfig(arn) => ApiError::new(
            "CodeSigningConfigNotFoundException",
            format!(
                "The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}."
            ),
        ),
        FunctionsError::SigningConfigInUse(arn) => conflict(format!(
            "The code signing configuration {arn} is in use by functions; take it from them first              (ListFunctionsByCodeSigningConfig names them)"
        )),
        FunctionsError::Unsigned(_) => ApiError::new(
            "CodeVerificationFailedException",
            "The code signature failed one or more of the validation checks for signature mismatch or expiry, and the              code signing policy is set to ENFORCE. Lambda blocks the deployment.",
        ),
        FunctionsError::CodeStorage => {
            ApiError::new("CodeStorageExceededException", "Code storage limit exceeded.")
        }
        FunctionsError::Package(PackagesError::Refused(refused)) => package(&refused),
        FunctionsError::NoSuchLayer(arn) => invalid(format!("Layer version {arn} does not exist.")),
        FunctionsError::Oversized(bytes) => invalid(format!(
            "Function code combined with layers exceeds the maximum allowed size of {} bytes. The actual size is \
             {bytes} bytes.",
            limits::UNPACKED_BYTES
        )),
        // Its callers answer it themselves.
        FunctionsError::LayerPolicy(refused) => invalid(refused.to_string()),
        error @ (FunctionsError::Package(_)
        | FunctionsError::Store(_)
        | FunctionsError::TooLarge(_)
        | FunctionsError::SigningConfigTooLarge(_)
        | FunctionsError::LayerTooLarge(_)
        | FunctionsError::Randomness(_)
        | FunctionsError::Cut) => internal(&error),
    }
}

/// Something of ours failed: the caller is told what it is about, the log is told why.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> ApiError {
    tracing::error!(error, "an operation failed");
    ApiError::internal(format!("{error}; the server's log tells more"))
}

fn package(refused: &PackageError) -> ApiError {
    match refused {
        PackageError::NotAZip => invalid(COULD_NOT_UNZIP),
        PackageError::Empty => invalid("Uploaded file must be a non-empty zip"),
        PackageError::UnpackedTooLarge { limit } => {
            invalid(format!("Unzipped size must be smaller than {limit} bytes"))
        }
        PackageError::ZipTooLarge { limit, .. } => {
            let text = format!("Zipped size must be smaller than {limit} bytes");
            ApiError::new("RequestEntityTooLargeException", text).with_status(413)
        }
        other => invalid(format!("{COULD_NOT_UNZIP} What is wrong with it: {other}")),
    }
}
