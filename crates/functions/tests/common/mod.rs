//! What the tests of the registry share: a function to create, and waiting for a state without sleeping.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "these are tests, though the lint does not see it")]

use martlet_environment::Deployment;
use martlet_functions::package::Writer;
use martlet_functions::{Function, Functions, NewFunction, Observer, Settings, State, Update};
use martlet_model::{AccountId, Configuration, FunctionArn, FunctionName, Region, RuntimeName};
use martlet_store::{Memory, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Remembers what is current for each function, and wakes whoever waits for a change.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) current: Mutex<BTreeMap<FunctionArn, Vec<String>>>,
    changes: watch::Sender<u64>,
}

impl Observer for Watching {
    fn current(&self, function: &FunctionArn, current: &[Arc<Deployment>]) {
        let revisions = current.iter().map(|deployment| deployment.version.revision.clone()).collect();
        self.current.lock().unwrap().insert(function.clone(), revisions);
        self.changes.send_modify(|count| *count += 1);
    }
}

pub(crate) fn watching() -> Arc<Watching> {
    Arc::new(Watching { current: Mutex::default(), changes: watch::Sender::new(0) })
}

pub(crate) fn memory() -> Store {
    Memory::default().open()
}

pub(crate) struct Fixture {
    pub(crate) functions: Functions,
    pub(crate) watching: Arc<Watching>,
}

impl Fixture {
    pub(crate) async fn open(store: &Store, folder: &Path) -> Self {
        let watching = watching();
        let functions = Functions::open(store.clone(), folder, watching.clone()).await.unwrap();
        Self { functions, watching }
    }

    /// Waits until the function is as wanted; half a minute at most, so that a test fails rather than hangs.
    pub(crate) async fn until(
        &self,
        function: &FunctionArn,
        wanted: impl Fn(&Function) -> bool,
    ) -> Arc<Function> {
        let mut changes = self.watching.changes.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.functions.get(function).filter(|found| wanted(found)) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{function} is {:?}", self.functions.get(function)),
        }
    }

    pub(crate) async fn settled(&self, function: &FunctionArn) -> Arc<Function> {
        self.until(function, |found| {
            found.latest().state != State::Pending
                && found.latest().update != Some(Update::InProgress)
                && found.versions().all(|version| version.state != State::Pending)
        })
        .await
    }
}

pub(crate) fn arn(name: &str) -> FunctionArn {
    FunctionArn {
        region: Region::new("us-east-1").unwrap(),
        account: AccountId::new("000000000000").unwrap(),
        name: FunctionName::new(name).unwrap(),
    }
}

pub(crate) fn settings() -> Settings {
    let configuration = Configuration::new(RuntimeName::new("python3.12"), "handler.main");
    Settings { configuration, environment_given: false }
}

pub(crate) fn zip(content: &str) -> bytes::Bytes {
    let mut writer = Writer::new();
    writer.file("handler.py", false, content.as_bytes()).unwrap();
    writer.file("lib/more.py", false, b"").unwrap();
    writer.finish().unwrap().into()
}

pub(crate) fn new(name: &str, content: &str) -> NewFunction {
    NewFunction {
        function: arn(name),
        settings: settings(),
        zip: zip(content),
        tags: BTreeMap::new(),
        publish: false,
        code_signing: None,
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits until `true_now` says so, looking often, for half a minute at most.
pub(crate) async fn eventually(what: &str, mut true_now: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if true_now().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
