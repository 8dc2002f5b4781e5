//! `martlet up`: the boot story, from the configuration to the last flushed record.

mod banner;
mod credentials;
mod data_dir;
mod destinations;
mod health;
mod invoker;
mod isolation;
mod rooms;
mod stop;

use crate::cli::{Output, UpArgs};
use crate::commands::CommandError;
use crate::config::{Config, Inputs, Layers};
use crate::credentials_file::Profile;
use crate::terminal;
use credentials::CredentialsError;
use data_dir::{DataDirError, PrivilegeError};
use isolation::IsolationError;
use martlet_environment::Runtimes;
use martlet_gateway::{Lanes, Shutdown};
use martlet_sandbox::LauncherProcess;
use rooms::{Rooms, RoomsError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use stop::StopSignals;
use tokio::time::Instant;

pub(crate) use data_dir::holder;
pub(crate) use isolation::{examine, missing, weaker};

/// Why the server did not start, one variant a step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error("cannot start the server's threads")]
    Runtime(#[source] io::Error),
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    #[error("cannot watch the launcher of sandboxes")]
    Launcher(#[source] io::Error),
    #[error(transparent)]
    Rooms(#[from] RoomsError),
}

impl UpError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Isolation(error) => Some(error.hint()),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "something serves there already; name another address with --listen HOST:PORT".to_owned(),
            ),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need root; name another with --listen HOST:PORT".to_owned())
            }
            _ => None,
        }
    }
}

/// Everything that was opened while the process had one thread and, where root started it, its privileges.
struct Booted {
    config: Config,
    listener: TcpListener,
    launcher: LauncherProcess,
    profiles: Vec<Profile>,
    runtimes: Runtimes,
}

/// Starts the server and serves until it is told to stop.
///
/// # Errors
/// What kept it from starting.
pub(crate) fn up(arguments: &UpArgs, output: Output) -> Result<ExitCode, CommandError> {
    let layers = Layers::load(&Inputs::this(arguments.settings.0.clone(), arguments.config.clone()))?;
    let mut config = Config::new(&layers)?;
    if arguments.print_config {
        print_config(&layers, output);
        return Ok(ExitCode::SUCCESS);
    }
    start_logging(&config);
    Ok(boot(&mut config, &layers).and_then(|(booted, _lock)| {
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cpus.clamp(2, 8))
            .max_blocking_threads(32)
            .thread_name("martlet")
            .enable_all()
            .build()
            .map_err(UpError::Runtime)?;
        let lanes = Lanes::start(lanes(cpus)).map_err(UpError::Runtime)?;
        let code = runtime.block_on(serve(booted, lanes, output));
        // Whatever blocks still must not keep the process; it is nothing that was promised to anybody.
        runtime.shutdown_background();
        code
    })?)
}

/// How many threads serve connections. Of what a call of the smallest function costs, the server's part is less than half;
/// with a lane for every two CPUs the functions have the rest, and fewer calls meet an environment that was last used on
/// another lane.
fn lanes(cpus: usize) -> usize {
    cpus.div_ceil(2)
}

/// The steps that need privileges or a single thread, in the order in which they depend on each other.
fn boot(config: &mut Config, layers: &Layers) -> Result<(Booted, data_dir::DataDirLock), UpError> {
    data_dir::create_files_private();
    raise_open_files(config);
    let owner = data_dir::prepare(&mut config.data_dir, &config.user, layers.origin("user"))?;
    // From here on no second server works on this directory.
    let lock = data_dir::lock(&config.data_dir, owner)?;
    // Early, so that clients that come while the rest opens wait instead of being refused.
    let listener = TcpListener::bind(config.listen)
        .map_err(|source| UpError::Listen { address: config.listen, source })?;
    // Before privileges go: interpreters may lie where only root can look.
    let runtimes = Runtimes::discover(&config.runtime_paths);
    let packages = data_dir::packages(&config.data_dir, owner)?;
    // The launcher is another process of this binary: before any thread, and with what privileges there are.
    let granted = config.file_systems.values().map(|grant| grant.directory.clone());
    let shown = runtimes.host_paths().into_iter().chain([packages]).chain(granted).collect();
    let launcher = isolation::start_launcher(config, shown)?;
    // Before privileges go: the key may belong to whoever called sudo.
    let profiles = credentials::open(&config.data_dir, owner)?;
    if let Some(owner) = owner {
        data_dir::drop_privileges(owner, &config.data_dir)?;
    }
    Ok((Booted { config: config.clone(), listener, launcher, profiles, runtimes }, lock))
}

