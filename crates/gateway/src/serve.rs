//! The listener: accepts, counts, drains.

use crate::connection;
use crate::door::Door;
use crate::lanes::Lanes;
use crate::options::GatewayOptions;
use crate::room::Room;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Duration, sleep, timeout};

/// Most connections at a time that are told there is no room; more are closed without a word.
const TURNED_AWAY: usize = 64;
/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server is doing; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accepting connections.
    Serving,
    /// Finishing what is in flight, accepting nothing.
    Draining,
    /// Dropping what is in flight.
    Stopped,
}

/// Tells a running [`serve`] to drain or to stop. Dropping it stops the server.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<Stage>);

impl Shutdown {
    /// A handle, and what [`serve`] takes.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Stage>) {
        let (sender, receiver) = watch::channel(Stage::Serving);
        (Self(sender), receiver)
    }

    /// Accept nothing more, close idle connections, finish requests in flight within the drain time-out.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Drop everything now.
    pub fn stop(&self) {
        self.advance(Stage::Stopped);
    }

    fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|current| {
            let forward = stage > *current;
            if forward {
                *current = stage;
            }
            forward
        });
    }
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that still had a request in flight when the drain time-out, or the order to stop, came.
    pub aborted: usize,
}

/// Serves `listener` until told to drain or stop, and returns when the last connection has ended. The listener is
/// closed as soon as draining begins.
pub async fn serve<D: Door>(
    listener: TcpListener,
    door: Arc<D>,
    options: GatewayOptions,
    shutdown: watch::Receiver<Stage>,
) -> Served {
    serve_on(Lanes::default(), listener, door, options, shutdown).await
}

/// The same with each connection on one of `lanes`; without any, on the caller's runtime.
pub async fn serve_on<D: Door>(
    lanes: Lanes,
    listener: TcpListener,
    door: Arc<D>,
    options: GatewayOptions,
    mut shutdown: watch::Receiver<Stage>,
) -> Served {
    let options = Arc::new(options);
    let places = Arc::new(Semaphore::new(options.max_connections));
    let room = Room::new();
    let refusals = Arc::new(Semaphore::new(TURNED_AWAY));
    // Connections listen to this one, so that the drain time-out reaches them as an order to stop does.
    let (stages, stage) = watch::channel(Stage::Serving);

    loop {
        let accepted = tokio::select! {
            biased;
            _ = ended(&mut shutdown, Stage::Draining) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Answers leave in one write; waiting to fill a packet would only add the client's delayed acknowledgement.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (door, options) = (Arc::clone(&door), Arc::clone(&options));
                let (room, stage) = (room.clone(), stage.clone());
                lanes.spawn(stream, move |stream| async move {
                    connection::run(stream, peer, door, options, room, stage).await;
                    drop(place);
                });
            }
            Err(_) => turn_away(stream, &refusals, options.max_connections),
        }
    }
    drop(listener);
    drop(stage);

    stages.send_replace(Stage::Draining);
    let drained = async {
        tokio::select! {
            biased;
            () = all_back(&places, options.max_connections) => true,
            _ = ended(&mut shutdown, Stage::Stopped) => false,
        }
    };
    if timeout(options.drain_timeout, drained).await == Ok(true) {
        return Served { aborted: 0 };
    }
    let aborted = options.max_connections - places.available_permits();
    stages.send_replace(Stage::Stopped);
    all_back(&places, options.max_connections).await;
    Served { aborted }
}

/// Returns once `stages` has come to `stage`, or its sender is gone.
async fn ended(stages: &mut watch::Receiver<Stage>, stage: Stage) {
    let _ = stages.wait_for(|current| *current >= stage).await;
}

async fn all_back(places: &Semaphore, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let _ = places.acquire_many(count).await;
}

fn turn_away(stream: TcpStream, refusals: &Arc<Semaphore>, max_connections: usize) {
    if let Ok(place) = Arc::clone(refusals).try_acquire_owned() {
        tokio::spawn(async move {
            connection::turn_away(stream, max_connections).await;
            drop(place);
        });
    }
}

/// A connection that was gone before it was accepted is nobody's trouble. When the process is out of descriptors or
/// memory, accepting at once again would spin until some connection ends.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "no connection can be accepted for now");
        sleep(ACCEPT_PAUSE).await;
    }
}
