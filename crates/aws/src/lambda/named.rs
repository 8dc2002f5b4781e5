//! Which function a request is about: a name, a partial ARN or an ARN, with a qualifier in it or beside it.

use super::errors::{function_not_found, invalid};
use crate::pipeline::Ctx;
use crate::protocol::ApiError;
use martlet_model::{FunctionArn, FunctionRef, ParseError, Qualifier};

/// A function of the caller's account and region, as the caller named it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) function: FunctionArn,
    pub(super) qualifier: Option<Qualifier>,
}

impl Named {
    /// Reads `FunctionName` and, where the operation has it, `Qualifier`. Nobody reaches into another account or
    /// region: policies on functions are not built yet.
    pub(super) fn read(
        ctx: &Ctx,
        action: &str,
        name: &str,
        qualifier: Option<&str>,
    ) -> Result<Self, ApiError> {
        // The service model's pattern lets more through than can exist, such as `a.b` and `f:01`.
        let nowhere = |what: &str| {
            let (region, account) = (&ctx.region, ctx.account());
            function_not_found(format!("arn:aws:lambda:{region}:{account}:function:{what}"))
        };
        let found = FunctionRef::parse(name).map_err(|error| match error {
            ParseError::Form(_) => invalid(error.to_string()),
            _ => nowhere(name),
        })?;
        if let Some(region) = found.region.filter(|region| *region != ctx.region) {
            let text =
                format!("Functions from '{region}' are not reachable in this region ('{}')", ctx.region);
            return Err(ApiError::new("ResourceNotFoundException", text));
        }
        if let Some(account) = found.account.filter(|account| account != ctx.account()) {
            let text = format!(
                "User: {} is not authorized to perform: lambda:{action} on resource: \
                 arn:aws:lambda:{}:{account}:function:{} because no resource-based policy allows the \
                 lambda:{action} action",
                ctx.principal.arn, ctx.region, found.name
            );
            return Err(ApiError::new("AccessDeniedException", text).with_status(403));
        }
        let function =
            FunctionArn { region: ctx.region.clone(), account: ctx.account().clone(), name: found.name };
        let qualifier = match (qualifier, found.qualifier) {
            (None, inside) => inside,
            (Some(beside), inside) => {
                let beside =
                    Qualifier::parse(beside).map_err(|_| nowhere(&format!("{}:{beside}", function.name)))?;
                if inside.is_some_and(|inside| inside != beside) {
                    return Err(invalid(
                        "The derived qualifier from the function name does not match the specified qualifier.",
                    ));
                }
                Some(beside)
            }
        };
        Ok(Self { function, qualifier })
    }

    /// The same for operations on whole functions.
    pub(super) fn unqualified(ctx: &Ctx, action: &str, name: &str) -> Result<FunctionArn, ApiError> {
        let named = Self::read(ctx, action, name, None)?;
        match named.qualifier {
            None | Some(Qualifier::Latest) => Ok(named.function),
            Some(Qualifier::Version(_) | Qualifier::Alias(_)) => Err(invalid(
                "This operation is permitted on Lambda functions only. Aliases and versions do not support this \
                 operation. Please specify either a function name or an unqualified function ARN.",
            )),
        }
    }

    /// The ARN as the caller named it: qualified if the caller did.
    pub(super) fn arn(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => self.function.qualified(qualifier),
            None => self.function.to_string(),
        }
    }
}
