//! Changes of resource policies.

use crate::attached::{Policy, Target};
use crate::function::Function;
use crate::machine::{self, Refused};
use crate::registry::{Functions, FunctionsError, stamp};
use martlet_model::{FunctionArn, Qualifier};
use std::sync::Arc;

impl Functions {
    /// Edits the policy of a function, a version or an alias; `edit` leaves `None` to have none. What it is attached to gets another
    /// revision id, which is the policy's as well. Nothing changes where `edit` refuses.
    ///
    /// # Errors
    /// See [`FunctionsError`]: among others, what the qualifier names is not there, or has not the revision that the caller expects.
    pub async fn edit_policy<E: Send + 'static>(
        &self,
        function: &FunctionArn,
        qualifier: Option<&Qualifier>,
        expected_revision: Option<String>,
        edit: impl FnOnce(&mut Option<Policy>) -> Result<(), E> + Send + 'static,
    ) -> Result<Result<Arc<Function>, E>, FunctionsError> {
        let (arn, target) = (function.clone(), Target::of(qualifier));
        self.detached(|functions| async move {
            let _turn = functions.turn(&arn).await;
            let now = functions.find(&arn)?;
            let revision = machine::revision_of(&now.snapshot, &target);
            let mut policy = now.attached().policies.get(&target).cloned();
            if let (Some(expected), Some(revision)) = (&expected_revision, revision)
                && expected != revision
            {
                return Err(Refused::Revision.into());
            }
            if let Err(refused) = edit(&mut policy) {
                return Ok(Err(refused));
            }
            let change = machine::put_policy(&now.snapshot, &target, policy, &stamp()?)?;
            functions.commit(&arn, Some(&now), change).await.map(Ok)
        })
        .await
    }
}
