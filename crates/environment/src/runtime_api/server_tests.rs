use super::*;
use martlet_model::RequestId;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// A runtime written with bare sockets, so that it can be as wrong as it likes.
struct Client(BufReader<TcpStream>);

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no reply: {line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        reply.body.resize(length, 0);
        self.0.read_exact(&mut reply.body).unwrap();
        reply
    }

    fn get(&mut self, path: &str) -> Reply {
        self.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        self.read()
    }

    fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        self.write(head.as_bytes());
        self.write(body);
        self.read()
    }

    fn next(&mut self) -> Reply {
        let reply = self.get("/2018-06-01/runtime/invocation/next");
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }
}

fn path(kind: &str) -> String {
    format!("/2018-06-01/runtime/invocation/{}/{kind}", id())
}

fn id() -> RequestId {
    RequestId::from_random([3; 16])
}

fn invocation(payload: &[u8]) -> Invocation {
    Invocation {
        request_id: id(),
        invoked_arn: "arn:x:live".into(),
        payload: Bytes::copy_from_slice(payload),
        client_context: Some("{\n\"custom\":\"ü\"}".into()),
        tenant: Some("blue".into()),
        trace_id: "Root=1".into(),
        accepted: Timestamp(0),
        trigger: martlet_model::Trigger::Request,
        attempt: 1,
    }
}

/// The API, and a thread that plays the runtime.
fn start<T: Send + 'static>(
    runtime: impl FnOnce(SocketAddr) -> T + Send + 'static,
) -> (RuntimeApi, JoinHandle<T>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (
        RuntimeApi::new(listener, crate::extensions::tests::desk()).unwrap(),
        std::thread::spawn(move || runtime(address)),
    )
}

async fn news(api: &mut RuntimeApi) -> Input {
    let news = poll_fn(|context| api.poll(context));
    tokio::time::timeout(Duration::from_secs(20), news).await.expect("news").unwrap()
}

async fn ready(api: &mut RuntimeApi) {
    assert!(matches!(news(api).await, Input::Ready));
}

/// Keeps serving until the runtime is through.
async fn serve_until_done<T>(api: &mut RuntimeApi, runtime: JoinHandle<T>) -> T {
    while !runtime.is_finished() {
        let turn = poll_fn(|context| api.poll(context));
        let _ = tokio::time::timeout(Duration::from_millis(5), turn).await;
    }
    runtime.join().unwrap()
}

fn part(input: Input) -> Part {
    match input {
        Input::Stream(part) => part,
        other => panic!("{other:?}"),
    }
}

fn failure(input: Input) -> (String, String) {
    match input {
        Input::Error { failure, fatal: false } | Input::InitError(failure) => {
            (failure.error_type, String::from_utf8(failure.document.to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_served_and_answered() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        for _ in 0..2 {
            let event = client.next();
            assert_eq!(event.header("lambda-runtime-aws-request-id"), Some(id().as_str()));
            assert_eq!(event.header("lambda-runtime-deadline-ms"), Some("1234567"));
            assert_eq!(event.header("lambda-runtime-invoked-function-arn"), Some("arn:x:live"));
            assert_eq!(event.header("lambda-runtime-trace-id"), Some("Root=1"));
            assert_eq!(event.header("lambda-runtime-client-context"), Some("{ \"custom\":\"ü\"}"));
            assert_eq!(event.header("lambda-runtime-aws-tenant-id"), Some("blue"));
            assert_eq!(event.header("content-type"), Some("application/json"));
            let attempt = event.header("lambda-runtime-invocation-id").unwrap().to_owned();
            let wrong = client.post(&path("response"), "Lambda-Runtime-Invocation-Id: other\r\n", b"1");
            assert_eq!((wrong.status, wrong.text().contains("InvalidRequestID")), (400, true));
            let echo = format!("Lambda-Runtime-Invocation-Id: {attempt}\r\n");
            let reply = client.post(&path("response"), &echo, &event.body);
            assert_eq!((reply.status, reply.text()), (202, "{\"status\":\"OK\"}\n"));
        }
    });
    ready(&mut api).await;
    for payload in ["{}".to_owned(), "x".repeat(3_000_000)] {
        api.deliver(&invocation(payload.as_bytes()), Timestamp(1_234_567));
        assert!(api.is_untaken());
        match news(&mut api).await {
            Input::Response(answer) => assert!(answer == payload.as_bytes()),
            other => panic!("{other:?}"),
        }
        assert!(!api.is_untaken());
    }
    // The last 202 was written in the same turn as the news: nobody serves this API any more.
    runtime.join().unwrap();
}

#[tokio::test]
async fn errors_are_taken_with_their_type() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.next();
        let reply = client.post(
            &path("error"),
            "Lambda-Runtime-Function-Error-Type: Runtime.Mine\r\nLambda-Runtime-Function-XRay-Error-Cause: {}\r\n",
            b"{\"errorMessage\":\"m\"}",
        );
        assert_eq!(reply.status, 202);
        client.next();
        let with_cause = br#"{"errorMessage":"m","errorType":"T","stackTrace":["a"],"cause":{"x":1}}"#;
        let headers = format!("Content-Type: {WITH_CAUSE}\r\nLambda-Runtime-Function-Error-Type: odd\r\n");
        assert_eq!(client.post(&path("error"), &headers, with_cause).status, 202);
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert_eq!(failure(news(&mut api).await), ("Runtime.Mine".into(), "{\"errorMessage\":\"m\"}".into()));
    api.deliver(&invocation(b"2"), Timestamp(1));
    assert_eq!(
        failure(news(&mut api).await),
        ("Runtime.Unknown".into(), r#"{"errorMessage":"m","errorType":"T","stackTrace":["a"]}"#.into())
    );
    runtime.join().unwrap();
}

#[tokio::test]
async fn init_errors_are_taken_once() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        let reply = client.post(
            "/2018-06-01/runtime/init/error",
            "Lambda-Runtime-Function-Error-Type: Runtime.NoSuchHandler\r\n",
            b"{}",
        );
        assert_eq!(reply.status, 202);
        let again = client.post("/2018-06-01/runtime/init/error", "", b"{}");
        assert_eq!((again.status, again.text().contains("InvalidStateTransition")), (403, true));
        assert_eq!(client.get("/2018-06-01/runtime/invocation/next").status, 403);
    });
    assert_eq!(failure(news(&mut api).await).0, "Runtime.NoSuchHandler");
    serve_until_done(&mut api, runtime).await;
}

