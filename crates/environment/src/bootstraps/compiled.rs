//! The Python bootstrap as byte code. Compiling the source is a third of a cold start, and the same every time; it is done
//! once for each interpreter, by that interpreter, in a sandbox without any function in it.

use super::{PYTHON, RUNTIME_DIR};
use crate::runtimes::Interpreter;
use bytes::Bytes;
use martlet_model::RuntimeName;
use martlet_sandbox::{Bind, ExitStatus, Launcher, SandboxSpec};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// Byte code of the bootstrap is some tens of kilobytes.
const BYTES: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);
/// A compiled file is a header of sixteen bytes, of which only the interpreter's number is looked at, and the code.
const PROGRAM: &str = "import importlib.util, marshal, sys
path = sys.argv[1]
code = compile(open(path, 'rb').read(), path, 'exec', dont_inherit=True)
sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))";

/// What has been compiled so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    known: Arc<Mutex<HashMap<RuntimeName, Option<Bytes>>>>,
}

impl Compiled {
    /// The byte code for `interpreter`, if it is there. The first question for an interpreter starts a task that makes it;
    /// until that is done, and where it fails, the source has to do.
    pub(crate) fn for_interpreter(&self, launcher: &Launcher, interpreter: &Interpreter) -> Option<Bytes> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.entry(interpreter.runtime.clone()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                entry.insert(None);
                tokio::spawn(self.clone().remember(launcher.clone(), interpreter.clone()));
                None
            }
        }
    }

    async fn remember(self, launcher: Launcher, interpreter: Interpreter) {
        match tokio::time::timeout(PATIENCE, compile(&launcher, &interpreter)).await {
            Ok(Some(code)) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(interpreter.runtime, Some(code));
            }
            Ok(None) | Err(_) => {
                tracing::info!(runtime = %interpreter.runtime, "the bootstrap could not be compiled ahead; its source is used");
            }
        }
    }
}

async fn compile(launcher: &Launcher, interpreter: &Interpreter) -> Option<Bytes> {
    let (reader, writer) = std::io::pipe().ok()?;
    let reader = Receiver::from_owned_fd(reader.into()).ok()?;
    let source = format!("{RUNTIME_DIR}/bootstrap.py");
    let argv = [&interpreter.inside, "-I", "-S", "-c", PROGRAM, &source].map(str::to_owned);
    let spec = SandboxSpec {
        argv: argv.into(),
        env: vec![("LD_LIBRARY_PATH".to_owned(), "/var/lang/lib".to_owned())],
        cwd: "/".to_owned(),
        hostname: "localhost".to_owned(),
        binds: interpreter.binds.iter().map(|(host, inside)| Bind::new(host, inside)).collect(),
        files: vec![(source, PYTHON.as_bytes().to_vec())],
        tmp_bytes: 1 << 20,
        memory_bytes: 256 << 20,
        cpu_millis: 1000,
        pids: 16,
        open_files: 64,
        listen: None,
        forkable: false,
        places: Vec::new(),
        companions: None,
    };
    let sandbox = launcher.launch(spec, vec![(writer.into(), 1)]).await.ok()?;
    let mut code = Vec::new();
    reader.take(BYTES).read_to_end(&mut code).await.ok()?;
    let ended = sandbox.exit().await == ExitStatus::Code(0);
    (ended && code.len() > 16).then(|| code.into())
}
