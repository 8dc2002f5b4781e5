//! Builds the library that makes a running interpreter a template (`park/`), to be carried inside the binary.

use std::path::{Path, PathBuf};
use std::{env, fs};

const SOURCES: [&str; 2] = ["park/park.c", "park/interpreters.c"];
const HEADERS: [&str; 2] = ["park/park.h", "park/system.h"];

/// It is loaded into interpreters of any origin, so it brings nothing along and asks for nothing: no C library, no symbol
/// that has to be there, nothing that would be looked up only while it forks.
const OPTIONS: [&str; 14] = [
    "-std=gnu11",
    "-O2",
    "-fPIC",
    "-ffreestanding",
    "-fvisibility=hidden",
    "-fno-stack-protector",
    "-fno-tree-loop-distribute-patterns",
    "-Wall",
    "-Wextra",
    "-shared",
    "-nostdlib",
    "-s",
    "-Wl,-z,defs,-z,now,-z,noexecstack",
    "-o",
];

fn main() {
    for file in SOURCES.iter().chain(&HEADERS).chain(&["build.rs"]) {
        println!("cargo::rerun-if-changed={file}");
    }
    let library = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("park.so");
    build(&library);
    let bytes = fs::read(&library).expect("it was just written");
    assert!(bytes.starts_with(b"\x7fELF"), "{} is no shared object", library.display());
}

fn build(library: &Path) {
    // Which compiler makes code for the target is all that is asked: flags for programs have no place here.
    let compiler =
        cc::Build::new().cargo_metadata(false).no_default_flags(true).inherit_rustflags(false).get_compiler();
    let mut command = std::process::Command::new(compiler.path());
    if compiler.is_like_clang()
        && let Ok(target) = env::var("TARGET")
    {
        command.arg(format!("--target={target}"));
    }
    command.args(OPTIONS).arg(library).args(SOURCES);
    let status = command.status().unwrap_or_else(|error| panic!("{}: {error}", compiler.path().display()));
    assert!(status.success(), "{command:?} failed");
}
