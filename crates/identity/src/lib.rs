//! Who is calling, and what resource policies say of that: Signature Version 4, verified and made; access keys and the file that holds
//! them; policies, read and asked.
//!
//! Nothing here does network I/O or reads a clock: the time is a parameter. Verification has two halves, so that a
//! request that cannot be right is refused before its body is read: [`Authenticator::precheck`] looks at the head,
//! [`Authenticator::verify`] at all of it.

mod canonical;
mod claim;
mod error;
mod key;
mod keyring;
mod policy;
mod presented;
mod sign;
mod time;
mod verify;

pub use claim::{Claim, MAX_EXPIRES, RequestHead};
pub use error::{AuthError, Spelling};
pub use keyring::{Credentials, Keyring, Principal, RandomError, Secret};
pub use policy::{Asked, Document, Facts, Policy, PolicyError, Verdict, Who};
pub use sign::{SignError, Signer};
pub use verify::{Authenticator, Caller, Mode, Payload};
