//! Statements: whom, what and under which conditions a policy allows or denies.

use super::condition::Condition;
use super::facts::{Asked, Who};
use super::{PolicyError, form, glob, texts};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) id: Option<String>,
    pub(super) allows: bool,
    principals: Vec<Principal>,
    actions: Names,
    resources: Names,
    conditions: Vec<Condition>,
}

/// Whom a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    /// Everybody, signed or not, and services.
    Everybody,
    /// Everybody of an account.
    Account(String),
    /// One user or role.
    Arn(String),
    Service(String),
}

/// Patterns of actions or resources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    patterns: Vec<String>,
    /// Whether all others are meant.
    others: bool,
    /// Whether case does not matter.
    fold: bool,
}

impl Statement {
    /// `at` is its place in the policy, for messages.
    pub(super) fn read(at: usize, value: &Value) -> Result<Self, PolicyError> {
        let Value::Object(members) = value else {
            return Err(form(&format!("statement {}", at + 1), "an object"));
        };
        let (mut id, mut allows, mut principals) = (None, None, None);
        let (mut actions, mut resources, mut conditions) = (None, None, Vec::new());
        for (name, value) in members {
            let names = |others| texts(name, value).map(|patterns| Names { patterns, others, fold: false });
            match (name.as_str(), value) {
                ("Sid", Value::String(text)) => id = Some(text.clone()),
                ("Sid", _) => return Err(form("Sid", "text")),
                ("Effect", value) => {
                    allows = Some(match value.as_str() {
                        Some("Allow") => true,
                        Some("Deny") => false,
                        _ => return Err(form("Effect", "\"Allow\" or \"Deny\"")),
                    });
                }
                ("Principal", value) => principals = Some(Principal::read_all(value)?),
                ("Action" | "NotAction", _) if actions.is_some() => {
                    return Err(form("NotAction", "there without Action"));
                }
                ("Resource" | "NotResource", _) if resources.is_some() => {
                    return Err(form("NotResource", "there without Resource"));
                }
                ("Action", _) => actions = Some(Names { fold: true, ..names(false)? }),
                ("NotAction", _) => actions = Some(Names { fold: true, ..names(true)? }),
                ("Resource", _) => resources = Some(names(false)?),
                ("NotResource", _) => resources = Some(names(true)?),
                ("Condition", value) => conditions = Condition::read_all(value)?,
                _ => return Err(PolicyError::Element(name.clone())),
            }
        }
        let statement = name_of(id.as_deref(), at);
        let incomplete = |missing| PolicyError::Incomplete { statement: statement.clone(), missing };
        Ok(Self {
            allows: allows.ok_or_else(|| incomplete("Effect"))?,
            principals: principals.ok_or_else(|| incomplete("Principal"))?,
            actions: actions.ok_or_else(|| incomplete("Action"))?,
            resources: resources.ok_or_else(|| incomplete("Resource"))?,
            conditions,
            id,
        })
    }

    /// Denies everything to everybody.
    pub(super) fn denying() -> Self {
        let all = || Names { patterns: vec!["*".to_owned()], others: false, fold: false };
        Self {
            id: None,
            allows: false,
            principals: vec![Principal::Everybody],
            actions: all(),
            resources: all(),
            conditions: Vec::new(),
        }
    }

    /// How messages name it.
    pub(super) fn name(&self, at: usize) -> String {
        name_of(self.id.as_deref(), at)
    }

    pub(super) fn is_about(&self, asked: &Asked<'_>) -> bool {
        self.principals.iter().any(|principal| principal.is(&asked.who))
            && self.actions.have(asked.action)
            && self.resources.have(asked.resource)
            && self.conditions.iter().all(|condition| condition.holds(asked))
    }

    /// The element that leads out of `service` or past `resource`.
    pub(super) fn check_scope(&self, service: &str, resource: &str) -> Result<(), &'static str> {
        let own = |action: &String| {
            action == "*" || action.split_once(':').is_some_and(|(of, _)| of.eq_ignore_ascii_case(service))
        };
        if !self.actions.patterns.iter().all(own) {
            return Err("Action");
        }
        let about = |pattern: &String| glob::matches(pattern, resource, false);
        if self.resources.others || self.resources.patterns.iter().all(about) {
            Ok(())
        } else {
            Err("Resource")
        }
    }
}

impl Principal {
    fn read_all(value: &Value) -> Result<Vec<Self>, PolicyError> {
        let Value::Object(kinds) = value else {
            return match value.as_str() {
                Some("*") => Ok(vec![Self::Everybody]),
                _ => Err(PolicyError::Principal(value.to_string())),
            };
        };
        let mut principals = Vec::new();
        for (kind, value) in kinds {
            for text in texts("Principal", value)? {
                let principal = match kind.as_str() {
                    "AWS" => Self::of_iam(&text),
                    "Service" => is_service(&text).then(|| Self::Service(text.clone())),
                    _ => return Err(PolicyError::Principal(kind.clone())),
                };
                principals.push(principal.ok_or(PolicyError::Principal(text))?);
            }
        }
        Ok(principals)
    }

    fn of_iam(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everybody);
        }
        let is_account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_account(text) {
            return Some(Self::Account(text.to_owned()));
        }
        let mut parts = text.splitn(6, ':');
        let head = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let (account, rest) = (parts.next()?, parts.next()?);
        let known = matches!(head, ["arn", partition, "iam" | "sts", ""] if partition.starts_with("aws"));
        if !known || !is_account(account) || rest.contains(['*', '?']) {
            return None;
        }
        match rest.split_once('/') {
            None if rest == "root" => Some(Self::Account(account.to_owned())),
            Some(("user" | "role" | "assumed-role", name)) if !name.is_empty() => {
                Some(Self::Arn(text.to_owned()))
            }
            _ => None,
        }
    }

    fn is(&self, who: &Who<'_>) -> bool {
        match (self, who) {
            (Self::Everybody, _) => true,
            (Self::Account(account), Who::Signed { account: of, .. }) => account == of.as_str(),
            (Self::Arn(arn), Who::Signed { arn: of, .. }) => arn == of,
            (Self::Service(name), Who::Service(of)) => name == of,
            _ => false,
        }
    }
}

impl Names {
    fn have(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| glob::matches(pattern, name, self.fold)) != self.others
    }
}

fn name_of(id: Option<&str>, at: usize) -> String {
    match id {
        Some(id) => format!("the statement {id:?}"),
        None => format!("statement {}", at + 1),
    }
}

/// The form of a service's name: a label or more below one of AWS's domains.
fn is_service(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    [".amazonaws.com", ".amazonaws.com.cn", ".amazon.com"]
        .iter()
        .any(|domain| text.strip_suffix(domain).is_some_and(|labels| labels.split('.').all(label)))
}
