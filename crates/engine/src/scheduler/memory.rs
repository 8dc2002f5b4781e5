//! The memory budget, and in which order things make room in it.

use super::{EnvironmentId, TemplateId};
use std::collections::BTreeSet;

/// What can make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Environment(EnvironmentId),
    Template(TemplateId),
}

/// Bytes that are promised, and who would be missed least.
///
/// The order is greedy-dual with frequency: a holder's **rank** is what it saves a second and byte (calls a second, times
/// what a start costs, divided by its size) on top of the **level**, the rank of what was evicted last. So what saves
/// much stays longest, and what was not used for long sinks below everything, whatever it once saved.
///
/// Entries are corrected when they come up, not when they change: going to work and back costs no walk through the order.
#[derive(Debug)]
pub(super) struct Memory {
    limit: u64,
    reserved: u64,
    /// Held by what is idle, templates included: what evicting everything would free at most.
    idle: u64,
    order: BTreeSet<(u64, Holder)>,
    level: f64,
}

/// A rank as an integer of the same order; ranks are never negative.
fn bits(rank: f64) -> u64 {
    rank.max(0.0).to_bits()
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, reserved: 0, idle: 0, order: BTreeSet::new(), level: 0.0 }
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Whether `bytes` fit as things are.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.reserved.saturating_add(bytes) <= self.limit
    }

    /// Whether `bytes` could fit if all that is idle went.
    pub(super) fn could_fit(&self, bytes: u64) -> bool {
        (self.reserved - self.idle).saturating_add(bytes) <= self.limit
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.reserved += bytes;
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved -= bytes;
    }

    /// Something that held `from` bytes at work holds `to` bytes now that it is idle.
    pub(super) fn rest(&mut self, from: u64, to: u64) {
        self.reserved = self.reserved - from + to;
        self.idle += to;
    }

    /// Something idle that held `from` bytes holds `to` bytes at work.
    pub(super) fn work(&mut self, from: u64, to: u64) {
        self.idle -= from;
        self.reserved = self.reserved - from + to;
    }

    /// The rank of something that saves `saved_micros` a second by holding `bytes`.
    pub(super) fn rank(&self, saved_micros: f64, bytes: u64) -> f64 {
        self.level + saved_micros / (bytes.max(1) as f64 / f64::from(1 << 20))
    }

    /// Puts a holder that is not in the order there.
    pub(super) fn enter(&mut self, rank: f64, holder: Holder) {
        self.order.insert((bits(rank), holder));
    }

    /// Takes out a holder that is in the order with `rank`.
    pub(super) fn leave(&mut self, rank: f64, holder: Holder) {
        self.order.remove(&(bits(rank), holder));
    }

    /// The holder that is missed least if its rank is below `ceiling`; it is out of the order then.
    pub(super) fn lowest(&mut self, ceiling: f64) -> Option<Holder> {
        let (rank, holder) = *self.order.first()?;
        if rank >= bits(ceiling) {
            return None;
        }
        self.order.pop_first();
        Some(holder)
    }

    /// A holder of `rank` was evicted.
    pub(super) fn evicted(&mut self, rank: f64) {
        self.level = self.level.max(rank);
    }
}