async fn serve(booted: Booted, lanes: Lanes, output: Output) -> Result<ExitCode, UpError> {
    let Booted { config, listener, launcher, profiles, runtimes } = booted;
    let mut signals = StopSignals::watch().map_err(UpError::Signals)?;
    let in_force = launcher.in_force().clone();
    if in_force.leftovers > 0 {
        tracing::info!(sandboxes = in_force.leftovers, "removed what a killed server had left behind");
    }
    let launcher = launcher.connect().map_err(UpError::Launcher)?;
    let names: Vec<String> = runtimes.names().iter().map(ToString::to_string).collect();
    let rooms = Rooms::open(&config, launcher.clone(), &profiles, runtimes, &in_force).await?;

    let listen = |source| UpError::Listen { address: config.listen, source };
    listener.set_nonblocking(true).map_err(listen)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let (shutdown, stage) = Shutdown::new();
    let options = rooms::gateway_options(&config);
    let pipeline = Arc::clone(&rooms.pipeline);
    let serving = tokio::spawn(martlet_gateway::serve_on(lanes.clone(), listener, pipeline, options, stage));

    eprintln!("{}", banner::text(&config, address, &in_force, &names));
    if output == Output::Json {
        terminal::print_line(banner::json(&config, address));
    }

    tokio::select! {
        _ = signals.next() => {}
        () = launcher.gone() => {
            tracing::error!("the launcher of sandboxes has ended, and every execution environment with it; stopping");
            rooms.flush().await;
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!(
        seconds = config.drain.as_secs(),
        "stopping: draining running invocations; another signal stops at once"
    );
    let deadline = Instant::now() + config.drain;
    let drain = async {
        shutdown.drain();
        // No request and no queued event begins any more; those that run may end.
        let (served, ()) = tokio::join!(serving, rooms.drain_events(deadline));
        let finished = rooms.drain_engine(deadline).await;
        rooms.flush().await;
        launcher.shutdown().await;
        finished && served.is_ok_and(|served| served.aborted == 0)
    };
    tokio::select! {
        code = signals.next() => {
            tracing::warn!("stopping at once; running invocations are cut short");
            Ok(code)
        }
        whole = drain => {
            if whole {
                tracing::info!("stopped");
                return Ok(ExitCode::SUCCESS);
            }
            tracing::warn!("stopped after drain_seconds; running invocations were cut short");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Connections, environments and databases all take file descriptors; the usual soft limit is for programs that use
/// `select`, which nothing here does.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let in_force = if raised.is_ok() { limit.maximum } else { limit.current };
    if let Some(files) = in_force
        && files < config.gateway.max_connections as u64 + 1024
    {
        tracing::warn!(
            files,
            "the limit of open files is low for gateway.max_connections; raise it (ulimit -n)"
        );
    }
}

fn start_logging(config: &Config) {
    let level = match config.log_level.as_str() {
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "debug" => tracing::Level::DEBUG,
        "trace" => tracing::Level::TRACE,
        _ => tracing::Level::INFO,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(terminal::stderr_has_colours())
        .init();
}

fn print_config(layers: &Layers, output: Output) {
    match output {
        Output::Json => {
            let settings: serde_json::Map<String, serde_json::Value> = layers
                .iter()
                .map(|(key, value, origin)| {
                    let setting =
                        serde_json::json!({ "value": value.to_json(), "origin": origin.to_string() });
                    (key.name.to_owned(), setting)
                })
                .collect();
            terminal::print_line(format_args!("{:#}", serde_json::Value::from(settings)));
        }
        Output::Text => {
            let mut table = terminal::Table::new(&["KEY", "VALUE", "SET BY"]);
            for (key, value, origin) in layers.iter() {
                table.row(vec![key.name.to_owned(), value.to_string(), origin.to_string()]);
            }
            terminal::print(table.to_string().as_bytes());
        }
    }
}
