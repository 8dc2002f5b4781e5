//! What holds for every policy, and what the policy language says of some.

use super::*;
use martlet_model::{AccountId, Region, Timestamp};
use proptest::prelude::*;
use serde_json::json;

const FUNCTION: &str = "arn:aws:lambda:us-east-1:000000000000:function:f";
const INVOKE: &str = "lambda:InvokeFunction";

/// A request that a test bends.
#[derive(Clone, Debug)]
struct World {
    account: AccountId,
    arn: String,
    service: Option<&'static str>,
    anybody: bool,
    action: &'static str,
    resource: String,
    region: Region,
    now: u64,
    ip: &'static str,
    source_arn: Option<&'static str>,
    source_account: Option<AccountId>,
    url_signed: Option<bool>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            account: AccountId::new("111111111111").unwrap(),
            arn: "arn:aws:iam::111111111111:user/ada".to_owned(),
            service: None,
            anybody: false,
            action: INVOKE,
            resource: FUNCTION.to_owned(),
            region: Region::new("us-east-1").unwrap(),
            now: 1_800_000_000_000,
            ip: "10.1.2.3",
            source_arn: None,
            source_account: None,
            url_signed: None,
        }
    }
}

impl World {
    fn judge(&self, policy: &Policy) -> Verdict {
        let signed = Who::Signed { account: &self.account, arn: &self.arn };
        let who = if self.anybody { Who::Anybody } else { self.service.map_or(signed, Who::Service) };
        policy.judge(&Asked {
            who,
            action: self.action,
            resource: &self.resource,
            facts: &Facts {
                now: Timestamp(self.now),
                region: &self.region,
                source_ip: self.ip.parse().ok(),
                source_arn: self.source_arn,
                source_account: self.source_account.as_ref(),
                url_signed: self.url_signed,
            },
        })
    }

    fn allowed(&self, statement: serde_json::Value) -> bool {
        self.judge(&Policy::of(&[statement]).unwrap()) == Verdict::Allowed
    }

