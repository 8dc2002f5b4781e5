//! Both providers against the suite, and against histories that proptest draws.

use crate::conformance::Disk;
use crate::conformance::history::{Step, play};
use crate::{Digest, Memory, Store, open_embedded};
use proptest::prelude::*;
use tempfile::TempDir;

struct MemoryDisk(Memory);

impl MemoryDisk {
    fn new() -> Self {
        Self(Memory::default())
    }
}

impl Disk for MemoryDisk {
    fn open(&self) -> Store {
        self.0.open()
    }

    fn damage(&self, _: &Digest) -> bool {
        false
    }
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

impl Disk for Directory {
    fn open(&self) -> Store {
        open_embedded(self.0.path()).expect("open")
    }

    fn damage(&self, digest: &Digest) -> bool {
        let name = digest.to_string();
        let path = self.0.path().join("blobs").join(&name[..2]).join(&name);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[0] ^= 1;
        std::fs::write(&path, bytes).expect("write");
        true
    }
}

mod memory {
    use super::*;
    crate::conformance_tests!(MemoryDisk::new);
}

mod embedded {
    use super::*;
    crate::conformance_tests!(Directory::new);
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(
        any::<(u64, u64)>().prop_map(|(kind, number)| Step::from_numbers(kind, number)),
        1..length,
    )
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn histories_in_memory_agree_with_the_model(steps in steps(80)) {
        let disk = MemoryDisk::new();
        run(play(|| disk.open(), &steps));
    }
}

proptest! {
    // Each case makes a database and waits for its disk, so there are few.
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn histories_on_disk_agree_with_the_model(steps in steps(60)) {
        let disk = Directory::new();
        run(play(|| disk.open(), &steps));
    }
}
