//! Who else may use a version of a layer.

use martlet_model::{AccountId, limits};
use serde::{Deserialize, Serialize};

/// The policy of one version; all its statements allow one thing, to get the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPolicy {
    /// In the order in which they were added.
    pub statements: Vec<LayerStatement>,
    /// Changes with every change; empty before the first.
    pub revision_id: String,
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatement {
    /// Its name.
    pub id: String,
    /// Twelve digits, `*` or the ARN of an account's root.
    pub principal: String,
}

/// Why a policy does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerPolicyRefused {
    /// The revision id that the caller expects is not the present one.
    #[error("the revision id is another one")]
    Revision,
    /// There is a statement of this name already.
    #[error("the statement {0} exists already")]
    Exists(String),
    /// There is no statement of this name.
    #[error("the statement {0} does not exist")]
    NoSuchStatement(String),
    /// The document would be over [`limits::POLICY_BYTES`].
    #[error("the policy would be over {limit} bytes", limit = limits::POLICY_BYTES)]
    TooLong,
}

impl LayerPolicy {
    /// Whether a statement lets `account` get the version; its owner needs none.
    #[must_use]
    pub fn allows(&self, account: &AccountId) -> bool {
        let (account, root) = (account.as_str(), format!(":iam::{account}:root"));
        self.statements.iter().any(|statement| {
            let principal = &statement.principal;
            principal == "*" || principal == account || principal.ends_with(&root)
        })
    }

    pub(super) fn add(
        &self,
        statement: LayerStatement,
        revision_id: String,
    ) -> Result<Self, LayerPolicyRefused> {
        if self.statements.iter().any(|known| known.id == statement.id) {
            return Err(LayerPolicyRefused::Exists(statement.id));
        }
        let mut statements = self.statements.clone();
        statements.push(statement);
        // What each adds to the document beside its own words: member names, action, the version's ARN.
        const AROUND: usize = 300;
        let bytes: usize = statements.iter().map(|s| s.id.len() + s.principal.len() + AROUND).sum();
        if bytes > limits::POLICY_BYTES {
            Err(LayerPolicyRefused::TooLong)
        } else {
            Ok(Self { statements, revision_id })
        }
    }

    pub(super) fn remove(&self, id: &str, revision_id: String) -> Result<Self, LayerPolicyRefused> {
        let mut statements = self.statements.clone();
        statements.retain(|statement| statement.id != id);
        if statements.len() == self.statements.len() {
            return Err(LayerPolicyRefused::NoSuchStatement(id.to_owned()));
        }
        Ok(Self { statements, revision_id })
    }

    pub(super) fn check_revision(&self, expected: Option<&str>) -> Result<(), LayerPolicyRefused> {
        match expected {
            Some(expected) if expected != self.revision_id => Err(LayerPolicyRefused::Revision),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(id: &str, principal: &str) -> LayerStatement {
        LayerStatement { id: id.into(), principal: principal.into() }
    }

    #[test]
    fn statements_let_those_in_whom_they_name() {
        let account = |text: &str| AccountId::new(text).unwrap();
        let with = |principal| LayerPolicy::default().add(statement("s", principal), "r".into()).unwrap();
        assert!(!LayerPolicy::default().allows(&account("111111111111")));
        for principal in ["*", "111111111111", "arn:aws:iam::111111111111:root"] {
            assert!(with(principal).allows(&account("111111111111")), "{principal}");
        }
        assert!(!with("111111111111").allows(&account("222222222222")));
        assert!(!with("arn:aws:iam::111111111111:root").allows(&account("222222222222")));
    }

    #[test]
    fn names_are_used_once_and_documents_end_somewhere() {
        let one = LayerPolicy::default().add(statement("s", "*"), "1".into()).unwrap();
        assert_eq!(one.add(statement("s", "*"), "2".into()), Err(LayerPolicyRefused::Exists("s".into())));
        assert_eq!(one.remove("t", "2".into()), Err(LayerPolicyRefused::NoSuchStatement("t".into())));
        assert_eq!(one.remove("s", "2".into()).unwrap().statements, []);
        assert_eq!(one.check_revision(Some("0")), Err(LayerPolicyRefused::Revision));
        let mut many = one;
        let refused = (0..1000).find_map(|n| match many.add(statement(&n.to_string(), "*"), n.to_string()) {
            Ok(more) => {
                many = more;
                None
            }
            Err(refused) => Some(refused),
        });
        assert_eq!(refused, Some(LayerPolicyRefused::TooLong));
    }
}
