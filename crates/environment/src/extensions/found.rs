//! Which external extensions a function has.

use std::path::Path;

/// The names of the files in the folder `extensions` of what appears at `/opt`, in order. What of them can be executed shows
/// when they are.
pub(crate) fn external(opt: Option<&Path>) -> Vec<String> {
    let entries = opt.and_then(|opt| opt.join("extensions").read_dir().ok()).into_iter().flatten().flatten();
    let files = entries.filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<_> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_order_and_directories_are_not() {
        let opt = tempfile::tempdir().unwrap();
        assert!(external(Some(opt.path())).is_empty());
        let directory = opt.path().join("extensions");
        std::fs::create_dir_all(directory.join("lib")).unwrap();
        for name in ["b", "c", "a"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        assert_eq!(external(Some(opt.path())), ["a", "b", "c"]);
        assert!(external(None).is_empty());
    }
}
