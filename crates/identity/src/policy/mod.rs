//! Resource policies: what a document attached to a resource says of one request. Pure: the time and the caller are parameters.
//!
//! A document is read once, with everything in it understood or refused by name, so that none is kept that would mean something else
//! here than it says.

mod condition;
mod facts;
mod glob;
#[cfg(test)]
mod properties;
mod statement;

pub use facts::{Asked, Facts, Who};

use serde_json::Value;
use statement::Statement;

/// A resource policy, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it, whatever others allow.
    Denied,
    /// No statement is about it.
    Silent,
}

/// Why a policy is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is no JSON.
    #[error("the policy is not JSON: {0}")]
    Json(String),
    /// Something in it has another form than policies have.
    #[error("{element} has to be {wanted}")]
    Form {
        /// Where it stands.
        element: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// It is written in another version of the policy language.
    #[error("the policy's Version is {0:?}; only \"2012-10-17\" is supported")]
    Version(String),
    /// The policy language has no such element, or this server does not apply it.
    #[error("the element {0} is not supported in a resource policy")]
    Element(String),
    /// The same id twice.
    #[error("two statements have the Sid {0:?}; each needs one of its own")]
    SameId(String),
    /// A statement without something that it needs.
    #[error("{statement} has no {missing}")]
    Incomplete {
        /// Which one.
        statement: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// Whom nobody can be.
    #[error(
        "{0} is no principal here: it takes \"*\", an account id, the ARN of an account, user or role, or a service such as \
         s3.amazonaws.com"
    )]
    Principal(String),
    /// A comparison that is not built.
    #[error("the condition operator {0} is not supported")]
    Operator(String),
    /// A fact that no request has here.
    #[error("the condition key {0} is not supported: no request has it here")]
    Key(String),
    /// The accounts of an organization are not known.
    #[error("the condition key aws:PrincipalOrgID is not supported: there are no organizations here")]
    Organization,
    /// What a condition compares with cannot be compared so.
    #[error("the value {value:?} of {operator} is not {wanted}")]
    Operand {
        /// The comparison.
        operator: String,
        /// The value.
        value: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// Values that depend on the request.
    #[error("the policy variable in {0:?} is not supported")]
    Variable(String),
}

impl Policy {
    /// Reads a document: `{"Version": "2012-10-17", "Statement": [...]}`.
    ///
    /// # Errors
    /// The first thing in it that is wrong or that is not applied.
    pub fn parse(text: &str) -> Result<(Self, Document), PolicyError> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| PolicyError::Json(error.to_string()))?;
        let Value::Object(members) = document else { return Err(form("the policy", "an object")) };
        let mut found = Document::default();
        let mut version = None;
        for (name, value) in members {
            match (name.as_str(), value) {
                ("Version", Value::String(text)) => version = Some(text),
                ("Version", _) => return Err(form("Version", "text")),
                ("Id", Value::String(text)) => found.id = Some(text),
                ("Id", _) => return Err(form("Id", "text")),
                ("Statement", Value::Array(statements)) => found.statements = statements,
                ("Statement", one @ Value::Object(_)) => found.statements = vec![one],
                ("Statement", _) => return Err(form("Statement", "a list of statements")),
                _ => return Err(PolicyError::Element(name)),
            }
        }
        // Without a version it is the older language's, whose texts mean other things.
        match version.as_deref() {
            Some("2012-10-17") => {}
            other => return Err(PolicyError::Version(other.unwrap_or("2008-10-17").to_owned())),
        }
        if found.statements.is_empty() {
            return Err(form("Statement", "a list of at least one statement"));
        }
        Ok((Self::of(&found.statements)?, found))
    }

    /// The policy that `statements` make together.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn of(statements: &[Value]) -> Result<Self, PolicyError> {
        let statements: Vec<Statement> = statements
            .iter()
            .enumerate()
            .map(|(at, statement)| Statement::read(at, statement))
            .collect::<Result<_, _>>()?;
        for (at, statement) in statements.iter().enumerate() {
            let same = |other: &Statement| other.id.is_some() && other.id == statement.id;
            if let Some(id) = statement.id.as_ref().filter(|_| statements[..at].iter().any(same)) {
                return Err(PolicyError::SameId(id.clone()));
            }
        }
        Ok(Self { statements })
    }

    /// The policy that denies everything to everybody.
    #[must_use]
    pub fn denying() -> Self {
        Self { statements: vec![Statement::denying()] }
    }

    /// What the policy says of `asked`: a denial counts more than any number of permissions.
    #[must_use]
    pub fn judge(&self, asked: &Asked<'_>) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in self.statements.iter().filter(|statement| statement.is_about(asked)) {
            if !statement.allows {
                return Verdict::Denied;
            }
            verdict = Verdict::Allowed;
        }
        verdict
    }

    /// Whether every statement can be about `resource`, and about actions of `service` only.
    ///
    /// # Errors
    /// The statement that cannot, and why.
    pub fn check_scope(&self, service: &str, resource: &str) -> Result<(), PolicyError> {
        self.statements.iter().enumerate().try_for_each(|(at, statement)| {
            statement.check_scope(service, resource).map_err(|element| PolicyError::Form {
                element: format!("{element} of {}", statement.name(at)),
                wanted: "about the resource that the policy is attached to",
            })
        })
    }
}

/// A policy as its author wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Its own id.
    pub id: Option<String>,
    /// Its statements.
    pub statements: Vec<Value>,
}

fn form(element: &str, wanted: &'static str) -> PolicyError {
    PolicyError::Form { element: element.to_owned(), wanted }
}

/// Text, or a list of texts: what most elements of a policy take. Numbers and truth values are taken as their texts.
fn texts(element: &str, value: &Value) -> Result<Vec<String>, PolicyError> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => Err(form(element, "text or a list of texts")),
    };
    let texts = match value {
        Value::Array(values) if values.is_empty() => Err(form(element, "at least one text")),
        Value::Array(values) => values.iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }?;
    match texts.iter().find(|text| text.contains("${")) {
        Some(variable) => Err(PolicyError::Variable(variable.clone())),
        None => Ok(texts),
    }
}
