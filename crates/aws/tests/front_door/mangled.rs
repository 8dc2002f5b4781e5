//! Requests that were good once: bytes flipped, cut out, doubled, put in. Whatever comes, nobody is let in who should
//! not be, nothing of ours fails, and the server goes on.

use super::server::Server;
use martlet_gateway::GatewayOptions;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{Duration, timeout};

/// One thing done to the bytes of a request; places count from 0 to 1.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Cut(f64, usize),
    Double(f64, usize),
    Insert(f64, Vec<u8>),
    End(f64),
}

fn change() -> impl Strategy<Value = Change> {
    let place = 0.0..1.0;
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..8),
        "(\r\n|\r\n\r\n|: |%|/\\.\\./|chunked|transfer-encoding: chunked\r\n|content-length: 0\r\n|expect: 100-continue\r\n)"
            .prop_map(String::into_bytes),
    ];
    prop_oneof![
        (place.clone(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (place.clone(), 1_usize..40).prop_map(|(at, length)| Change::Cut(at, length)),
        (place.clone(), 1_usize..40).prop_map(|(at, length)| Change::Double(at, length)),
        (place.clone(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        place.prop_map(Change::End),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let place = |at: f64| (at * bytes.len() as f64) as usize;
    match change {
        Change::Flip(at, bit) => {
            let at = place(*at);
            bytes[at] ^= 1 << bit;
        }
        Change::Cut(at, length) => {
            let at = place(*at);
            let end = bytes.len().min(at + length);
            drop(bytes.drain(at..end));
        }
        Change::Double(at, length) => {
            let at = place(*at);
            let end = bytes.len().min(at + length);
            let piece = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        Change::Insert(at, piece) => {
            let at = place(*at);
            drop(bytes.splice(at..at, piece.iter().copied()));
        }
        Change::End(at) => bytes.truncate(place(*at)),
    }
}

/// Sends everything and reads whatever comes.
async fn exchange(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The server may well have hung up by now.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server neither answers nor hangs up");
    answer
}

fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

#[test]
fn mangled_requests_are_refused_and_forgotten() {
    let runtime = Runtime::new().unwrap();
    // What is cut short is waited for; here not for long.
    let brief = Duration::from_millis(60);
    let options = GatewayOptions {
        header_timeout: brief,
        body_idle_timeout: brief,
        keep_alive_timeout: brief,
        ..Default::default()
    };
    let server = runtime.block_on(Server::start_with(options));
    let create = br#"{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{"ZipFile":"UEs="},"Environment":{"Variables":{"AB":"c"}}}"#;
    let requests = [
        server.bytes(
            "POST",
            "/2015-03-31/functions/echo/invocations?Qualifier=%24LATEST",
            b"{\"a\":[1,2,{}]}",
        ),
        server.bytes("POST", "/2015-03-31/functions", create),
        server.bytes("GET", "/2015-03-31/functions/?MaxItems=7&Marker=a%2Fb", b""),
    ];
    for request in &requests {
        let answer = runtime.block_on(exchange(&server, request));
        assert!(statuses(&answer)[0] < 300, "{}", String::from_utf8_lossy(&answer));
    }
    let strategy = (0..requests.len(), proptest::collection::vec(change(), 1..4));
    let config = ProptestConfig { cases: 400, ..ProptestConfig::default() };
    proptest!(config, |((which, changes) in strategy)| {
        let mut bytes = requests[which].clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let answer = runtime.block_on(exchange(&server, &bytes));
        for status in statuses(&answer) {
            let good = status < 300;
            prop_assert!(good || (400..500).contains(&status) || status == 501, "{status}");
            prop_assert!(!good || still_signed(&requests[which], &bytes), "let in: {}", String::from_utf8_lossy(&bytes));
        }
    });
    let answer = runtime.block_on(exchange(&server, &requests[0]));
    assert_eq!(statuses(&answer), [200]);
}

/// Whether the signature and the body that it is for are still there. Blanks, line ends, unsigned headers and what
/// follows the request may change without harm.
fn still_signed(one: &[u8], other: &[u8]) -> bool {
    let text = String::from_utf8_lossy(one);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let signature = &head[head.find("Signature=").unwrap()..][..74];
    let has =
        |part: &str| part.is_empty() || other.windows(part.len()).any(|window| window == part.as_bytes());
    has(signature) && has(body)
}
