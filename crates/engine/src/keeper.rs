//! The task that keeps the time for the scheduler.

use crate::host::Host;
use crate::pressure;
use crate::scheduler::Moment;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Freezes, stops, evicts and starts ahead when the time has come, until the engine is drained.
pub(crate) async fn keep<H: Host>(shared: Arc<Shared<H>>) {
    let mut looked: Option<Instant> = None;
    loop {
        let wait = {
            let mut state = shared.lock();
            let state = &mut *state;
            let now = shared.now();
            let mut actions = std::mem::take(&mut state.actions);
            state.scheduler.tick(now, &mut actions);
            if looked.is_none_or(|looked| looked.elapsed() >= pressure::INTERVAL) {
                looked = Some(Instant::now());
                if let Some(missing) = pressure::missing_bytes() {
                    state.scheduler.relieve(missing, now, &mut actions);
                }
            }
            // It is awake: nothing that is decided here has to rouse it.
            state.keeper_wakes = Some(Moment(0));
            shared.carry_out(state, actions);
            if state.scheduler.is_closed() && state.is_empty() {
                return;
            }
            let holds = state.scheduler.environments() + state.scheduler.templates() > 0;
            let next = state.scheduler.next_tick();
            let wait = next.map(|due| Duration::from_micros(due.since(now)));
            // While there is something to give back, the machine's memory is watched.
            let wait = if holds {
                Some(wait.map_or(pressure::INTERVAL, |wait| wait.min(pressure::INTERVAL)))
            } else {
                wait
            };
            state.keeper_wakes = wait.map(|wait| now.plus(wait.as_micros() as u64));
            wait
        };
        let roused = shared.earlier.notified();
        match wait {
            None => roused.await,
            // Whether roused or on time, there is something to look at. The timer of the runtime is no finer than this.
            Some(wait) => drop(tokio::time::timeout(wait.max(Duration::from_millis(1)), roused).await),
        }
    }
}
