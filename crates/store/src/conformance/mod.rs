//! The suite that every provider passes.
//!
//! A provider hands over a [`Disk`] and gets one test a promise from [`conformance_tests!`](crate::conformance_tests):
//!
//! ```ignore
//! martlet_store::conformance_tests!(MyDisk::new);
//! ```

pub mod blobs;
pub mod history;
pub mod kv;
pub mod log;

use crate::{Lease, Release, Store, StoreError};
use bytes::Bytes;
use martlet_model::Timestamp;

/// State of a provider that outlives its stores, as a disk outlives processes. Each test gets a fresh one.
pub trait Disk {
    /// Opens a store over the state, as a process that starts would. The suite has dropped every earlier store of
    /// this disk by then.
    fn open(&self) -> Store;

    /// Changes one stored byte of the blob if the provider keeps it where a disk could do so; answers whether it did.
    fn damage(&self, digest: &crate::Digest) -> bool;
}

/// Makes a `#[test]` of every promise of the contracts, against the [`Disk`]s that the given function makes.
#[macro_export]
macro_rules! conformance_tests {
    ($new_disk:expr) => {
        $crate::conformance_tests! { @each $new_disk;
            log: positions_count_from_one_without_gaps, appends_of_many_callers_keep_their_own_order,
                reads_begin_and_end_where_asked, topics_do_not_mix, a_lease_hides_until_its_time,
                attempts_are_counted, only_the_current_lease_counts, a_late_holder_may_still_acknowledge,
                acknowledged_records_are_gone, released_records_wait_for_their_time,
                what_a_release_notes_is_told_to_the_next_holder, extended_leases_last_longer,
                trimming_removes_the_front, the_state_tells_when_to_look_again, opening_again_ends_leases,
                opening_again_keeps_delays_and_positions, wrong_arguments_are_refused, unknown_topics_are_empty,
                random_histories_agree_with_the_model;
            kv: what_is_put_is_got, revisions_only_grow, expectations_are_kept, deletions_answer_what_was_there,
                lists_are_ordered_and_bounded, batches_are_all_or_nothing, watchers_see_changes_in_order,
                slow_watchers_are_told, opening_again_keeps_entries_and_revisions, one_of_many_writers_wins,
                wrong_keys_and_values_are_refused;
            blobs: what_is_stored_is_read, storing_twice_stores_once, paths_hold_the_bytes, lists_page_in_order,
                deleted_blobs_are_gone, blobs_survive_opening_again, damage_is_noticed;
        }
    };
    (@each $new_disk:expr; $($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            #[allow(unused_imports, reason = "the disk may be named by a path or by a name in scope")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    let disk = $new_disk();
                    runtime.block_on($crate::conformance::$module::$case(&disk));
                }
            )+
        })+
    };
}

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn at(milliseconds: u64) -> Timestamp {
    Timestamp(milliseconds)
}

/// Appends one record a text.
async fn append(store: &Store, topic: &str, records: &[&str]) -> u64 {
    let records: Vec<Bytes> = records.iter().map(|record| text(record)).collect();
    store.log.append(topic, &records).await.expect("append")
}

/// Leases as `lease` does, reduced to `(position, attempt, payload)`.
async fn lease(store: &Store, topic: &str, max: usize, until: u64, now: u64) -> Vec<(Lease, String)> {
    let leased = store.log.lease(topic, max, at(until), at(now)).await.expect("lease");
    leased.into_iter().map(|leased| (leased.lease, lossy(&leased.payload))).collect()
}

/// Ends a lease of a record that is visible again from `visible_at` on; answers it when it was lost.
async fn release(store: &Store, topic: &str, lease: Lease, visible_at: u64, note: u32) -> Vec<Lease> {
    let release = Release { lease, visible_at: at(visible_at), note };
    store.log.release(topic, &[release]).await.expect("release")
}

/// The payloads from `from` on.
async fn read(store: &Store, topic: &str, from: u64) -> Vec<String> {
    let records = store.log.read(topic, from, usize::MAX).await.expect("read");
    records.iter().map(|record| lossy(&record.payload)).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_invalid<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Invalid { .. }))
}

fn is_too_large<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::TooLarge { .. }))
}
