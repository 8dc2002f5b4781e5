//! A body, collected whole: at most as many bytes as the door allows, in the time that the options allow.

use crate::door::BodyFault;
use crate::options::GatewayOptions;
use crate::room::{Room, Share};
use bytes::Bytes;
use http_body::Body;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bodies of unknown length start with this much room.
const FIRST_ROOM: usize = 8 * 1024;
/// A body's own word reserves at most this much; the rest has to arrive first.
const MOST_RESERVED: usize = 8 * 1024 * 1024;

/// Reads `body` to its end. One that came in a single piece is not copied.
///
/// # Errors
/// [`BodyFault`]; one that is too large by its own word is told before a byte is read, so that a client which waits
/// for `100 Continue` never gets it.
pub(crate) async fn collect<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    limit: usize,
    room: &Room,
    options: &GatewayOptions,
) -> Result<Bytes, BodyFault> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let told = body.size_hint().exact();
    if told.is_some_and(|told| told > limit as u64) {
        return Err(BodyFault::TooLarge);
    }
    let told = told.and_then(|told| usize::try_from(told).ok());
    // A timer exists only once the client has made us wait.
    let mut patience = pin!(None::<Patience>);
    let mut collected: Option<Vec<u8>> = None;
    let mut share = Share::default();
    loop {
        let frame = poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(context) {
                return Poll::Ready(Ok(frame));
            }
            if patience.is_none() {
                patience.set(Some(Patience::new(options)));
            }
            match patience.as_mut().as_pin_mut() {
                Some(patience) => patience.poll(context).map(|()| Err(BodyFault::TimedOut)),
                None => Poll::Pending,
            }
        })
        .await?;
        let data = match frame {
            None => return Ok(collected.map(|bytes| share.attach(bytes)).unwrap_or_default()),
            Some(Err(_)) => return Err(BodyFault::Malformed),
            // Trailers carry nothing that anyone asks for.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
        };
        if let Some(patience) = patience.as_mut().as_pin_mut() {
            patience.moved(options);
        }
        let so_far = collected.as_ref().map_or(0, Vec::len);
        if data.len() > limit - so_far {
            return Err(BodyFault::TooLarge);
        }
        if collected.is_none() && told == Some(data.len()) {
            return Ok(data);
        }
        if !room.grow(&mut share, so_far + data.len()) {
            return Err(BodyFault::NoRoom);
        }
        let room = || Vec::with_capacity(told.unwrap_or(FIRST_ROOM).min(MOST_RESERVED).max(data.len()));
        collected.get_or_insert_with(room).extend_from_slice(&data);
    }
}

/// How long a body may still take: to its next byte, and to its last.
struct Patience {
    timer: Pin<Box<Sleep>>,
    end: Instant,
}

impl Patience {
    fn new(options: &GatewayOptions) -> Self {
        let now = Instant::now();
        let end = now + options.body_timeout;
        Self { timer: Box::pin(sleep_until(end.min(now + options.body_idle_timeout))), end }
    }

    fn moved(self: Pin<&mut Self>, options: &GatewayOptions) {
        let this = self.get_mut();
        let next = this.end.min(Instant::now() + options.body_idle_timeout);
        this.timer.as_mut().reset(next);
    }

    fn poll(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<()> {
        self.get_mut().timer.as_mut().poll(context)
    }
}
