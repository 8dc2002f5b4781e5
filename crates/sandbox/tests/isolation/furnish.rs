//! Showing something in a sandbox whose program runs already.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use martlet_sandbox::{Bind, ExitStatus, Furnishing, LaunchError};

use crate::copies::{LOAD, SERVE, Template};
use crate::world::{World, options, within};

/// A directory of the host to show, below `world`'s scratch.
fn package(world: &World) -> PathBuf {
    let package = world.scratch.join("package");
    std::fs::create_dir_all(&package).expect("directory");
    std::fs::write(package.join("app.py"), "x = 1").expect("file");
    package
}

fn furnishing(source: &Path, target: &str) -> Furnishing {
    Furnishing { binds: vec![Bind::new(source, target)], memory_bytes: 64 << 20, cpu_millis: 500 }
}

/// Runs, and has an empty place; then parks when it is told to.
fn running(world: &World) -> Template {
    let script =
        format!("{LOAD}assert os.listdir('/place') == []\nprint('parked', flush=True)\nos.read(6, 1){SERVE}");
    let mut spec = Template::spec(&script);
    spec.places = vec!["/place".into()];
    Template::launch(world, spec)
}

fn furnish(world: &World, template: &Template, furnishing: Furnishing) -> Result<(), LaunchError> {
    world.runtime.block_on(within(world.launcher.furnish(&template.sandbox, furnishing)))
}

pub fn a_running_program_and_its_copies_are_shown_it() {
    let world = World::new("furnish");
    let package = package(&world);
    let mut template = running(&world);
    furnish(&world, &template, furnishing(&package, "/place")).expect("furnish");
    template.park_now();
    let mut copy = template.fork(&world).expect("fork");
    assert_eq!(copy.ask("open('/place/app.py').read()"), "'x = 1'");
    assert!(copy.ask("open('/place/new', 'w')").contains("Read-only file system"));
    assert!(copy.ask("os.rename('/place/app.py', '/tmp/app.py')").contains("Error"));
    // Of the limits before and after only the later one ends this.
    copy.ask("len(bytearray(100 << 20))");
    assert_eq!(world.runtime.block_on(within(copy.sandbox.exit())), ExitStatus::Signal(9));
    // The launcher has its own view of the host again.
    let _ = world.python("print(1)").ok();
    assert_eq!(template.fork(&world).expect("fork").ask("os.listdir('/place')"), "['app.py']");
}

pub fn it_happens_once_and_only_where_a_place_is() {
    let world = World::within(options("furnish-where"), vec![std::env::temp_dir(), "/usr".into()]);
    let package = package(&world);
    let refused = |template: &Template, furnishing: Furnishing, why: &str| {
        let error = furnish(&world, template, furnishing).expect_err("must be refused").to_string();
        assert!(error.contains(why), "{error}");
    };
    for (source, target, why) in [
        (package.as_path(), "/etc", "none of the sandbox's free places"),
        (Path::new("/etc"), "/place", "outside of what this launcher may show"),
    ] {
        let template = running(&world);
        refused(&template, furnishing(source, target), why);
        refused(&template, furnishing(&package, "/place"), "none of the sandbox's free places");
    }
    let leads_out = package.join("out");
    symlink("/etc", &leads_out).expect("link");
    refused(&running(&world), furnishing(&leads_out, "/place"), "outside of what this launcher may show");

    let mut template = running(&world);
    template.park_now();
    let _copy = template.fork(&world).expect("fork");
    refused(&template, furnishing(&package, "/place"), "(sandbox ");
}
