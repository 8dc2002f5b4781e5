//! A store that keeps everything in memory: for tests. Its "stable storage" is the life of the [`Memory`] value.

mod topic;

use crate::blobs::{Blobs, Digest};
use crate::kv::{self, Change, Entry, Expect, KeyValue, Revision, Watch, Write};
use crate::log::{self, Lease, Leased, Log, Position, Record, Release, TopicState};
use crate::{Answer, Store, StoreError};
use bytes::Bytes;
use martlet_model::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use topic::Topic;

/// The disk of an in-memory store. [`Memory::open`] gives stores over it, and what they write stays in it.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Change>,
}

#[derive(Default)]
struct State {
    topics: HashMap<String, Topic>,
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Arc::default(), changes: broadcast::Sender::new(kv::WATCH_BACKLOG) }
    }
}

impl Memory {
    /// Opens the store as a process that starts would: leases end, all else is as it was.
    #[must_use]
    pub fn open(&self) -> Store {
        self.locked().topics.values_mut().for_each(Topic::end_leases);
        let provider = Arc::new(self.clone());
        Store { log: provider.clone(), kv: provider.clone(), blobs: provider }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that runs `action` on the state when it is polled.
    fn answer<T: Send + 'static>(
        &self,
        action: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<T> {
        let memory = self.clone();
        Box::pin(async move { action(&mut memory.locked()) })
    }

    /// An answer about one topic, made when it does not exist.
    fn on_topic<T: Send + 'static>(
        &self,
        topic: &str,
        action: impl FnOnce(&mut Topic) -> T + Send + 'static,
    ) -> Answer<T> {
        let topic = topic.to_owned();
        self.answer(move |state| {
            log::check_topic(&topic)?;
            Ok(action(state.topics.entry(topic).or_default()))
        })
    }
}

impl Log for Memory {
    fn append(&self, topic: &str, records: &[Bytes]) -> Answer<Position> {
        let (topic, records) = (topic.to_owned(), records.to_vec());
        self.answer(move |state| {
            log::check_append(&topic, &records)?;
            Ok(state.topics.entry(topic).or_default().append(&records))
        })
    }

    fn read(&self, topic: &str, from: Position, max: usize) -> Answer<Vec<Record>> {
        self.on_topic(topic, move |topic| topic.read(from, max))
    }

    fn lease(&self, topic: &str, max: usize, until: Timestamp, now: Timestamp) -> Answer<Vec<Leased>> {
        self.on_topic(topic, move |topic| topic.lease(max, until, now))
    }

    fn extend(&self, topic: &str, leases: &[Lease], until: Timestamp) -> Answer<Vec<Lease>> {
        let leases = leases.to_vec();
        self.on_topic(topic, move |topic| topic.extend(&leases, until))
    }

    fn acknowledge(&self, topic: &str, leases: &[Lease]) -> Answer<Vec<Lease>> {
        let leases = leases.to_vec();
        self.on_topic(topic, move |topic| topic.acknowledge(&leases))
    }

    fn release(&self, topic: &str, releases: &[Release]) -> Answer<Vec<Lease>> {
        let releases = releases.to_vec();
        self.on_topic(topic, move |topic| topic.release(&releases))
    }

    fn trim(&self, topic: &str, before: Position) -> Answer<()> {
        self.on_topic(topic, move |topic| topic.trim(before))
    }

    fn state(&self, topic: &str) -> Answer<TopicState> {
        self.on_topic(topic, |topic| topic.state())
    }
}

impl KeyValue for Memory {
    fn get(&self, key: &str) -> Answer<Option<Entry>> {
        let key = key.to_owned();
        self.answer(move |state| {
            kv::check_key(&key)?;
            Ok(state.entries.get(&key).cloned())
        })
    }

    fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Answer<Vec<(String, Entry)>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.answer(move |state| {
            let above = |key: &str| after.as_deref().is_none_or(|after| after < key);
            let from = state.entries.range(prefix.clone()..);
            let matching = from.take_while(|(key, _)| key.starts_with(&prefix)).filter(|(key, _)| above(key));
            Ok(matching.take(max).map(|(key, entry)| (key.clone(), entry.clone())).collect())
        })
    }

    fn put(&self, key: &str, value: Bytes, expect: Expect) -> Answer<Revision> {
        let batch = self.batch(vec![Write::Put { key: key.to_owned(), value, expect }]);
        Box::pin(async move { Ok(batch.await?[0]) })
    }

    fn delete(&self, key: &str, expect: Expect) -> Answer<bool> {
        let (memory, key) = (self.clone(), key.to_owned());
        Box::pin(async move {
            let mut state = memory.locked();
            let there = state.entries.contains_key(&key);
            state.batch(&[Write::Delete { key, expect }], &memory.changes)?;
            Ok(there)
        })
    }

    fn batch(&self, writes: Vec<Write>) -> Answer<Vec<Revision>> {
        let changes = self.changes.clone();
        self.answer(move |state| state.batch(&writes, &changes))
    }

    fn watch(&self, prefix: &str) -> Watch {
        Watch::new(prefix, self.changes.subscribe())
    }
}

impl State {
    fn batch(
        &mut self,
        writes: &[Write],
        changes: &broadcast::Sender<Change>,
    ) -> Result<Vec<Revision>, StoreError> {
        kv::check_batch(writes)?;
        for write in writes {
            let found = self.entries.get(write.key()).map(|entry| entry.revision);
            if !write.expect().met_by(found) {
                return Err(StoreError::Conflict {
                    key: write.key().to_owned(),
                    expected: write.expect(),
                    found,
                });
            }
        }
        let mut revisions = Vec::with_capacity(writes.len());
        for write in writes {
            let deleted = match write {
                Write::Put { key, value, .. } => {
                    self.revision += 1;
                    self.entries.insert(key.clone(), Entry { value: value.clone(), revision: self.revision });
                    Some(false)
                }
                Write::Delete { key, .. } if self.entries.remove(key).is_some() => {
                    self.revision += 1;
                    Some(true)
                }
                Write::Delete { .. } | Write::Check { .. } => None,
            };
            if let Some(deleted) = deleted {
                let change = Change { key: write.key().to_owned(), revision: self.revision, deleted };
                // Nobody watching is no error.
                changes.send(change).ok();
            }
            revisions.push(self.revision);
        }
        Ok(revisions)
    }
}

impl Blobs for Memory {
    fn put(&self, bytes: Bytes) -> Answer<Digest> {
        self.answer(move |state| {
            let digest = Digest::of(&bytes);
            state.blobs.insert(digest, bytes);
            Ok(digest)
        })
    }

    fn get(&self, digest: &Digest) -> Answer<Option<Bytes>> {
        let digest = *digest;
        self.answer(move |state| Ok(state.blobs.get(&digest).cloned()))
    }

    fn path(&self, _: &Digest) -> Answer<Option<PathBuf>> {
        self.answer(|_| Ok(None))
    }

    fn list(&self, after: Option<&Digest>, max: usize) -> Answer<Vec<Digest>> {
        let after = after.copied();
        self.answer(move |state| {
            Ok(state.blobs.keys().filter(|key| after < Some(**key)).take(max).copied().collect())
        })
    }

    fn delete(&self, digest: &Digest) -> Answer<bool> {
        let digest = *digest;
        self.answer(move |state| Ok(state.blobs.remove(&digest).is_some()))
    }
}
