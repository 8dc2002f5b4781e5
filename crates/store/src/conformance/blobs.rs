//! The promises of the blob contract.

use super::{Disk, text};
use crate::{Digest, StoreError};
use bytes::Bytes;

#[allow(missing_docs, reason = "the names of the cases are the promises")]
mod cases {
    use super::*;

    pub async fn what_is_stored_is_read(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        for bytes in [Bytes::new(), text("hello"), Bytes::from(vec![0xa5; 3_000_000])] {
            let digest = blobs.put(bytes.clone()).await.expect("put");
            assert_eq!(digest, Digest::of(&bytes));
            assert_eq!(blobs.get(&digest).await.expect("get"), Some(bytes));
        }
        assert_eq!(blobs.get(&Digest::of(b"absent")).await.expect("get"), None);
    }

    pub async fn storing_twice_stores_once(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let blobs = blobs.clone();
                tokio::spawn(async move { blobs.put(text("same")).await.expect("put") })
            })
            .collect();
        for writer in writers {
            assert_eq!(writer.await.expect("no panic"), Digest::of(b"same"));
        }
        assert_eq!(blobs.list(None, 9).await.expect("list"), [Digest::of(b"same")]);
    }

    pub async fn paths_hold_the_bytes(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        let digest = blobs.put(text("in a file")).await.expect("put");
        if let Some(path) = blobs.path(&digest).await.expect("path") {
            assert_eq!(std::fs::read(path).expect("read"), b"in a file");
        }
        assert_eq!(blobs.path(&Digest::of(b"absent")).await.expect("path"), None);
    }

    pub async fn lists_page_in_order(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        let mut all = Vec::new();
        for number in 0..40 {
            all.push(blobs.put(text(&number.to_string())).await.expect("put"));
        }
        all.sort_unstable();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = blobs.list(after.as_ref(), 7).await.expect("list");
            assert!(page.len() <= 7);
            after = page.last().copied();
            paged.extend(page);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, all);
    }

    pub async fn deleted_blobs_are_gone(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        let digest = blobs.put(text("x")).await.expect("put");
        assert!(blobs.delete(&digest).await.expect("delete"));
        assert!(!blobs.delete(&digest).await.expect("delete"));
        assert_eq!(blobs.get(&digest).await.expect("get"), None);
        assert_eq!(blobs.path(&digest).await.expect("path"), None);
        blobs.put(text("x")).await.expect("put again");
        assert_eq!(blobs.get(&digest).await.expect("get"), Some(text("x")));
    }

    pub async fn blobs_survive_opening_again(disk: &impl Disk) {
        let digest = disk.open().blobs.put(text("kept")).await.expect("put");
        assert_eq!(disk.open().blobs.get(&digest).await.expect("get"), Some(text("kept")));
    }

    pub async fn damage_is_noticed(disk: &impl Disk) {
        let blobs = disk.open().blobs;
        let digest = blobs.put(text("sound")).await.expect("put");
        if disk.damage(&digest) {
            let damaged = blobs.get(&digest).await;
            assert!(matches!(damaged, Err(StoreError::Damaged { digest: found }) if found == digest));
        }
    }
}

pub use cases::*;
