//! What forks need and takes time to make, made ahead of need.

use crate::host::StartError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

type Making<S> = Pin<Box<dyn Future<Output = Result<S, StartError>> + Send>>;
type Make<S> = Box<dyn Fn() -> Making<S> + Send + Sync>;

/// How long what was taken is used before the next one is made: its first steps want the processor.
const USE_FIRST: Duration = Duration::from_millis(2);

/// A few of something that takes time to make. A task of its own makes them, sleeps while there are enough, and ends with
/// the stock; what is in stock goes with it.
pub(crate) struct Stock<S> {
    shared: Arc<Shared<S>>,
    refiller: JoinHandle<()>,
}

struct Shared<S> {
    make: Make<S>,
    ready: Mutex<Vec<S>>,
    /// The piece that the task is making.
    next: Mutex<Next<S>>,
    wanted: AtomicUsize,
    used: Notify,
}

enum Next<S> {
    None,
    Free,
    /// Somebody waits for it.
    Promised(oneshot::Sender<S>),
}

impl<S> fmt::Debug for Stock<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock").field("ready", &self.shared.ready().len()).finish_non_exhaustive()
    }
}

impl<S: Send + 'static> Stock<S> {
    /// A stock that begins to make its first piece. Must be called inside a tokio runtime.
    pub(crate) fn new<F>(make: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<S, StartError>> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            make: Box::new(move || Box::pin(make())),
            ready: Mutex::new(Vec::new()),
            next: Mutex::new(Next::None),
            wanted: AtomicUsize::new(1),
            used: Notify::new(),
        });
        let refiller = tokio::spawn(refill(Arc::clone(&shared)));
        Self { shared, refiller }
    }

    /// One from stock, or else one that is made now. [`Stock::refill`] replaces it.
    pub(crate) async fn take(&self) -> Result<S, StartError> {
        let ready = self.shared.ready().pop();
        match ready {
            Some(ready) => Ok(ready),
            None => (self.shared.make)().await,
        }
    }

    /// One from stock, or the one that is being made, unless somebody waits for that already; `None` where neither is there, or
    /// making it fails. Decided now; the future only waits. [`Stock::refill`] replaces it.
    pub(crate) fn take_next(&self) -> impl Future<Output = Option<S>> + Send + 'static + use<S> {
        let ready = self.shared.ready().pop();
        let promised = ready.is_none().then(|| self.shared.promise()).flatten();
        async move {
            match (ready, promised) {
                (Some(ready), _) => Some(ready),
                (None, Some(promised)) => promised.await.ok(),
                (None, None) => None,
            }
        }
    }

    /// How many there are.
    pub(crate) fn ready(&self) -> usize {
        self.shared.ready().len()
    }

    /// [`Stock::refill`], a while from now.
    pub(crate) fn refill_in(&self, pause: Duration) {
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(shared) = shared.upgrade() {
                shared.used.notify_one();
            }
        });
    }

    /// Makes up for what was taken, in the background. Not part of taking: it would slow down what the piece is taken for.
    pub(crate) fn refill(&self) {
        self.shared.used.notify_one();
    }

    /// How many are kept from now on.
    pub(crate) fn set_wanted(&self, wanted: usize) {
        self.shared.wanted.store(wanted, Ordering::Relaxed);
        self.shared.ready().truncate(wanted);
        self.refill();
    }
}

impl<S> Drop for Stock<S> {
    fn drop(&mut self) {
        self.refiller.abort();
    }
}

impl<S> Shared<S> {
    fn ready(&self) -> MutexGuard<'_, Vec<S>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> MutexGuard<'_, Next<S>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promise(&self) -> Option<oneshot::Receiver<S>> {
        let mut next = self.next();
        matches!(*next, Next::Free).then(|| {
            let (promise, promised) = oneshot::channel();
            *next = Next::Promised(promise);
            promised
        })
    }

    /// Adds one, or gives it to whoever waits for it: whether it was added.
    fn deliver(&self, made: S) -> bool {
        let next = std::mem::replace(&mut *self.next(), Next::None);
        let left = match next {
            Next::Promised(promise) => promise.send(made),
            Next::None | Next::Free => Err(made),
        };
        left.map_err(|made| self.add(made)).is_err()
    }

