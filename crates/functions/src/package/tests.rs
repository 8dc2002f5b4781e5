//! Archives of every wrong kind, each refused for its own reason, and good ones unpacked as Lambda does.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// One entry with every field open to lies. [`Raw::file`] is an honest one.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    local_name: Vec<u8>,
    mode: u32,
    flags: u16,
    method: u16,
    local_method: u16,
    crc: u32,
    unpacked: u32,
    packed: u32,
    data: Vec<u8>,
    extra: Vec<u8>,
    /// Said to begin at another entry's header.
    offset: Option<u32>,
}

impl Raw {
    fn file(name: &str, content: &[u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        Self {
            name: name.into(),
            local_name: name.into(),
            mode: 0o100_644,
            flags: 0,
            method: 0,
            local_method: 0,
            crc: crc.sum(),
            unpacked: content.len() as u32,
            packed: content.len() as u32,
            data: content.to_vec(),
            extra: vec![],
            offset: None,
        }
    }

    fn of_mode(name: &str, mode: u32, content: &[u8]) -> Self {
        Self { mode, ..Self::file(name, content) }
    }

    fn deflated(name: &str, content: &[u8], deflated: Vec<u8>) -> Self {
        Self {
            method: 8,
            local_method: 8,
            packed: deflated.len() as u32,
            data: deflated,
            ..Self::file(name, content)
        }
    }
}

fn zip_of(entries: &[Raw]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = bytes.len() as u32;
        bytes.extend_from_slice(b"PK\x03\x04\x14\0");
        bytes.extend_from_slice(&entry.flags.to_le_bytes());
        bytes.extend_from_slice(&entry.local_method.to_le_bytes());
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&(entry.local_name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&entry.local_name);
        bytes.extend_from_slice(&entry.data);
        directory.extend_from_slice(b"PK\x01\x02\x14\x03\x14\0");
        directory.extend_from_slice(&entry.flags.to_le_bytes());
        directory.extend_from_slice(&entry.method.to_le_bytes());
        directory.extend_from_slice(&[0; 4]);
        for number in [entry.crc, entry.packed, entry.unpacked] {
            directory.extend_from_slice(&number.to_le_bytes());
        }
        for length in [entry.name.len(), entry.extra.len(), 0, 0, 0] {
            directory.extend_from_slice(&(length as u16).to_le_bytes());
        }
        directory.extend_from_slice(&(entry.mode << 16).to_le_bytes());
        directory.extend_from_slice(&entry.offset.unwrap_or(offset).to_le_bytes());
        directory.extend_from_slice(&entry.name);
        directory.extend_from_slice(&entry.extra);
    }
    let (start, size, count) = (bytes.len() as u32, directory.len() as u32, entries.len() as u16);
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(&end_record(count, size, start, b""));
    bytes
}

fn end_record(count: u16, size: u32, start: u32, comment: &[u8]) -> Vec<u8> {
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    for number in [count, count] {
        end.extend_from_slice(&number.to_le_bytes());
    }
    for number in [size, start] {
        end.extend_from_slice(&number.to_le_bytes());
    }
    end.extend_from_slice(&(comment.len() as u16).to_le_bytes());
    end.extend_from_slice(comment);
    end
}