#[tokio::test]
async fn a_response_over_the_limit_is_refused_and_the_runtime_goes_on() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.next();
        let reply = client.post(&path("response"), "", &vec![b'x'; PAYLOAD_BYTES + 1]);
        assert_eq!(reply.status, 413);
        assert_eq!(
            reply.text(),
            "{\"errorMessage\":\"Exceeded maximum allowed payload size (6291556 bytes).\",\"errorType\":\"RequestEntityTooLarge\"}\n"
        );
        client.next();
        assert_eq!(client.post(&path("response"), "", &vec![b'x'; PAYLOAD_BYTES]).status, 202);
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert_eq!(failure(news(&mut api).await).0, "Function.ResponseSizeTooLarge");
    api.deliver(&invocation(b"2"), Timestamp(1));
    assert!(matches!(news(&mut api).await, Input::Response(body) if body.len() == PAYLOAD_BYTES));
    runtime.join().unwrap();
}

#[tokio::test]
async fn a_streamed_response_comes_in_parts_with_what_its_end_tells() {
    let chunked = |end: &str| {
        format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n{end}\r\n",
            path("response")
        )
    };
    let (mut api, runtime) = start(move |address| {
        let mut client = Client::new(address);
        client.next();
        client.write(chunked("").as_bytes());
        assert_eq!(client.read().status, 202);
        client.next();
        let end = "Lambda-Runtime-Function-Error-Type: Function.Late\r\nLambda-Runtime-Function-Error-Body: eyJlIjoxfQ==\r\n";
        client.write(chunked(end).as_bytes());
        assert_eq!(client.read().status, 202);
        client.next();
        let wrong = client.post(&path("response"), "Lambda-Runtime-Function-Response-Mode: other\r\n", b"1");
        assert_eq!((wrong.status, wrong.text().contains("InvalidFunctionResponseMode")), (400, true));
    });
    ready(&mut api).await;
    let begun = |content_type: &str| Part::Begun { content_type: content_type.into(), data: Bytes::new() };
    for end in ["", "Function.Late"] {
        api.deliver(&invocation(b"1"), Timestamp(1));
        assert_eq!(part(news(&mut api).await), begun("application/octet-stream"));
        assert_eq!(part(news(&mut api).await), Part::Data("one".into()));
        assert_eq!(part(news(&mut api).await), Part::Data("two".into()));
        match end {
            "" => assert_eq!(part(news(&mut api).await), Part::Ended),
            _ => assert_eq!(failure(news(&mut api).await), (end.into(), "{\"e\":1}".into())),
        }
    }
    api.deliver(&invocation(b"3"), Timestamp(1));
    assert_eq!(failure(news(&mut api).await).0, "Runtime.InvalidResponseModeHeader");
    runtime.join().unwrap();
}

