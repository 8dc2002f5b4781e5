//! Threads for connections: each has a runtime of its own, and a connection stays on one of them.
//!
//! A runtime that shares its work among threads wakes a second thread whenever a task that was woken goes on at once, and
//! may carry the task there; that costs more than all else that a small request does. Here a connection, and what its
//! requests wait for, is read, driven and answered by one thread.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Most threads of one lane for work that blocks.
const BLOCKING_THREADS: usize = 32;

/// Where connections are served. Clones share the lanes; when the last one is dropped their threads end, and every task
/// that still runs there ends with them.
#[derive(Clone, Default)]
pub struct Lanes(Arc<[Lane]>);

struct Lane {
    runtime: Handle,
    /// Connections that it serves now.
    open: Arc<AtomicUsize>,
    /// Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// One connection among those of a lane, for as long as it is open.
struct Place(Arc<AtomicUsize>);

impl Lanes {
    /// Starts `count` lanes.
    ///
    /// # Errors
    /// When the system gives no more threads or descriptors; none is left running then.
    pub fn start(count: usize) -> io::Result<Self> {
        let lanes: io::Result<Vec<Lane>> = (0..count).map(Lane::start).collect();
        Ok(Self(lanes?.into()))
    }

    /// Serves a connection on the lane that has the fewest; without any lane, on the caller's runtime.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) {
        let Some(lane) = self.0.iter().min_by_key(|lane| lane.open.load(Relaxed)) else {
            tokio::spawn(serve(stream));
            return;
        };
        let place = Place::take(&lane.open);
        // The lane has to hear from the socket itself. A socket that cannot be moved is closed, as one that breaks is.
        let Ok(stream) = stream.into_std() else { return };
        lane.runtime.spawn(async move {
            let _place = place;
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream).await;
            }
        });
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            // Nothing is ever sent: it ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
            // What still blocks is nothing that was promised to anybody.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, open: Arc::default(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn connections_are_spread_over_the_lanes_and_make_room_when_they_end() {
        let lanes = Lanes::start(2).expect("two threads can be had");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(TcpStream::connect(address).await.expect("a connection"));
            let (stream, _) = listener.accept().await.expect("its other end");
            let tell = tell.clone();
            lanes.spawn(stream, move |stream| async move {
                let name = thread::current().name().map(str::to_owned);
                tell.send(name.unwrap_or_default()).expect("somebody listens");
                // It is readable once the client has gone.
                stream.readable().await.expect("the lane hears from it");
            });
        }
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(told.recv().await.expect("each connection tells"));
        }
        names.sort();
        assert_eq!(names, ["lane-0", "lane-0", "lane-1", "lane-1"]);
        drop(clients);
        let open = || lanes.0.iter().map(|lane| lane.open.load(Relaxed)).sum::<usize>();
        while open() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_runs_on_a_lane_ends_with_it() {
        let lanes = Lanes::start(1).expect("a thread can be had");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("its address")).await;
        let (stream, _) = listener.accept().await.expect("a connection");
        let (kept, gone) = oneshot::channel::<()>();
        lanes.spawn(stream, move |stream| async move {
            let _ = stream.readable().await;
            drop(kept);
        });
        drop(lanes);
        assert!(gone.await.is_err());
    }
}
