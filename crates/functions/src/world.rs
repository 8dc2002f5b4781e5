//! All functions at one moment, and the place where that moment is swapped.

use crate::function::Function;
use martlet_model::{AccountId, FunctionArn, FunctionName, Region};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

type Names = BTreeMap<FunctionName, Arc<Function>>;

/// Immutable once it is shown. Cloning copies the account and region maps, not the functions.
#[derive(Clone, Debug, Default)]
struct World {
    accounts: HashMap<AccountId, HashMap<Region, Arc<Names>>>,
}

/// The picture that readers see. Readers hold its lock for one clone of an `Arc`; writers take turns on another lock
/// and build the next picture outside of the readers' way.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    world: RwLock<Arc<World>>,
    turn: Mutex<()>,
}

/// What an account has in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many functions.
    pub functions: u64,
    /// Bytes of the zip files of all versions of all functions and layers.
    pub code_bytes: u64,
}

impl Shown {
    pub(crate) fn get(&self, function: &FunctionArn) -> Option<Arc<Function>> {
        self.names(&function.account, &function.region)?.get(&function.name).cloned()
    }

    /// The functions of one account in one region, by name.
    pub(crate) fn list(&self, account: &AccountId, region: &Region) -> Vec<Arc<Function>> {
        self.names(account, region).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn usage(&self, account: &AccountId, region: &Region) -> Usage {
        let mut usage = Usage::default();
        for function in self.names(account, region).iter().flat_map(|names| names.values()) {
            usage.functions += 1;
            usage.code_bytes += function.versions().map(|version| version.version.code.bytes).sum::<u64>();
        }
        usage
    }

    /// Every function of every account.
    pub(crate) fn all(&self) -> Vec<Arc<Function>> {
        let world = self.now();
        let names = world.accounts.values().flat_map(HashMap::values);
        names.flat_map(|names| names.values()).cloned().collect()
    }

    /// Replaces, adds or, given `None`, removes functions, all at once.
    pub(crate) fn set(&self, changes: impl IntoIterator<Item = (FunctionArn, Option<Arc<Function>>)>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = World::clone(&self.now());
        for (arn, function) in changes {
            let names = next.accounts.entry(arn.account).or_default().entry(arn.region).or_default();
            let names = Arc::make_mut(names);
            match function {
                Some(function) => drop(names.insert(arn.name, function)),
                None => drop(names.remove(&arn.name)),
            }
        }
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    fn names(&self, account: &AccountId, region: &Region) -> Option<Arc<Names>> {
        self.now().accounts.get(account)?.get(region).cloned()
    }

    fn now(&self) -> Arc<World> {
        Arc::clone(&self.world.read().unwrap_or_else(PoisonError::into_inner))
    }
}
