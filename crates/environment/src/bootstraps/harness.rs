//! Runs a bootstrap as a plain child process, with the descriptors that a sandbox would give it.

use crate::frame::{Decoded, Frame, InvokeMeta, Kind, decode, invoke_head};
use crate::log::{Record, Splitter};
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A package directory that is removed with the value.
pub(super) struct Package(PathBuf);

impl Package {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique =
            format!("martlet-package-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&root).unwrap();
        for (name, text) in files {
            let file = root.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Self(root)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running bootstrap.
pub(super) struct Runtime {
    /// `None` when it was forked from a template: whoever adopts it reaps it.
    child: Option<Child>,
    control: UnixStream,
    received: Vec<u8>,
    log: Option<JoinHandle<Vec<Record>>>,
    sequence: u32,
}

/// What an invocation of the harness answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) meta: serde_json::Value,
    pub(super) payload: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }
}

pub(super) const REQUEST_ID: &str = "11111111-2222-4333-8444-555555555555";
pub(super) const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:hello";

impl Runtime {
    /// Starts `command` with the task root and handler of a function.
    pub(super) fn start(command: &[&str], package: &Package, handler: &str, extra: &[(&str, &str)]) -> Self {
        Self::start_with(command, package, handler, extra, None)
    }

    /// The same for a process that is to become a template, whose end of the park socket is `park`.
    pub(super) fn start_with(
        command: &[&str],
        package: &Package,
        handler: &str,
        extra: &[(&str, &str)],
        park: Option<OwnedFd>,
    ) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        // A shell moves the descriptors to where the bootstrap expects them.
        let arrange = match park {
            Some(_) => "exec 3<&0 4>>/proc/self/fd/1 5<&2 2>&1 0</dev/null; exec \"$@\"",
            None => "exec 3<&0 4>>/proc/self/fd/1 0</dev/null; exec \"$@\"",
        };
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", arrange, "sh"])
            .args(command)
            .env_clear()
            .envs([
                ("_HANDLER", handler),
                ("LAMBDA_TASK_ROOT", package.path().to_str().unwrap()),
                ("_LAMBDA_TELEMETRY_LOG_FD", "4"),
                ("AWS_LAMBDA_FUNCTION_NAME", "hello"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hello"),
                ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/01/01/[$LATEST]0"),
                ("TZ", ":UTC"),
                ("LANG", "en_US.UTF-8"),
                ("PATH", "/usr/bin:/bin"),
            ])
            .envs(extra.iter().copied())
            .current_dir(package.path())
            .stdin(OwnedFd::from(theirs))
            .stderr(park.unwrap_or_else(|| writer.try_clone().unwrap().into()))
            .stdout(OwnedFd::from(writer));
        let child = shell.spawn().unwrap();
        drop(shell);
        Self::new(Some(child), control, reader)
    }

    /// A process that has the other ends of `control` and, for its output, of `log`.
    pub(super) fn new(child: Option<Child>, control: UnixStream, mut log: PipeReader) -> Self {
        control.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let log = std::thread::spawn(move || {
            let (mut splitter, mut records) = (Splitter::default(), Vec::new());
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = log.read(&mut buffer) {
                splitter.feed(&buffer[..count], &mut records);
            }
            splitter.flush(&mut records);
            records
        });
        Self { child, control, received: Vec::new(), log: Some(log), sequence: 0 }
    }

    /// Writes bytes that are a frame, or not.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.control.write_all(bytes).unwrap();
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().expect("a process of our own").id()
    }

    /// Ends the process by a signal that it cannot refuse.
    pub(super) fn kill(&mut self) {
        let child = self.child.as_mut().expect("a process of our own");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The next frame; `None` when the process is gone.
    pub(super) fn receive(&mut self) -> Option<Frame> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Decoded::Frame(frame) = decode(&mut self.received).unwrap() {
                return Some(frame);
            }
            match self.control.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the bootstrap says nothing: {error}"),
            }
        }
    }

    /// Waits for the handler to be loaded.
    pub(super) fn ready(mut self) -> Self {
        let frame = self.receive();
        let log = if frame.as_ref().is_some_and(|frame| frame.kind == Kind::Ready) { None } else { Some(()) };
        if log.is_some() {
            panic!("not ready: {frame:?} {:?}", self.finish().1);
        }
        self
    }

    pub(super) fn send(&mut self, event: &[u8], client: Option<&str>) {
        self.sequence += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let meta = InvokeMeta {
            id: REQUEST_ID,
            deadline: now.as_millis() as u64 + 3000,
            arn: ARN,
            trace: "Root=1-0-0",
            client,
            tenant: None,
        };
        self.control.write_all(&invoke_head(self.sequence, &meta, event.len())).unwrap();
        self.control.write_all(event).unwrap();
    }

    pub(super) fn answer(&mut self) -> Option<Answer> {
        let frame = self.receive()?;
        assert_eq!(frame.sequence, self.sequence);
        let meta = if frame.meta.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&frame.meta).unwrap()
        };
        Some(Answer { kind: frame.kind, meta, payload: frame.payload.to_vec() })
    }

    pub(super) fn invoke(&mut self, event: &str) -> Answer {
        self.send(event.as_bytes(), None);
        self.answer().expect("the process lives")
    }

    /// Closes the socket and waits: how the process ended, and its log.
    pub(super) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let status = self.child.as_mut().expect("a process of our own").wait().unwrap();
        (status, self.log())
    }

    /// Closes the socket and waits until nothing of the process is left that could write to its log.
    pub(super) fn finish_forked(mut self) -> Vec<String> {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        self.log()
    }

    fn log(&mut self) -> Vec<String> {
        let log = self.log.take().unwrap().join().unwrap();
        log.into_iter().map(|record| record.text).collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
