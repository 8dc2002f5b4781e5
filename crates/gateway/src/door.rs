//! What stands behind the transport: the pipeline that judges heads and answers requests.

use crate::answer::Body;
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;

/// A request without its body.
pub type Head = http::request::Parts;
/// An answer.
pub type Response = http::Response<Body>;

/// A request that [`Door::admit`] let in.
#[derive(Debug)]
pub struct Admission<T> {
    /// Most bytes that the body may have; a longer one is answered by [`Door::refuse_body`].
    pub body_limit: usize,
    /// What was worked out from the head, so that [`Door::handle`] need not do it again.
    pub ticket: T,
}

/// Why the body of an admitted request did not arrive whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// It is longer than [`Admission::body_limit`], by its own word or in fact.
    TooLarge,
    /// It came too slowly.
    TimedOut,
    /// It is not what its headers say: cut short, or chunks that are none.
    Malformed,
    /// The bodies of other requests fill the memory that there is for bodies.
    NoRoom,
}

/// The one door of a server. Every request passes [`Door::admit`] before a byte of its body is read, and
/// [`Door::handle`] once the body is whole; a refusal by either is an ordinary response.
pub trait Door: Send + Sync + 'static {
    /// What [`Door::admit`] hands to [`Door::handle`].
    type Ticket: Send;

    /// Judges a head. A refusal is sent at once, without `100 Continue` and without reading the body, and ends the
    /// connection when there is a large body.
    ///
    /// # Errors
    /// The response that refuses. Must not block.
    fn admit(&self, head: &Head, peer: SocketAddr) -> Result<Admission<Self::Ticket>, Response>;

    /// Answers for a body that did not arrive; the connection ends after it.
    fn refuse_body(&self, head: &Head, ticket: Self::Ticket, fault: BodyFault, peer: SocketAddr) -> Response;

    /// Answers a whole request. Dropped when the client goes away or the server's drain ends, at any await.
    fn handle(
        &self,
        head: Head,
        ticket: Self::Ticket,
        body: Bytes,
        peer: SocketAddr,
    ) -> impl Future<Output = Response> + Send;
}
