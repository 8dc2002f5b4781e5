//! Who is calling: Signature Version 4, verified and made; access keys and the file that holds them.
//!
//! Nothing here does network I/O or reads a clock: the time is a parameter. Verification has two halves, so that a
//! request that cannot be right is refused before its body is read: [`Authenticator::precheck`] looks at the head,
//! [`Authenticator::verify`] at all of it.

mod canonical;
mod claim;
mod error;
mod key;
mod keyring;
mod presented;
mod sign;
mod time;
mod verify;

pub use claim::{Claim, MAX_EXPIRES, RequestHead};
pub use error::{AuthError, Spelling};
pub use keyring::{Credentials, Keyring, Principal, RandomError, Secret};
pub use sign::{SignError, Signer};
pub use verify::{Authenticator, Caller, Mode, Payload};
