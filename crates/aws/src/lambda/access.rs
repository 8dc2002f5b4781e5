//! Who may reach a function: what its resource policies say of callers of the API, of its URLs, and of services.

use super::Lambda;
use super::named::Named;
use crate::pipeline::{Ctx, ResourcePolicies};
use martlet_functions::Function;
use martlet_identity::{Asked, Facts, Principal, Verdict, Who};
use martlet_model::{AccountId, FunctionArn, FunctionRef, Qualifier, Timestamp};
use std::net::IpAddr;

/// What one needs to call a function at all, and beside it to do so by its URL.
const INVOKE: &str = "lambda:InvokeFunction";
const INVOKE_URL: &str = "lambda:InvokeFunctionUrl";

impl ResourcePolicies for Lambda {
    fn judge(&self, ctx: &Ctx, action: &str, resource: &str) -> Verdict {
        let Ok(FunctionRef { region: Some(region), account: Some(account), name, qualifier }) =
            FunctionRef::parse(resource)
        else {
            return Verdict::Silent;
        };
        let named = Named { function: FunctionArn { region, account, name }, qualifier };
        verdict(ctx, action, &named, self.functions.get(&named.function).as_deref())
    }
}

/// What the policy of what `named` names says of a request of the API.
pub(super) fn verdict(ctx: &Ctx, action: &str, named: &Named, function: Option<&Function>) -> Verdict {
    let Some(policy) = function.and_then(|function| function.policy(named.qualifier.as_ref())) else {
        return Verdict::Silent;
    };
    policy.judge(&Asked {
        who: Who::Signed { account: ctx.account(), arn: &ctx.principal.arn },
        action,
        resource: &resource(&named.function, named.qualifier.as_ref()),
        facts: &Facts {
            now: ctx.received,
            region: &ctx.region,
            source_ip: Some(ctx.peer.ip()),
            source_arn: None,
            source_account: None,
            url_signed: None,
        },
    })
}

/// The function's own policy is about its unqualified ARN, which `$LATEST` is another name of.
fn resource(function: &FunctionArn, qualifier: Option<&Qualifier>) -> String {
    match qualifier {
        None | Some(Qualifier::Latest) => function.to_string(),
        Some(qualifier) => function.qualified(qualifier),
    }
}

/// A request that came by a function's URL.
#[derive(Clone, Copy, Debug)]
pub struct UrlCall<'a> {
    /// Who signed it, where callers of the URL have to sign; `None` where they need not.
    pub signer: Option<&'a Principal>,
    /// From where.
    pub source_ip: IpAddr,
    /// When.
    pub now: Timestamp,
}

/// Whether a URL of `function` (with its qualifier, where it is that of an alias) may be called so. It takes both permissions: for
/// `lambda:InvokeFunctionUrl` and, by way of the URL, for `lambda:InvokeFunction`. Somebody of the function's own account has both
/// unless its policy denies one.
#[must_use]
pub fn url_may_invoke(function: &Function, qualifier: Option<&Qualifier>, call: &UrlCall<'_>) -> bool {
    let arn = function.arn();
    let who = match call.signer {
        Some(signer) => Who::Signed { account: &signer.account, arn: &signer.arn },
        None => Who::Anybody,
    };
    let facts = Facts {
        now: call.now,
        region: &arn.region,
        source_ip: Some(call.source_ip),
        source_arn: None,
        source_account: None,
        url_signed: Some(call.signer.is_some()),
    };
    let own = call.signer.is_some_and(|signer| signer.account == arn.account);
    let resource = resource(arn, qualifier);
    [INVOKE_URL, INVOKE].into_iter().all(|action| {
        let asked = Asked { who, action, resource: &resource, facts: &facts };
        match function.policy(qualifier).map_or(Verdict::Silent, |policy| policy.judge(&asked)) {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::Silent => own,
        }
    })
}

/// Whether a service may invoke `function` on behalf of one of its resources. A service is of no account, so a policy has to allow it.
#[must_use]
pub fn service_may_invoke(
    function: &Function,
    qualifier: Option<&Qualifier>,
    service: &str,
    source_arn: &str,
    source_account: &AccountId,
    now: Timestamp,
) -> bool {
    let facts = Facts {
        now,
        region: &function.arn().region,
        source_ip: None,
        source_arn: Some(source_arn),
        source_account: Some(source_account),
        url_signed: None,
    };
    let resource = resource(function.arn(), qualifier);
    let asked = Asked { who: Who::Service(service), action: INVOKE, resource: &resource, facts: &facts };
    function.policy(qualifier).is_some_and(|policy| policy.judge(&asked) == Verdict::Allowed)
}
