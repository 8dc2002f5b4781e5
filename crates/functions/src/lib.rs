//! The control plane's state: which functions and layers exist, in which versions, with which code.
//!
//! [`Functions`] keeps a record of each function in the key-value store, its zip file as a blob and its unpacked
//! package as a folder, and shows all of it as one immutable picture in memory. Reading, above all
//! [`Functions::resolve`] on the path of an invocation, touches that picture only. Whoever changes something writes
//! the records first and the picture second, so what is shown is on stable storage.
//!
//! Nothing here knows of HTTP, of callers' identities or of running functions; an [`Observer`] hears which versions
//! are current.

mod alias;
mod attached;
mod function;
mod held;
mod keep;
mod layers;
mod machine;
pub mod package;
mod packages;
mod parts;
mod policy;
mod provisioned;
mod record;
mod registry;
mod signing;
mod stored;
mod world;

pub use alias::{Alias, AliasSettings, Canary};
pub use attached::{Attached, Cors, EventInvoke, Policy, Provisioned, RuntimeManagement, Target, Url};
pub use function::Function;
pub use held::RuntimeOf;
pub use layers::{
    LayerAbout, LayerPolicy, LayerPolicyRefused, LayerStatement, LayerVersion, NewLayerVersion,
};
pub use machine::{Refused, Settings};
pub use packages::PackagesError;
pub use record::{Reason, State, Update, VersionRecord};
pub use registry::{CodeUpdate, Functions, FunctionsError, NewFunction, Observer, Publish, Unresolved};
pub use signing::SigningConfig;
pub use stored::OpenError;
pub use world::Usage;
