//! Which function a request is about: a name, a partial ARN or an ARN, with a qualifier in it or beside it.

use super::errors::{function_not_found, invalid};
use crate::pipeline::Ctx;
use crate::protocol::ApiError;
use martlet_identity::Verdict;
use martlet_model::{AccountId, FunctionArn, FunctionRef, ParseError, Qualifier};

/// A function of the request's region, as the caller named it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) function: FunctionArn,
    pub(super) qualifier: Option<Qualifier>,
}

impl Named {
    /// Reads `FunctionName` and, where the operation has it, `Qualifier`, and lets nobody pass whom the function's policies keep out:
    /// see [`Named::permit`].
    pub(super) fn read(
        ctx: &Ctx,
        action: &str,
        name: &str,
        qualifier: Option<&str>,
    ) -> Result<Self, ApiError> {
        let named = Self::parse(ctx, name, qualifier)?;
        let verdict = ctx.policies.judge(ctx, &format!("lambda:{action}"), &named.arn());
        named.permit(ctx, action, verdict)?;
        Ok(named)
    }

    /// Reads the same and asks nobody.
    pub(super) fn parse(ctx: &Ctx, name: &str, qualifier: Option<&str>) -> Result<Self, ApiError> {
        // The service model's pattern lets more through than can exist, such as `a.b` and `f:01`.
        let nowhere = |account: &AccountId, what: &str| {
            function_not_found(format!("arn:aws:lambda:{}:{account}:function:{what}", ctx.region))
        };
        let found = FunctionRef::parse(name).map_err(|error| match error {
            ParseError::Form(_) => invalid(error.to_string()),
            _ => nowhere(ctx.account(), name),
        })?;
        if let Some(region) = found.region.filter(|region| *region != ctx.region) {
            let text =
                format!("Functions from '{region}' are not reachable in this region ('{}')", ctx.region);
            return Err(ApiError::new("ResourceNotFoundException", text));
        }
        let account = found.account.unwrap_or_else(|| ctx.account().clone());
        let function = FunctionArn { region: ctx.region.clone(), account, name: found.name };
        let qualifier = match (qualifier, found.qualifier) {
            (None, inside) => inside,
            (Some(beside), inside) => {
                let beside = Qualifier::parse(beside)
                    .map_err(|_| nowhere(&function.account, &format!("{}:{beside}", function.name)))?;
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

    /// Whether the caller may do this, given what the resource's policy says of it: everybody does as he likes in his own account,
    /// unless a policy denies it; nobody reaches into another one, unless a policy allows it.
    pub(super) fn permit(&self, ctx: &Ctx, action: &str, verdict: Verdict) -> Result<(), ApiError> {
        let why = match verdict {
            Verdict::Denied => "with an explicit deny in a resource-based policy".to_owned(),
            Verdict::Silent if self.function.account != *ctx.account() => {
                format!("because no resource-based policy allows the lambda:{action} action")
            }
            Verdict::Allowed | Verdict::Silent => return Ok(()),
        };
        let (who, arn) = (&ctx.principal.arn, self.arn());
        let text =
            format!("User: {who} is not authorized to perform: lambda:{action} on resource: {arn} {why}");
        Err(ApiError::new("AccessDeniedException", text).with_status(403))
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
