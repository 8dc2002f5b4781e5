//! What is known of a request that a policy is asked about, by the names that conditions have for it.

use martlet_model::{AccountId, Region, Timestamp};
use std::borrow::Cow;
use std::net::IpAddr;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// Somebody who signed, by ARN, and the account of that.
    Signed {
        /// The account.
        account: &'a AccountId,
        /// As in `arn:aws:iam::000000000000:user/default`.
        arn: &'a str,
    },
    /// A service on its own behalf, by name, as in `s3.amazonaws.com`.
    Service(&'a str),
    /// Nobody known: an unsigned request of a public endpoint.
    Anybody,
}

/// One action on one resource.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub who: Who<'a>,
    /// As in `lambda:InvokeFunction`.
    pub action: &'a str,
    /// The ARN, qualified if the request is.
    pub resource: &'a str,
    /// What else is known.
    pub facts: &'a Facts<'a>,
}

/// What conditions can be about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When.
    pub now: Timestamp,
    /// The region that the request acts in.
    pub region: &'a Region,
    /// From where, where there is a connection.
    pub source_ip: Option<IpAddr>,
    /// For which resource a service asks.
    pub source_arn: Option<&'a str>,
    /// The account of that resource.
    pub source_account: Option<&'a AccountId>,
    /// The function's URL that the request came by, with whether callers of that have to sign.
    pub url_signed: Option<bool>,
}

/// A name of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    CurrentTime,
    EpochTime,
    EventSourceToken,
    FunctionArn,
    FunctionUrlAuthType,
    InvokedViaFunctionUrl,
    PrincipalAccount,
    PrincipalArn,
    PrincipalIsService,
    PrincipalServiceName,
    PrincipalType,
    RequestedRegion,
    SecureTransport,
    SourceAccount,
    SourceArn,
    SourceIp,
}

const KEYS: &[(&str, Key)] = &[
    ("aws:CurrentTime", Key::CurrentTime),
    ("aws:EpochTime", Key::EpochTime),
    ("aws:PrincipalAccount", Key::PrincipalAccount),
    ("aws:PrincipalArn", Key::PrincipalArn),
    ("aws:PrincipalIsAWSService", Key::PrincipalIsService),
    ("aws:PrincipalServiceName", Key::PrincipalServiceName),
    ("aws:PrincipalType", Key::PrincipalType),
    ("aws:RequestedRegion", Key::RequestedRegion),
    ("aws:SecureTransport", Key::SecureTransport),
    ("aws:SourceAccount", Key::SourceAccount),
    ("aws:SourceArn", Key::SourceArn),
    ("aws:SourceIp", Key::SourceIp),
    ("lambda:EventSourceToken", Key::EventSourceToken),
    ("lambda:FunctionArn", Key::FunctionArn),
    ("lambda:FunctionUrlAuthType", Key::FunctionUrlAuthType),
    ("lambda:InvokedViaFunctionUrl", Key::InvokedViaFunctionUrl),
];

impl Key {
    /// Names of keys are the same in either case.
    pub(super) fn named(name: &str) -> Option<Self> {
        KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, key)| *key)
    }

    /// Its value in a request; `None` where the request has none.
    pub(super) fn of<'a>(self, asked: &Asked<'a>) -> Option<Cow<'a, str>> {
        let truth = |value: bool| Cow::Borrowed(if value { "true" } else { "false" });
        let Asked { who, facts, .. } = asked;
        match (self, who) {
            (Self::CurrentTime | Self::EpochTime, _) => Some((facts.now.0 / 1000).to_string().into()),
            // Alexa alone sends one.
            (Self::EventSourceToken, _) => None,
            (Self::FunctionArn, _) => Some(asked.resource.into()),
            (Self::FunctionUrlAuthType, _) => {
                facts.url_signed.map(|signed| if signed { "AWS_IAM" } else { "NONE" }.into())
            }
            (Self::InvokedViaFunctionUrl, _) => Some(truth(facts.url_signed.is_some())),
            (Self::PrincipalAccount, Who::Signed { account, .. }) => Some(account.as_str().into()),
            (Self::PrincipalArn, Who::Signed { arn, .. }) => Some((*arn).into()),
            (Self::PrincipalIsService, who) => Some(truth(matches!(who, Who::Service(_)))),
            (Self::PrincipalServiceName, Who::Service(name)) => Some((*name).into()),
            (Self::PrincipalType, Who::Signed { arn, .. }) => {
                Some(if arn.contains(":assumed-role/") { "AssumedRole" } else { "User" }.into())
            }
            (Self::PrincipalType, Who::Anybody) => Some("Anonymous".into()),
            (Self::RequestedRegion, _) => Some(facts.region.as_str().into()),
            // The server speaks plain HTTP, whatever stands in front of it.
            (Self::SecureTransport, _) => Some(truth(false)),
            (Self::SourceAccount, _) => facts.source_account.map(|account| account.as_str().into()),
            (Self::SourceArn, _) => facts.source_arn.map(Cow::Borrowed),
            (Self::SourceIp, _) => facts.source_ip.map(|address| address.to_canonical().to_string().into()),
            (
                Self::PrincipalAccount
                | Self::PrincipalArn
                | Self::PrincipalServiceName
                | Self::PrincipalType,
                _,
            ) => None,
        }
    }
}