fn deflate(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn refusal(entries: &[Raw]) -> String {
    refusal_of(&zip_of(entries))
}

/// What `check` says, after seeing that `unpack` says the same.
fn refusal_of(zip: &[u8]) -> String {
    let refused = check(zip).expect_err("this archive must be refused");
    let folder = tempfile::tempdir().unwrap();
    match unpack(zip, folder.path()) {
        Err(UnpackError::Refused(same)) => assert_eq!(same, refused),
        other => panic!("check refused it ({refused}), unpack said {other:?}"),
    }
    refused.to_string()
}

/// Every path below `root` with its mode, size and, for a link, its target.
fn listing(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            assert_eq!(meta.mtime(), 315_532_800, "{path:?}");
            let mode = meta.permissions().mode() & 0o7777;
            let told = if meta.is_dir() {
                walk(root, &path, found);
                format!("folder {mode:o}")
            } else if meta.is_symlink() {
                format!("link {}", path.read_link().unwrap().display())
            } else {
                format!("file {mode:o} {}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()))
            };
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), told);
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn unpacked(zip: &[u8]) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let summary = unpack(zip, folder.path()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(check(zip), Ok(summary));
    listing(folder.path())
}

#[test]
fn a_package_comes_out_as_lambda_shows_it() {
    let mut writer = Writer::new();
    writer.file("handler.py", false, b"def handler(): pass").unwrap();
    writer.file("bin/tool", true, &b"x".repeat(9)).unwrap();
    writer.folder("empty").unwrap();
    writer.link("bin/alias", "tool").unwrap();
    writer.link("up", "bin/../handler.py").unwrap();
    let found = unpacked(&writer.finish().unwrap());
    let expected = [
        ("bin", "folder 755"),
        ("bin/alias", "link tool"),
        ("bin/tool", "file 755 xxxxxxxxx"),
        ("empty", "folder 755"),
        ("handler.py", "file 644 def handler(): pass"),
        ("up", "link bin/../handler.py"),
    ];
    assert_eq!(found, expected.map(|(path, told)| (path.to_owned(), told.to_owned())).into());
}

#[test]
fn modes_keep_nothing_but_the_execute_bit() {
    let zip = zip_of(&[
        Raw::of_mode("setuid", 0o106_755, b"1"),
        Raw::of_mode("secret", 0o100_600, b"2"),
        Raw::of_mode("dos", 0, b"3"),
        Raw::of_mode("sticky/", 0o041_777, b""),
        Raw::of_mode("no-slash", 0o040_700, b""),
    ]);
    let found = unpacked(&zip);
    assert_eq!(found["setuid"], "file 755 1");
    assert_eq!(found["secret"], "file 644 2");
    assert_eq!(found["dos"], "file 644 3");
    assert_eq!(found["sticky"], "folder 755");
    assert_eq!(found["no-slash"], "folder 755");
}

#[test]
fn harmless_spellings_of_names_are_taken() {
    let zip = zip_of(&[
        Raw::file("./", b""),
        Raw::file("./a//b/./c.py", b"1"),
        Raw::file("a/b/", b""),
        Raw::file("a/b/", b""),
        Raw::file("grüße.txt", b"2"),
        Raw::file("a/..b", b"3"),
        Raw::file("case", b"4"),
        Raw::file("Case", b"5"),
    ]);
    let found = unpacked(&zip);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["Case", "a", "a/..b", "a/b", "a/b/c.py", "case", "grüße.txt"]
    );
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = "x".repeat(256);
    let longer = "y".repeat(200) + &"/y".repeat(600);
    let deep = "y/".repeat(101) + "y";
    for (name, why) in [
        ("/etc/passwd", "absolute"),
        ("C:/windows", "absolute"),
        ("c:windows", "absolute"),
        ("../x", "climbs"),
        ("a/../../x", "climbs"),
        ("a/..", "climbs"),
        ("a\\..\\x", "backslash"),
        ("a\0b", "NUL"),
        ("", "empty or too long"),
        (".", "empty or too long"),
        (long.as_str(), "empty or too long"),
        (longer.as_str(), "empty or too long"),
        (deep.as_str(), "more than 100 folders"),
    ] {
        let said = refusal(&[Raw::file(name, b"x")]);
        assert!(said.contains(why), "{name:?}: {said}");
    }
    let raw = Raw { name: b"\xff\xfe".to_vec(), local_name: b"\xff\xfe".to_vec(), ..Raw::file("", b"") };
    assert!(refusal(&[raw]).contains("UTF-8"));
}

#[test]
fn names_that_meet_are_refused() {
    let file = |name| Raw::file(name, b"x");
    assert!(refusal(&[file("a"), file("a")]).contains("twice"));
    assert!(refusal(&[file("a"), file("./a")]).contains("twice"));
    assert!(refusal(&[file("a"), file("a/b")]).contains("both a file and a folder"));
    assert!(refusal(&[file("a/b"), file("a")]).contains("both a file and a folder"));
    let link = Raw::of_mode("l", 0o120_777, b"a");
    assert!(refusal(&[link.clone(), file("l")]).contains("twice"));
    assert!(refusal(&[file("a/b"), link, file("l/b")]).contains("both a file and a folder"));
}