#[tokio::test]
async fn no_more_of_a_stream_is_read_than_is_taken() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.next();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            path("response")
        );
        client.write(head.as_bytes());
        let stream = client.0.get_mut();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let chunk = [b"40000\r\n".as_slice(), &[b'x'; 0x40000], b"\r\n"].concat();
        // Sockets have buffers, but not endless ones.
        (0..400).take_while(|_| stream.write_all(&chunk).is_ok()).count()
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert!(
        matches!(part(news(&mut api).await), Part::Begun { content_type, .. } if content_type == "text/plain")
    );
    let taken = tokio::task::spawn_blocking(|| runtime.join().unwrap()).await.unwrap();
    assert!(taken < 100, "{taken} chunks of 256 KB were taken though nobody listened");
    // The connection was cut in the middle, which is told after what had arrived.
    loop {
        match news(&mut api).await {
            Input::Stream(Part::Data(data)) => assert!(data.iter().all(|byte| *byte == b'x')),
            other => return assert_eq!(failure(other).0, "Runtime.TruncatedResponse"),
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_an_error_of_its_own() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.next();
        client.write(
            format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", path("response"))
                .as_bytes(),
        );
        drop(client);
        // The runtime comes back on another connection.
        Client::new(address).next();
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert_eq!(failure(news(&mut api).await).0, "Runtime.TruncatedResponse");
    api.deliver(&invocation(b"2"), Timestamp(1));
    serve_until_done(&mut api, runtime).await;
}

#[tokio::test]
async fn an_event_that_its_taker_lost_is_served_again() {
    let (mut api, runtime) = start(|address| {
        let mut first = Client::new(address);
        let lost = first.next();
        drop(first);
        let mut second = Client::new(address);
        let again = second.next();
        assert_eq!(again.header("lambda-runtime-invocation-id"), lost.header("lambda-runtime-invocation-id"));
        assert_eq!(second.post(&path("response"), "", b"1").status, 202);
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert!(matches!(news(&mut api).await, Input::Response(_)));
    runtime.join().unwrap();
}

#[tokio::test]
async fn an_event_is_not_given_to_a_runtime_that_is_gone() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.next();
        client.post(&path("response"), "", b"1");
        // It comes for the next event, and is gone before there is one.
        client.write(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    assert!(matches!(news(&mut api).await, Input::Response(_)));
    runtime.join().unwrap();
    api.deliver(&invocation(b"2"), Timestamp(1));
    let nothing = tokio::time::timeout(Duration::from_millis(50), poll_fn(|context| api.poll(context))).await;
    assert!(nothing.is_err() && api.is_untaken(), "{nothing:?}");
}

#[tokio::test]
async fn an_event_that_nobody_read_is_known_to_be_unseen() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        client.write(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut first = [0];
        let stream = client.0.get_mut();
        stream.peek(&mut first).unwrap();
    });
    ready(&mut api).await;
    api.deliver(&invocation(b"1"), Timestamp(1));
    serve_until_done(&mut api, runtime).await;
    for _ in 0..100 {
        let turn = poll_fn(|context| api.poll(context));
        let _ = tokio::time::timeout(Duration::from_millis(5), turn).await;
        if api.is_untaken() {
            return;
        }
    }
    panic!("the event counts as taken");
}

#[tokio::test]
async fn other_paths_are_told_what_they_are() {
    let (mut api, runtime) = start(|address| {
        let mut client = Client::new(address);
        assert_eq!(client.get("/2018-06-01/ping").text(), "pong");
        assert_eq!(client.get("/2018-06-01/runtime/restore/next").status, 404);
        assert_eq!(client.post("/2018-06-01/runtime/restore/error", "", b"").status, 404);
        assert_eq!(client.get("/").status, 404);
        assert_eq!(client.get("/2018-06-01/runtime/invocation/../next").status, 404);
        assert_eq!(client.get(&path("response")).status, 405);
        let early = client.post(&path("response"), "", b"1");
        assert_eq!((early.status, early.text().contains("InvalidRequestID")), (400, true));
        let extension = client.post("/2020-01-01/extension/register", "", b"{}");
        assert_eq!(
            (extension.status, extension.text().contains("Extension.InvalidExtensionName")),
            (403, true)
        );
        assert_eq!(client.get("/2020-01-01/extension/register").status, 405);
        assert_eq!(client.get("/2020-01-01/extension/event").status, 404);
        assert_eq!(client.get("/2020-08-15/telemetry").status, 404);
    });
    serve_until_done(&mut api, runtime).await;
}

#[tokio::test]
async fn hostile_callers_harm_only_themselves() {
    let (mut api, runtime) = start(|address| {
        let mut honest = Client::new(address);
        assert_eq!(honest.get("/2018-06-01/ping").status, 200);
        for noise in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n: :\r\n\r\n"] {
            let mut client = Client::new(address);
            client.write(noise);
            let mut rest = Vec::new();
            let _ = client.0.get_mut().shutdown(std::net::Shutdown::Write);
            let _ = client.0.read_to_end(&mut rest);
        }
        let mut many = String::from("GET /2018-06-01/ping HTTP/1.1\r\n");
        for number in 0..200 {
            many.push_str(&format!("H{number}: x\r\n"));
        }
        let mut client = Client::new(address);
        client.write(format!("{many}\r\n").as_bytes());
        assert_eq!(client.read().status, 431);

        // Many idle connections: those over the limit are not taken until others end.
        let idle: Vec<TcpStream> =
            (0..2 * CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(honest.get("/2018-06-01/ping").status, 200);
        drop(idle);
        assert_eq!(Client::new(address).get("/2018-06-01/ping").status, 200);
    });
    serve_until_done(&mut api, runtime).await;
    assert!(api.connections.len() <= CONNECTIONS);
}
