//! Which function URLs there are.

use martlet_functions::{Function, Url};
use martlet_model::{FunctionArn, Qualifier};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// One function URL, with what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The function.
    pub function: FunctionArn,
    /// Its version or alias; `None` for the function itself.
    pub qualifier: Option<Qualifier>,
    /// How it is set up.
    pub url: Url,
}

/// All function URLs, by the id in their host names. Kept up to date by whoever hears of changes to functions.
#[derive(Debug, Default)]
pub struct UrlIndex(RwLock<HashMap<String, Arc<Endpoint>>>);

impl UrlIndex {
    /// What is attached to `function` has changed; `None` when it is gone.
    pub fn attached(&self, function: &FunctionArn, picture: Option<&Function>) {
        let urls = picture.into_iter().flat_map(|picture| &picture.attached().urls);
        let endpoints = urls.map(|(target, url)| Endpoint {
            function: function.clone(),
            qualifier: target.qualifier(),
            url: url.clone(),
        });
        self.replace(function, endpoints);
    }

    fn replace(&self, function: &FunctionArn, endpoints: impl Iterator<Item = Endpoint>) {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        index.retain(|_, endpoint| endpoint.function != *function);
        index.extend(endpoints.map(|endpoint| (endpoint.url.id.clone(), Arc::new(endpoint))));
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Endpoint>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).map(Arc::clone)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use martlet_model::{AccountId, FunctionName, Region, Timestamp};

    pub(crate) fn endpoint(name: &str, id: &str) -> Endpoint {
        Endpoint {
            function: FunctionArn {
                region: Region::new("us-east-1").unwrap(),
                account: AccountId::new("000000000000").unwrap(),
                name: FunctionName::new(name).unwrap(),
            },
            qualifier: None,
            url: Url {
                id: id.into(),
                signed: false,
                streams: false,
                cors: None,
                created: Timestamp(0),
                modified: Timestamp(0),
            },
        }
    }

    #[test]
    fn a_function_brings_and_takes_its_own_urls() {
        let index = UrlIndex::default();
        let (f, g) = (endpoint("f", "one"), endpoint("g", "two"));
        index.replace(&f.function, [f.clone()].into_iter());
        index.replace(&g.function, [g.clone()].into_iter());
        assert_eq!(index.find("one").as_deref(), Some(&f));
        index.replace(&f.function, [endpoint("f", "three")].into_iter());
        assert_eq!((index.find("one"), index.find("three").is_some()), (None, true));
        index.attached(&f.function, None);
        assert_eq!((index.find("three"), index.find("two").is_some()), (None, true));
    }
}