#[test]
fn links_stay_inside() {
    let link = |name: &str, target: &str| Raw::of_mode(name, 0o120_777, target.as_bytes());
    let good = [
        link("a/b/up", "../.."),
        link("dangling", "nowhere/at/all"),
        link("chain", "a/b/up/a"),
        link("self", "."),
    ];
    assert_eq!(unpacked(&zip_of(&good)).len(), 6);

    for (target, why) in [
        ("/etc/passwd", "not a relative path"),
        ("", "not a relative path"),
        ("a\0b", "not a relative path"),
        ("..", "leads out"),
        ("x/../..", "leads out"),
        ("./../../etc", "leads out"),
        ("l", "circles"),
    ] {
        let said = refusal(&[link("l", target)]);
        assert!(said.contains(why), "{target:?}: {said}");
    }
    // By its letters d/e/x; in truth, through the first link, one above the root.
    let chained = [link("d/e/a", "../.."), link("b", "d/e/a/../x")];
    assert!(refusal(&chained).contains("leads out"));
    assert!(refusal(&[link("a", "b"), link("b", "a")]).contains("circles"));
    let long = link("l", &"x".repeat(2000));
    assert!(refusal(&[long]).contains("not a relative path"));
}

#[test]
fn what_is_no_file_is_refused() {
    for kind in [0o010_000, 0o020_000, 0o060_000, 0o140_000] {
        assert!(refusal(&[Raw::of_mode("x", kind | 0o644, b"")]).contains("neither a file"));
    }
    assert!(refusal(&[Raw::of_mode("x/", 0o040_755, b"content")]).contains("folder with content"));
    assert!(refusal(&[Raw::of_mode("x/", 0o120_777, b"y")]).contains("both"));
}

#[test]
fn lies_in_headers_are_refused() {
    let honest = || Raw::file("a", b"content");
    assert!(refusal(&[Raw { flags: 1, ..honest() }]).contains("encrypted"));
    assert!(refusal(&[Raw { method: 12, local_method: 12, ..honest() }]).contains("method 12"));
    assert!(refusal(&[Raw { local_method: 8, ..honest() }]).contains("says otherwise"));
    assert!(refusal(&[Raw { local_name: b"b".to_vec(), ..honest() }]).contains("says otherwise"));
    assert!(refusal(&[Raw { crc: 1, ..honest() }]).contains("checksum"));
    assert!(refusal(&[Raw { unpacked: 6, ..honest() }]).contains("does not have the size"));
    assert!(refusal(&[Raw { unpacked: 8, ..honest() }]).contains("does not have the size"));
    assert!(refusal(&[Raw { packed: 4000, ..honest() }]).contains("reaches into the directory"));
    assert!(refusal(&[Raw { offset: Some(4000), ..honest() }]).contains("outside the archive"));
    assert!(refusal(&[Raw { offset: Some(3), ..honest() }]).contains("no entry at the place"));
    assert!(refusal(&[honest(), Raw { offset: Some(0), ..honest() }]).contains("shares bytes"));
    assert!(refusal(&[Raw { packed: u32::MAX, ..honest() }]).contains("zip64"));
    let wide = |packed: u64| Raw {
        packed: u32::MAX,
        extra: [&[1, 0, 8, 0][..], &packed.to_le_bytes()].concat(),
        ..honest()
    };
    assert!(refusal(&[wide(1 << 40)]).contains("reaches into the directory"));
    assert_eq!(unpacked(&zip_of(&[wide(7)]))["a"], "file 644 content");
}

#[test]
fn damaged_data_is_refused() {
    let content = b"some content that is worth deflating, deflating, deflating".as_slice();
    let good = deflate(content);
    assert_eq!(unpacked(&zip_of(&[Raw::deflated("a", content, good.clone())])).len(), 1);
    let cut = good[..good.len() - 4].to_vec();
    assert!(refusal(&[Raw::deflated("a", content, cut)]).contains("\"a\""));
    let longer = [good.as_slice(), b"more"].concat();
    assert!(refusal(&[Raw::deflated("a", content, longer)]).contains("damaged"));
    assert!(refusal(&[Raw::deflated("a", content, vec![0xff; 20])]).contains("damaged"));
}

