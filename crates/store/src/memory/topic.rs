//! One topic as a plain state machine: the reference reading of the log contract.

use crate::log::{Lease, Leased, Position, Record, Release, TopicState};
use bytes::Bytes;
use martlet_model::Timestamp;
use std::collections::BTreeMap;

/// A record that has been leased at least once.
#[derive(Clone, Copy, Debug)]
struct Handed {
    attempt: u32,
    /// Hidden until then; 0 means visible.
    due: Timestamp,
    /// Whether lease `attempt` is still current.
    held: bool,
    /// What the last release noted.
    note: u32,
}

/// Records in order, split by `cursor`: those at or above it were never leased and are visible.
#[derive(Debug)]
pub(super) struct Topic {
    next: Position,
    cursor: Position,
    records: BTreeMap<Position, Bytes>,
    handed: BTreeMap<Position, Handed>,
}

impl Default for Topic {
    fn default() -> Self {
        Self { next: 1, cursor: 1, records: BTreeMap::new(), handed: BTreeMap::new() }
    }
}

impl Topic {
    pub(super) fn append(&mut self, records: &[Bytes]) -> Position {
        let first = self.next;
        for record in records {
            self.records.insert(self.next, record.clone());
            self.next += 1;
        }
        first
    }

    pub(super) fn read(&self, from: Position, max: usize) -> Vec<Record> {
        self.records
            .range(from..)
            .take(max)
            .map(|(position, payload)| Record { position: *position, payload: payload.clone() })
            .collect()
    }

    pub(super) fn lease(&mut self, max: usize, until: Timestamp, now: Timestamp) -> Vec<Leased> {
        for handed in self.handed.values_mut().filter(|handed| handed.due <= now) {
            handed.due = Timestamp(0);
        }
        let again = self.handed.iter().filter(|(_, handed)| handed.due == Timestamp(0)).map(|(at, _)| *at);
        let fresh = self.records.range(self.cursor..).map(|(at, _)| *at);
        let chosen: Vec<Position> = again.chain(fresh).take(max).collect();
        chosen
            .into_iter()
            .filter_map(|position| {
                let payload = self.records.get(&position)?.clone();
                let (attempt, note) =
                    self.handed.get(&position).map_or((0, 0), |handed| (handed.attempt, handed.note));
                let attempt = attempt.saturating_add(1);
                self.handed.insert(position, Handed { attempt, due: until, held: true, note });
                self.cursor = self.cursor.max(position + 1);
                Some(Leased { lease: Lease { position, attempt }, note, payload })
            })
            .collect()
    }

    /// The record of a lease that is current.
    fn current(&mut self, lease: &Lease) -> Option<&mut Handed> {
        self.handed.get_mut(&lease.position).filter(|handed| handed.held && handed.attempt == lease.attempt)
    }

    pub(super) fn extend(&mut self, leases: &[Lease], until: Timestamp) -> Vec<Lease> {
        let mut lost = leases.to_vec();
        lost.retain(|lease| self.current(lease).map(|handed| handed.due = until).is_none());
        lost
    }

    pub(super) fn acknowledge(&mut self, leases: &[Lease]) -> Vec<Lease> {
        let mut lost = leases.to_vec();
        lost.retain(|lease| {
            let current = self.current(lease).is_some();
            if current {
                self.handed.remove(&lease.position);
                self.records.remove(&lease.position);
            }
            !current
        });
        lost
    }

    pub(super) fn release(&mut self, releases: &[Release]) -> Vec<Lease> {
        let mut lost = Vec::new();
        for Release { lease, visible_at, note } in releases {
            match self.current(lease) {
                Some(handed) => (handed.due, handed.held, handed.note) = (*visible_at, false, *note),
                None => lost.push(*lease),
            }
        }
        lost
    }

    pub(super) fn trim(&mut self, before: Position) {
        let before = before.min(self.next);
        self.records = self.records.split_off(&before);
        self.handed = self.handed.split_off(&before);
        self.cursor = self.cursor.max(before);
    }

    pub(super) fn state(&self) -> TopicState {
        let fresh = self.records.range(self.cursor..).next().map(|_| Timestamp(0));
        let handed = self.handed.values().map(|handed| handed.due).min();
        TopicState {
            next: self.next,
            records: self.records.len() as u64,
            next_visible: fresh.into_iter().chain(handed).min(),
        }
    }

    /// What opening the store again does: every lease holder is gone.
    pub(super) fn end_leases(&mut self) {
        for handed in self.handed.values_mut().filter(|handed| handed.held) {
            handed.held = false;
            handed.due = Timestamp(0);
        }
    }
}
