//! The listener: accepts, counts, drains.

use crate::connection;
use crate::door::Door;
use crate::options::Options;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Most connections at a time that are told there is no room; more are closed without a word.
const TURNED_AWAY: usize = 64;
/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` turns true (or its sender goes), then closes the listener and idle connections, finishes the
/// requests in flight, and returns when the last is answered. Dropping the future cuts every connection.
pub async fn serve<D: Door>(
    listener: TcpListener,
    door: Arc<D>,
    options: Options,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(options.max_connections));
    let refusals = Arc::new(Semaphore::new(TURNED_AWAY));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = asked_to(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
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
        // A socket that refuses the option is dead already.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let served = connection::run(stream, peer, Arc::clone(&door), options, stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => turn_away(&mut connections, stream, &refusals, options.max_connections),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns once `stop` is true. A sender that is gone has nobody left to stop the server otherwise.
pub(crate) async fn asked_to(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn turn_away(tasks: &mut JoinSet<()>, stream: TcpStream, refusals: &Arc<Semaphore>, max_connections: usize) {
    if let Ok(place) = Arc::clone(refusals).try_acquire_owned() {
        tasks.spawn(async move {
            connection::turn_away(stream, max_connections).await;
            drop(place);
        });
    }
}

/// A connection that was gone before it was accepted is nobody's trouble. When the process is out of descriptors or
/// memory, accepting at once again would spin until some connection ends.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "no connection can be accepted for now; trying again");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