#[test]
fn bombs_cost_no_more_than_they_admit() {
    let bomb = deflate(&vec![0; 20 << 20]);
    assert!(bomb.len() < 100_000);
    // It says 10 bytes and holds 20 MB.
    let said = refusal(&[Raw { unpacked: 10, ..Raw::deflated("a", b"", bomb.clone()) }]);
    assert!(said.contains("does not have the size"), "{said}");
    // Honest, but together over the limit.
    let entry = |name: String| Raw { unpacked: 20 << 20, ..Raw::deflated(&name, b"", bomb.clone()) };
    let many: Vec<Raw> = (0..13).map(|n| entry(n.to_string())).collect();
    assert!(refusal(&many).contains("more than 262144000 bytes"));
    let one = Raw { unpacked: u32::MAX - 1, ..Raw::file("a", b"") };
    assert!(refusal(&[one]).contains("more than 262144000 bytes"));
    // A hundred folders a name make a hundred times as many entries as it says.
    let deep: Vec<Raw> = (0..1_100).map(|n| Raw::file(&format!("{n}{}", "/d".repeat(99)), b"")).collect();
    assert!(refusal(&deep).contains("at most 100000"));
}

#[test]
fn broken_frames_are_refused() {
    let good = zip_of(&[Raw::file("a", b"content")]);
    assert!(refusal_of(b"").contains("not a zip file"));
    assert!(refusal_of(b"PK").contains("not a zip file"));
    assert!(refusal_of(&[0; 4096]).contains("not a zip file"));
    assert!(refusal_of(&[good.as_slice(), b"tail"].concat()).contains("4 bytes follow"));
    assert!(refusal_of(&end_record(0, 0, 0, b"")).contains("empty"));
    for cut in 0..good.len() {
        check(&good[..cut]).expect_err("a cut archive is refused");
    }
    let directory = good.len() - 22 - 47;
    let with_end = |end: Vec<u8>| [&good[..good.len() - 22], end.as_slice()].concat();
    assert!(refusal_of(&with_end(end_record(2, 47, directory as u32, b""))).contains("cut short"));
    assert!(refusal_of(&with_end(end_record(1, 46, directory as u32, b""))).contains("broken"));
    assert!(refusal_of(&with_end(end_record(1, 47, 4000, b""))).contains("broken"));
    assert!(refusal_of(&with_end(end_record(1, 4000, 0, b""))).contains("broken"));
    assert!(refusal_of(&with_end(end_record(u16::MAX, 47, directory as u32, b""))).contains("cut short"));
    let mut parts = good.clone();
    let end = parts.len() - 22;
    parts[end + 4] = 1;
    assert!(refusal_of(&parts).contains("one part of several"));
}

#[test]
fn a_comment_and_a_prefix_are_taken() {
    let good = zip_of(&[Raw::file("a", b"content")]);
    let directory = (good.len() - 22 - 47) as u32;
    let comment =
        [&good[..good.len() - 22], &end_record(1, 47, directory, b"made by PK\x05\x06 hand")].concat();
    assert_eq!(unpacked(&comment).len(), 1);
    let prefixed = [b"#!/bin/sh\nexit\n", good.as_slice()].concat();
    assert_eq!(unpacked(&prefixed).len(), 1);
}

#[test]
fn a_zip64_end_is_read_and_must_agree() {
    let good = zip_of(&[Raw::file("a", b"content")]);
    let directory = good.len() - 22 - 47;
    let zip64 = |entries: u64, size: u64, start: u64, narrow: u16| {
        let mut bytes = good[..good.len() - 22].to_vec();
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44u64.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        for number in [entries, entries, size, start] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07");
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&end_record(narrow, u32::MAX, u32::MAX, b""));
        bytes
    };
    assert_eq!(unpacked(&zip64(1, 47, directory as u64, u16::MAX)).len(), 1);
    assert!(refusal_of(&zip64(1, 47, directory as u64, 7)).contains("says otherwise"));
    assert!(refusal_of(&zip64(u64::MAX, 47, directory as u64, u16::MAX)).contains("at most 100000"));
    assert!(refusal_of(&zip64(1, u64::MAX, directory as u64, u16::MAX)).contains("broken"));
    assert!(refusal_of(&zip64(1, 47, u64::MAX, u16::MAX)).contains("broken"));
    assert!(refusal_of(&zip64(0, 0, 0, u16::MAX)).contains("empty"));
}

