//! Attacks on a sandbox, and what must work in one.
fn main() {
    if std::env::args().nth(1).as_deref() == Some(martlet_sandbox::LAUNCHER_COMMAND) {
        martlet_sandbox::launcher_main();
    }
    use martlet_sandbox::*;
    let options = LauncherOptions {
        isolation: Isolation::Full,
        instance: "t".into(),
        uid_base: 200000,
        uid_count: 100,
        scratch_dir: "/tmp/sbxscratch".into(),
        tmp: TmpKind::Disk,
    };
    let p = Launcher::start(options).unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let l = p.connect().unwrap();
        for i in 0..20 {
            let t = std::time::Instant::now();
            let spec = SandboxSpec {
                argv: vec![
                    "/bin/sh".into(),
                    "-c".into(),
                    std::env::args().nth(1).unwrap_or("id; exit 7".into()),
                ],
                env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                cwd: "/tmp".into(),
                hostname: "h".into(),
                binds: vec![],
                files: vec![],
                tmp_bytes: 512 << 20,
                memory_bytes: 128 << 20,
                cpu_millis: 1000,
                pids: 100,
                open_files: 1024,
                listen: Some(9001),
            };
            let fd = || std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().unwrap();
            let s = l.launch(spec, if i == 0 { vec![(fd(), 1), (fd(), 2)] } else { vec![] }).await;
            match s {
                Ok(s) => {
                    let e = t.elapsed();
                    let x = s.exit().await;
                    println!("{s:?} launch {:?} {x} {:?} {:?}", e, t.elapsed(), s.usage());
                }
                Err(e) => {
                    println!("{e} {:?}", std::error::Error::source(&e));
                    return;
                }
            }
        }
        l.shutdown().await;
    });
}