    /// Adds one, unless fewer are wanted by now.
    fn add(&self, made: S) {
        let mut ready = self.ready();
        if ready.len() < self.wanted.load(Ordering::Relaxed) {
            ready.push(made);
        }
    }
}

async fn refill<S>(shared: Arc<Shared<S>>) {
    loop {
        while shared.ready().len() < shared.wanted.load(Ordering::Relaxed) {
            *shared.next() = Next::Free;
            match (shared.make)().await {
                Ok(made) => {
                    if !shared.deliver(made) {
                        // Taken, as from stock: whoever did says when to replace it.
                        break;
                    }
                }
                // Whoever needs one is told why there is none; the next use tries again.
                Err(error) => {
                    *shared.next() = Next::None;
                    tracing::debug!(%error, "could not make ahead what a fork needs");
                    break;
                }
            }
        }
        shared.used.notified().await;
        tokio::time::sleep(USE_FIRST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Numbers what it makes.
    fn stock(broken: &Arc<AtomicBool>) -> (Stock<usize>, Arc<AtomicUsize>) {
        let (made, broken) = (Arc::new(AtomicUsize::new(0)), Arc::clone(broken));
        let counter = Arc::clone(&made);
        let stock = Stock::new(move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let fails = broken.load(Ordering::Relaxed);
            async move { if fails { Err(StartError::TemplateGone) } else { Ok(number) } }
        });
        (stock, made)
    }

    async fn until(done: impl Fn() -> bool) {
        let waited = async {
            while !done() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waited).await.expect("it comes to pass");
    }

    #[tokio::test]
    async fn what_is_used_is_made_again_once_that_is_asked_for() {
        let (stock, made) = stock(&Arc::default());
        until(|| stock.shared.ready().len() == 1).await;
        assert_eq!(stock.take().await.unwrap(), 0);
        assert_eq!(stock.take().await.unwrap(), 1, "made on the way");
        assert_eq!(made.load(Ordering::Relaxed), 2);
        stock.refill();
        until(|| stock.shared.ready().len() == 1).await;
        stock.set_wanted(5);
        until(|| stock.shared.ready().len() == 5).await;
        stock.set_wanted(2);
        assert_eq!(stock.shared.ready().len(), 2);
        assert_eq!(made.load(Ordering::Relaxed), 7);
    }

    #[tokio::test]
    async fn what_is_being_made_is_promised_once() {
        let gate = Arc::new(Notify::new());
        let opened = Arc::clone(&gate);
        let stock = Stock::new(move || {
            let gate = Arc::clone(&opened);
            async move {
                gate.notified().await;
                Ok(7)
            }
        });
        assert_eq!(stock.take_next().await, None, "nothing has begun");
        until(|| matches!(*stock.shared.next(), Next::Free)).await;
        let first = stock.take_next();
        assert_eq!(stock.take_next().await, None, "it is promised");
        gate.notify_one();
        assert_eq!(first.await, Some(7));
        assert_eq!(stock.ready(), 0);
        stock.refill();
        gate.notify_one();
        until(|| stock.ready() == 1).await;
        assert_eq!(stock.take_next().await, Some(7));

        stock.refill();
        until(|| matches!(*stock.shared.next(), Next::Free)).await;
        let never = stock.take_next();
        drop(stock);
        assert_eq!(never.await, None, "the stock is gone");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_asks_and_tried_again_later() {
        let broken = Arc::new(AtomicBool::new(true));
        let (stock, made) = stock(&broken);
        until(|| made.load(Ordering::Relaxed) == 1).await;
        assert!(matches!(stock.take().await, Err(StartError::TemplateGone)));
        assert_eq!(made.load(Ordering::Relaxed), 2, "it is not tried over and over");
        broken.store(false, Ordering::Relaxed);
        stock.refill();
        until(|| stock.shared.ready().len() == 1).await;
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_stock_that_is_gone() {
        let (stock, _) = stock(&Arc::default());
        until(|| stock.shared.ready().len() == 1).await;
        let shared = Arc::downgrade(&stock.shared);
        drop(stock);
        until(|| shared.strong_count() == 0).await;
    }
}