#[test]
fn archives_of_other_tools_are_read() {
    for (name, zip) in [
        ("info-zip", include_bytes!("corpus/info-zip.zip").as_slice()),
        ("python", include_bytes!("corpus/python.zip")),
        ("python-streamed", include_bytes!("corpus/python-streamed.zip")),
        ("python-zip64", include_bytes!("corpus/python-zip64.zip")),
        ("go", include_bytes!("corpus/go.zip")),
    ] {
        let found = unpacked(zip);
        assert_eq!(found["handler.py"], "file 644 print('hello, hello, hello')\n", "{name}");
        assert!(found.contains_key("lib/data.txt"), "{name}");
    }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        (any::<u8>(), 0usize..200_000).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

/// Looks beside the target after unpacking: whatever the archive, nothing may have appeared there.
fn unpack_and_look_around(zip: &[u8]) -> Result<Summary, UnpackError> {
    let outer = tempfile::tempdir().unwrap();
    let target = outer.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let said = unpack(zip, &target);
    let beside: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["target"]);
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_the_writer_packs_the_reader_unpacks(
        files in proptest::collection::btree_map("[a-zü]{1,8}", (any::<bool>(), content()), 1..8)
    ) {
        let mut writer = Writer::new();
        for (name, (executable, content)) in &files {
            writer.file(&format!("dir/{name}"), *executable, content).unwrap();
        }
        let zip = writer.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let summary = unpack(&zip, folder.path()).unwrap();
        prop_assert_eq!(summary.files, files.len());
        for (name, (executable, content)) in &files {
            let path = folder.path().join("dir").join(name);
            prop_assert_eq!(&std::fs::read(&path).unwrap(), content);
            let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
            prop_assert_eq!(mode, if *executable { 0o755 } else { 0o644 });
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = unpack_and_look_around(&bytes);
    }

    #[test]
    fn mutated_archives_do_no_harm(
        which in 0usize..6,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let crafted = zip_of(&[
            Raw::of_mode("l", 0o120_777, b"a/b"),
            Raw::file("a/b", b"content"),
            Raw::deflated("c", b"cccccccccccccccc", deflate(b"cccccccccccccccc")),
        ]);
        let mut zip = match which {
            0 => include_bytes!("corpus/info-zip.zip").to_vec(),
            1 => include_bytes!("corpus/python-streamed.zip").to_vec(),
            2 => include_bytes!("corpus/python-zip64.zip").to_vec(),
            3 => include_bytes!("corpus/go.zip").to_vec(),
            _ => crafted,
        };
        for (index, byte) in changes {
            let at = index.index(zip.len());
            zip[at] = byte;
        }
        if let Some(cut) = cut {
            zip.truncate(cut.index(zip.len()));
        }
        let checked = check(&zip);
        match unpack_and_look_around(&zip) {
            Ok(summary) => prop_assert_eq!(checked, Ok(summary)),
            Err(UnpackError::Refused(refused)) => prop_assert_eq!(checked, Err(refused)),
            Err(disk @ UnpackError::Disk { .. }) => prop_assert!(false, "{:?}", disk),
        }
    }

    /// Entries that are well formed by themselves, with names made to collide, climb and point at each other.
    #[test]
    fn hostile_names_and_links_do_no_harm(
        entries in proptest::collection::vec(
            ("(\\.\\./|/|a/|b/|l/|\\./){0,3}(a|b|l|\\.\\.)/?", 0usize..4, "(\\.\\./|a/|l/|/){0,3}(a|l|\\.\\.)"), 1..8)
    ) {
        let raws: Vec<Raw> = entries
            .iter()
            .map(|(name, kind, target)| match kind {
                0 => Raw::file(name, b"x"),
                1 => Raw::of_mode(name, 0o040_755, b""),
                _ => Raw::of_mode(name, 0o120_777, target.as_bytes()),
            })
            .collect();
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("t/a/r/g/e/t");
        std::fs::create_dir_all(&target).unwrap();
        if unpack(&zip_of(&raws), &target).is_ok() {
            let root = target.canonicalize().unwrap();
            for path in listing(&target).keys() {
                if let Ok(real) = target.join(path).canonicalize() {
                    prop_assert!(real.starts_with(&root), "{path} leads to {real:?}");
                }
            }
        }
        prop_assert!(listing_without_times(outer.path()).iter().all(|p| p.starts_with(outer.path().join("t"))));
    }
}

fn listing_without_times(root: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect()
}