    /// Whether a statement for everybody and everything allows under this condition.
    fn holds(&self, condition: &serde_json::Value) -> bool {
        self.allowed(
            json!({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Condition": condition}),
        )
    }
}

fn allow(principal: &serde_json::Value) -> serde_json::Value {
    json!({"Sid": "s", "Effect": "Allow", "Principal": principal, "Action": INVOKE, "Resource": FUNCTION})
}

fn refused(statement: serde_json::Value) -> PolicyError {
    Policy::of(&[statement]).unwrap_err()
}

#[test]
fn principals_are_who_they_say() {
    let world = World::default();
    for (principal, is) in [
        (json!("*"), true),
        (json!({"AWS": "*"}), true),
        (json!({"AWS": "111111111111"}), true),
        (json!({"AWS": "arn:aws:iam::111111111111:root"}), true),
        (json!({"AWS": "arn:aws:iam::111111111111:user/ada"}), true),
        (json!({"AWS": ["222222222222", "111111111111"]}), true),
        (json!({"AWS": "arn:aws:iam::111111111111:user/ad"}), false),
        (json!({"AWS": "222222222222"}), false),
        (json!({"Service": "s3.amazonaws.com"}), false),
    ] {
        assert_eq!(world.allowed(allow(&principal)), is, "{principal}");
    }
    let service = World { service: Some("s3.amazonaws.com"), ..World::default() };
    assert!(service.allowed(allow(&json!({"Service": "s3.amazonaws.com"}))));
    assert!(!service.allowed(allow(&json!({"Service": "sns.amazonaws.com"}))));
    assert!(!service.allowed(allow(&json!({"AWS": "111111111111"}))));
    for name in ["alexa-appkit.amazon.com", "logs.eu-west-3.amazonaws.com", "s3.amazonaws.com.cn"] {
        let service = World { service: Some(name), ..World::default() };
        assert!(service.allowed(allow(&json!({"Service": name}))));
    }
    let anybody = World { anybody: true, ..World::default() };
    assert!(anybody.allowed(allow(&json!("*"))) && !anybody.allowed(allow(&json!({"AWS": "111111111111"}))));
    for nobody in [
        json!("me"),
        json!({"AWS": "arn:aws:iam::111111111111:user/*"}),
        json!({"AWS": "arn:aws:s3:::bucket"}),
        json!({"AWS": "1111"}),
        json!({"AWS": "arn:aws:iam::111111111111:group/g"}),
        json!({"Service": "s3"}),
        json!({"Service": "s3.example.com"}),
        json!({"Service": ".amazonaws.com"}),
        json!({"Federated": "cognito-identity.amazonaws.com"}),
        json!({"CanonicalUser": "0"}),
        json!(7),
    ] {
        assert!(matches!(refused(allow(&nobody)), PolicyError::Principal(_)), "{nobody}");
    }
}

#[test]
fn actions_and_resources_are_patterns() {
    let world = World::default();
    let about = |action: &str, resource: &str| {
        world.allowed(json!({"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}))
    };
    assert!(
        about("lambda:*", "*")
            && about("LAMBDA:invokefunction", FUNCTION)
            && about("lambda:Invoke*", FUNCTION)
    );
    assert!(
        !about("lambda:InvokeFunctionUrl", FUNCTION)
            && !about("lambda:InvokeFunction", &format!("{FUNCTION}:live"))
    );
    assert!(about(INVOKE, "arn:aws:lambda:*:000000000000:function:?"));
    assert!(!about(INVOKE, &FUNCTION.to_uppercase()));
    let but =
        json!({"Effect": "Allow", "Principal": "*", "NotAction": "lambda:Get*", "NotResource": "*:live"});
    assert!(world.allowed(but.clone()));
    assert!(!World { action: "lambda:GetFunction", ..world.clone() }.allowed(but.clone()));
    assert!(!World { resource: format!("{FUNCTION}:live"), ..world }.allowed(but));
}

#[test]
fn a_denial_wins() {
    let deny =
        json!({"Effect": "Deny", "Principal": {"AWS": "111111111111"}, "Action": "*", "Resource": "*"});
    let policy = Policy::of(&[allow(&json!("*")), deny]).unwrap();
    assert_eq!(World::default().judge(&policy), Verdict::Denied);
    let other = World { account: AccountId::new("222222222222").unwrap(), ..World::default() };
    assert_eq!(other.judge(&policy), Verdict::Allowed);
    assert_eq!(World::default().judge(&Policy::denying()), Verdict::Denied);
    assert_eq!(World::default().judge(&Policy::default()), Verdict::Silent);
}

#[test]
fn a_service_is_held_to_its_source() {
    let statement = json!({
        "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": INVOKE, "Resource": FUNCTION,
        "Condition": {
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::photos*"},
            "StringEquals": {"AWS:SourceAccount": "333333333333"},
        },
    });
    let from = |arn, account: Option<&str>| World {
        service: Some("s3.amazonaws.com"),
        source_arn: arn,
        source_account: account.map(|account| AccountId::new(account).unwrap()),
        ..World::default()
    };
    assert!(from(Some("arn:aws:s3:::photos-of-2026"), Some("333333333333")).allowed(statement.clone()));
    assert!(!from(Some("arn:aws:s3:::letters"), Some("333333333333")).allowed(statement.clone()));
    assert!(!from(Some("arn:aws:s3:::photos"), Some("444444444444")).allowed(statement.clone()));
    assert!(!from(None, Some("333333333333")).allowed(statement.clone()));
    assert!(!from(Some("arn:aws:s3:::photos"), None).allowed(statement));
    let by_text = json!({"StringLike": {"aws:sourcearn": "arn:aws:*:photos"}});
    assert!(from(Some("arn:aws:s3:::photos"), None).holds(&by_text));
}

#[test]
fn urls_are_told_by_their_type() {
    let url = |signed| World { url_signed: signed, anybody: true, ..World::default() };
    let none = json!({"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}});
    assert!(url(Some(false)).holds(&none) && !url(Some(true)).holds(&none) && !url(None).holds(&none));
    let via = json!({"Bool": {"lambda:InvokedViaFunctionUrl": "true"}});
    assert!(url(Some(true)).holds(&via) && !url(None).holds(&via));
    let direct = json!({"Bool": {"lambda:InvokedViaFunctionUrl": false}});
    assert!(url(None).holds(&direct) && !url(Some(false)).holds(&direct));
}

#[test]
fn every_operator_compares_as_it_says() {
    let world = World::default();
    for (condition, holds) in [
        (json!({"StringEquals": {"aws:PrincipalAccount": ["222222222222", "111111111111"]}}), true),
        (json!({"StringNotEquals": {"aws:PrincipalAccount": ["222222222222", "111111111111"]}}), false),
        (json!({"StringEqualsIgnoreCase": {"aws:RequestedRegion": "US-EAST-1"}}), true),
        (json!({"StringNotEqualsIgnoreCase": {"aws:RequestedRegion": "US-EAST-1"}}), false),
        (json!({"StringLike": {"aws:PrincipalArn": "*/a?a"}}), true),
        (json!({"StringNotLike": {"aws:PrincipalArn": "*/a?a"}}), false),
        (json!({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::111111111111:user/*"}}), true),
        (json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/bob"}}), true),
        (json!({"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}}), true),
        (json!({"IpAddress": {"aws:SourceIp": "10.1.2.4/32"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "::/0"}}), false),
        (json!({"NotIpAddress": {"aws:SourceIp": "10.1.2.0/24"}}), false),
        (json!({"DateLessThan": {"aws:CurrentTime": "2027-01-16"}}), true),
        (json!({"DateGreaterThan": {"aws:CurrentTime": "2027-01-15T07:59:59Z"}}), true),
        (json!({"DateLessThanEquals": {"aws:CurrentTime": "1800000000"}}), true),
        (json!({"NumericLessThan": {"aws:EpochTime": 1_800_000_000}}), false),
        (json!({"NumericEquals": {"aws:EpochTime": "1800000000"}}), true),
        (json!({"NumericNotEquals": {"aws:EpochTime": 7}}), true),
        (json!({"Bool": {"aws:SecureTransport": "true"}}), false),
        (json!({"Null": {"aws:SourceArn": "true", "aws:PrincipalArn": false}}), true),
        (json!({"Null": {"aws:SourceArn": false}}), false),
        (json!({"StringEquals": {"aws:SourceAccount": "1"}}), false),
        (json!({"StringNotEquals": {"aws:SourceAccount": "1"}}), true),
        (json!({"StringEqualsIfExists": {"aws:SourceAccount": "1"}}), true),
        (json!({"StringEqualsIfExists": {"aws:PrincipalAccount": "1"}}), false),
        (json!({"StringEquals": {"lambda:EventSourceToken": "token"}}), false),
        (json!({"StringEquals": {"aws:RequestedRegion": "us-east-1", "aws:PrincipalType": "User"}}), true),
        (
            json!({"StringEquals": {"aws:RequestedRegion": "us-east-1", "aws:PrincipalType": "Anonymous"}}),
            false,
        ),
    ] {
        assert_eq!(world.holds(&condition), holds, "{condition}");
    }
}

#[test]
fn what_is_not_applied_is_refused_by_name() {
    let with = |name: &str, value: serde_json::Value| {
        let mut statement = allow(&json!("*"));
        statement[name] = value;
        refused(statement).to_string()
    };
    for (condition, text) in [
        (json!({"StringEquals": {"aws:PrincipalOrgID": "o-1"}}), "aws:PrincipalOrgID is not supported"),
        (json!({"StringEquals": {"aws:Sprockets": "1"}}), "the condition key aws:Sprockets"),
        (json!({"StringMatches": {"aws:SourceArn": "1"}}), "the condition operator StringMatches"),
        (json!({"ForAnyValue:StringEquals": {"aws:SourceArn": "1"}}), "ForAnyValue:StringEquals"),
        (json!({"NullIfExists": {"aws:SourceArn": true}}), "NullIfExists"),
        (json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}), "\"10.0.0.0/33\" of IpAddress"),
        (json!({"ArnLike": {"aws:SourceArn": "bucket"}}), "the pattern of an ARN"),
        (json!({"DateEquals": {"aws:CurrentTime": "tomorrow"}}), "is not a date"),
        (json!({"Bool": {"aws:SecureTransport": "maybe"}}), "is not true or false"),
        (json!({"StringLike": {"aws:SourceArn": "${aws:PrincipalArn}"}}), "the policy variable"),
        (json!({"StringLike": {"aws:SourceArn": []}}), "at least one text"),
        (json!([]), "Condition has to be an object"),
    ] {
        let told = with("Condition", condition.clone());
        assert!(told.contains(text), "{condition}: {told}");
    }
    assert!(with("NotPrincipal", json!("*")).contains("NotPrincipal"));
    assert!(with("Effect", json!("Maybe")).contains("Effect"));
    assert!(with("NotAction", json!("*")).contains("NotAction"));
    let mut lacking = allow(&json!("*"));
    lacking.as_object_mut().unwrap().remove("Principal");
    assert_eq!(refused(lacking).to_string(), "the statement \"s\" has no Principal");
    assert_eq!(
        Policy::of(&[allow(&json!("*")), allow(&json!("*"))]),
        Err(PolicyError::SameId("s".to_owned()))
    );
    for (text, told) in [
        ("{", "not JSON"),
        ("[]", "the policy has to be an object"),
        (r#"{"Statement": []}"#, "2008-10-17"),
        (r#"{"Version": "2012-10-17", "Statement": []}"#, "at least one statement"),
        (r#"{"Version": "2012-10-17", "Extra": 1}"#, "Extra"),
    ] {
        assert!(Policy::parse(text).unwrap_err().to_string().contains(told), "{text}");
    }
}

#[test]
fn a_policy_stays_with_its_resource() {
    let policy = |action: &str, resource: &str| {
        let statement = json!({"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource});
        Policy::of(&[statement]).unwrap().check_scope("lambda", FUNCTION)
    };
    assert!(policy("lambda:*", FUNCTION).is_ok() && policy("*", "*").is_ok());
    assert!(policy("s3:GetObject", FUNCTION).unwrap_err().to_string().contains("Action of statement 1"));
    assert!(policy("lambda:*", &format!("{FUNCTION}:1")).unwrap_err().to_string().contains("Resource"));
}

fn principal() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(json!("*")),
        Just(json!({"AWS": "111111111111"})),
        Just(json!({"AWS": ["222222222222", "arn:aws:iam::111111111111:user/ada"]})),
        Just(json!({"Service": "s3.amazonaws.com"})),
    ]
}

fn condition() -> impl Strategy<Value = serde_json::Value> {
    let operator = prop_oneof!["StringEquals", "StringNotEquals", "StringLike", "StringEqualsIfExists"];
    let key = prop_oneof!["aws:SourceAccount", "aws:PrincipalAccount", "lambda:FunctionUrlAuthType"];
    let value = prop_oneof!["111111111111", "NONE", "\\*"];
    (operator, key, value).prop_map(|(operator, key, value)| json!({operator: {key: value}}))
}

fn statement() -> impl Strategy<Value = serde_json::Value> {
    let action = prop_oneof!["lambda:InvokeFunction", "lambda:Get\\*", "\\*"];
    let resource =
        prop_oneof![Just(FUNCTION.to_owned()), Just("*".to_owned()), Just(format!("{FUNCTION}:1"))];
    (any::<bool>(), principal(), action, resource, proptest::option::of(condition())).prop_map(
        |(allow, principal, action, resource, condition)| {
            let effect = if allow { "Allow" } else { "Deny" };
            let mut statement =
                json!({"Effect": effect, "Principal": principal, "Action": action, "Resource": resource});
            if let Some(condition) = condition {
                statement["Condition"] = condition;
            }
            statement
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let account = prop_oneof!["111111111111", "222222222222"];
    let url = proptest::option::of(any::<bool>());
    (account, any::<bool>(), any::<bool>(), url, any::<bool>()).prop_map(
        |(account, service, anybody, url, own)| {
            let account = AccountId::new(account).unwrap();
            World {
                arn: format!("arn:aws:iam::{account}:user/ada"),
                service: service.then_some("s3.amazonaws.com"),
                source_account: own.then(|| account.clone()),
                account,
                anybody,
                url_signed: url,
                ..World::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn statements_count_whatever_their_order(
        statements in proptest::collection::vec(statement(), 0..6), world in world(), turn in 0_usize..6,
    ) {
        let judged = |statements: &[serde_json::Value]| world.judge(&Policy::of(statements).unwrap());
        let mut turned = statements.clone();
        turned.rotate_left(if statements.is_empty() { 0 } else { turn % statements.len() });
        prop_assert_eq!(judged(&statements), judged(&turned));
        // Each for itself: a denial anywhere denies, else a permission anywhere allows.
        let alone: Vec<Verdict> = statements.iter().map(|one| judged(std::slice::from_ref(one))).collect();
        let expected = [Verdict::Denied, Verdict::Allowed].into_iter().find(|wanted| alone.contains(wanted));
        prop_assert_eq!(judged(&statements), expected.unwrap_or(Verdict::Silent));
    }

    #[test]
    fn a_condition_never_widens_a_statement(mut one in statement(), more in condition(), world in world()) {
        let bare = {
            let mut bare = one.clone();
            bare.as_object_mut().unwrap().remove("Condition");
            world.judge(&Policy::of(&[bare]).unwrap())
        };
        one["Condition"] = more;
        let narrowed = world.judge(&Policy::of(&[one]).unwrap());
        prop_assert!(narrowed == bare || narrowed == Verdict::Silent);
    }

    #[test]
    fn an_operator_and_its_negation_are_opposites(world in world(), value in "[12]{12}") {
        for (one, other) in [("StringEquals", "StringNotEquals"), ("StringLike", "StringNotLike")] {
            let holds = |operator: &str| world.holds(&json!({operator: {"aws:PrincipalAccount": value}}));
            prop_assert_ne!(holds(one), holds(other));
        }
    }

    #[test]
    fn no_text_and_no_json_makes_it_panic(
        text in ".{0,200}",
        element in "(Effect|Principal|Action|Resource|Condition|Sid|NotAction)",
        value in prop_oneof![Just(json!(null)), Just(json!([])), Just(json!({"a": {"b": 1}})), Just(json!([[1]])), any::<u8>().prop_map(|n| json!(n))],
    ) {
        let _ = Policy::parse(&text);
        let mut statement = allow(&json!("*"));
        statement[element] = value;
        let _ = Policy::of(&[statement]);
    }
}
