//! Handlers that write their response piece by piece, on every Node of this machine.

use super::harness::{Answer, Runtime};
use super::node_tests::on_each;
use crate::frame::Kind;

const CODE: &str = "
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const ways = {
  async parts(stream) { stream.setContentType('text/plain'); stream.write('one'); await later(5); stream.write({ two: 2 }); stream.end('three'); },
  async http(stream) {
    const body = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { a: 'b' } });
    body.write('hello'); body.end();
  },
  async headOnly(stream) { awslambda.HttpResponseStream.from(stream, { statusCode: 204 }).end(); },
  async nothing(stream) { stream.end(); },
  async large(stream) { await pipeline(Readable.from(Array.from({ length: 40 }, () => Buffer.alloc(50000, 120))), stream); },
  async early() { throw new TypeError('early'); },
  async late(stream) { stream.write('half'); await later(5); throw new TypeError('late'); },
  async unfinished(stream) { stream.write('half'); },
  async destroyed(stream) { stream.write('half'); stream.destroy(); await later(5); },
  async tooLate(stream) { stream.write('x'); stream.setContentType('a/b'); },
  async crash(stream) { stream.write('half'); setImmediate(() => { throw new RangeError('crash'); }); await later(1000); },
};
exports.handler = awslambda.streamifyResponse((event, stream, context) => {
  if (event.way === 'plain') return 5;
  return ways[event.way](stream, context);
});";

/// Everything up to the end of the response: content type, bytes, and the frame at its end.
fn stream(runtime: &mut Runtime, way: &str) -> (Option<String>, Vec<u8>, Answer) {
    let event = format!("{{\"way\":\"{way}\"}}");
    let mut answer = runtime.invoke(&event);
    let (mut content_type, mut body) = (None, Vec::new());
    loop {
        match answer.kind {
            Kind::StreamBegin => {
                assert!(body.is_empty() && content_type.is_none(), "{way} begins twice");
                content_type = Some(answer.meta["contentType"].as_str().unwrap_or("none").to_owned());
            }
            Kind::StreamData => {}
            _ => return (content_type, body, answer),
        }
        body.extend_from_slice(&answer.payload);
        answer = runtime.answer().unwrap_or_else(|| panic!("{way} goes on"));
    }
}

#[test]
fn what_is_written_comes_out_in_order_with_its_content_type() {
    on_each(&[("app.js", CODE)], "app.handler", &[], |mut runtime| {
        // Each of them on the same environment: none leaves anything behind.
        for _ in 0..2 {
            let (content_type, body, end) = stream(&mut runtime, "parts");
            assert_eq!((content_type.as_deref(), end.kind), (Some("text/plain"), Kind::StreamEnd));
            assert_eq!(body, b"one{\"two\":2}three");
            let (content_type, body, _) = stream(&mut runtime, "http");
            assert_eq!(content_type.unwrap(), "application/vnd.awslambda.http-integration-response");
            assert_eq!(body, b"{\"statusCode\":201,\"headers\":{\"a\":\"b\"}}\0\0\0\0\0\0\0\0hello");
            assert_eq!(stream(&mut runtime, "headOnly").1, b"{\"statusCode\":204}\0\0\0\0\0\0\0\0");
            let (content_type, body, end) = stream(&mut runtime, "nothing");
            assert_eq!((content_type.as_deref(), end.kind), (Some("none"), Kind::StreamEnd));
            assert!(body.is_empty());
            let (_, body, end) = stream(&mut runtime, "large");
            assert_eq!((body.len(), end.kind), (2_000_000, Kind::StreamEnd));
        }
    });
}

#[test]
fn failures_before_and_after_the_first_byte_are_told() {
    on_each(&[("app.js", CODE)], "app.handler", &[], |mut runtime| {
        for (way, body, error_type) in [
            ("early", "", "TypeError"),
            ("late", "half", "TypeError"),
            ("unfinished", "half", "Runtime.InvalidStreamingOperation"),
            ("destroyed", "half", "Runtime.InvalidStreamingOperation"),
            ("plain", "", "Runtime.InvalidStreamingOperation"),
            ("tooLate", "x", "Runtime.InvalidStreamingOperation"),
        ] {
            let (_, told, end) = stream(&mut runtime, way);
            assert_eq!((std::str::from_utf8(&told).unwrap(), end.kind), (body, Kind::Error), "{way}");
            assert_eq!(end.meta["errorType"], error_type, "{way}");
            assert_eq!(end.json()["errorType"], error_type, "{way}");
        }
        let (_, told, end) = stream(&mut runtime, "crash");
        assert_eq!((told.as_slice(), end.kind), (b"half".as_slice(), Kind::Error));
        assert_eq!((&end.meta["errorType"], &end.meta["fatal"]), (&"RangeError".into(), &true.into()));
        assert_eq!(runtime.finish().0.code(), Some(129));
    });
}
