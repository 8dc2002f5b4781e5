//! A server without a socket, and somebody who plays the engine.

use super::super::*;
use crate::pipeline::{Internal, Pipeline};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use martlet_engine::{Limit, Provisioned, Ran, Rejected, Start, Wanted};
use martlet_environment::{Completed, Deployment, FunctionError, Piece, response_stream};
use martlet_events::{AcceptError, Event};
use martlet_functions::Observer;
use martlet_functions::package::Writer;
use martlet_gateway::{Body, Door as _, Head};
use martlet_identity::{Authenticator, Caller, Credentials, Keyring, Mode};
use martlet_model::{AccountId, FunctionArn, FunctionRef, Invocation, Region, Timestamp};
use martlet_store::Memory;
use serde_json::{Value, json};
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(super) const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:f";
pub(super) const ROLE: &str = "arn:aws:iam::000000000000:role/r";

/// Answers with what it was given; some payloads mean something.
#[derive(Default)]
pub(super) struct Player {
    pub(super) ran: Mutex<Vec<Invocation>>,
    pub(super) wanted: Mutex<Vec<Wanted>>,
    pub(super) accepted: Mutex<Vec<Event>>,
}

impl Player {
    fn run_now(&self, invocation: Invocation, wanted: Wanted) -> Result<Ran, Rejected> {
        self.wanted.lock().unwrap().push(wanted);
        let start = if let Wanted::Cold(start) = wanted { start } else { Start::Warm };
        let payload = invocation.payload.clone();
        self.ran.lock().unwrap().push(invocation);
        if payload == "\"throttle\"" {
            return Err(Rejected::Throttled { limit: Limit::Reserved, again: Duration::from_millis(2500) });
        }
        let function_error = (payload == "\"fail\"").then_some(FunctionError::Unhandled);
        let completed = Completed { payload, function_error, log_tail: b"END".to_vec(), reusable: true };
        Ok(Ran { completed, start })
    }
}

impl Invocations for Player {
    fn run<'a>(
        &'a self,
        _deployment: &'a Arc<Deployment>,
        invocation: Invocation,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Ran, Rejected>> {
        let ran = self.run_now(invocation, wanted);
        Box::pin(async { ran })
    }

    fn stream(&self, _deployment: Arc<Deployment>, invocation: Invocation, wanted: Wanted) -> Streaming {
        let (sink, response) = response_stream();
        let ran = self.run_now(invocation, wanted);
        let running = tokio::spawn(async move {
            let ran = ran?;
            if ran.completed.function_error.is_none() {
                sink.push(Piece::Begun("text/plain".into()));
                sink.push(Piece::Data(ran.completed.payload.clone()));
            }
            Ok(ran)
        });
        Streaming::new(response, running)
    }

    fn provisioned(&self, _: &Arc<Deployment>) -> Provisioned {
        Provisioned::default()
    }

    fn accept(&self, event: Event) -> BoxFuture<'_, Result<(), AcceptError>> {
        self.accepted.lock().unwrap().push(event);
        Box::pin(async { Ok(()) })
    }
}

struct Nobody;

impl Observer for Nobody {
    fn current(&self, _function: &FunctionArn, _current: &[Arc<Deployment>]) {}
}

struct Packages(Arc<Downloads>);

impl Internal for Packages {
    fn is_public(&self, _path: &str) -> bool {
        false
    }

    fn handle<'a>(
        &'a self,
        head: &'a Head,
        caller: Option<&'a Caller>,
        _body: Bytes,
    ) -> BoxFuture<'a, Response<Bytes>> {
        Box::pin(async move { self.0.answer(head.uri.path(), caller.unwrap()).await.unwrap() })
    }
}

/// A server without a socket, in development mode, so that signatures need not be right.
pub(super) struct Server {
    pipeline: Pipeline,
    pub(super) player: Arc<Player>,
    pub(super) functions: Functions,
    _folder: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: http::HeaderMap,
    pub(super) bytes: Bytes,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn error(&self) -> (u16, &str, &str) {
        let code = self.head.get("x-amzn-errortype").map_or("", |code| code.to_str().unwrap());
        let message = self.body.get("message").or(self.body.get("Message"));
        (self.status, code, message.and_then(Value::as_str).unwrap_or_default())
    }
}

/// All of a body, however it comes.
async fn whole(body: Body) -> Bytes {
    let mut source = match body {
        Body::Whole(bytes) => return bytes,
        Body::Stream(source) => source,
    };
    let mut all = vec![];
    while let Some(piece) = std::future::poll_fn(|context| source.poll_next(context)).await {
        all.extend_from_slice(&piece.unwrap());
    }
    all.into()
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::starting(Starts::default()).await
    }

    pub(super) async fn starting(starts: Starts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let functions =
            Functions::open(Memory::default().open(), folder.path(), Arc::new(Nobody)).await.unwrap();
        let player = Arc::new(Player::default());
        let links = Credentials::generate().unwrap();
        let account = AccountId::new("000000000000").unwrap();
        let keyring = Keyring::new().with(&links, account.clone(), "links");
        let downloads = Arc::new(Downloads::new(functions.clone(), links));
        let lambda = Lambda {
            functions: functions.clone(),
            runtimes: Runtimes::default(),
            invocations: player.clone(),
            downloads: downloads.clone(),
            concurrency: 7,
            starts,
            granted: Box::new(|id| id == "fsap-0123456789abcdef0"),
        };
        let pipeline = Pipeline::new(
            Authenticator::new(keyring, Mode::Dev(account)),
            vec![lambda.service().unwrap()],
            Arc::new(Packages(downloads)),
            Arc::new(|| Timestamp(1_800_000_000_000)),
        );
        Self { pipeline, player, functions, _folder: folder }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        request = request.header("host", "localhost:4566").header("x-amz-date", "20270115T080000Z");
        let signed =
            path.contains("X-Amz-Signature") || headers.iter().any(|(name, _)| *name == "authorization");
        if !signed {
            request = request.header("authorization", signature("test"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let response = match self.pipeline.admit(&head, ([127, 0, 0, 1], 1).into()) {
            Err(refused) => refused,
            Ok(admission) => {
                assert!(body.len() <= admission.body_limit);
                let peer = "127.0.0.1:1".parse().unwrap();
                self.pipeline.handle(head, admission.ticket, Bytes::copy_from_slice(body), peer).await
            }
        };
        let (head, body) = response.into_parts();
        let bytes = whole(body).await;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: head.status.as_u16(), head: head.headers, bytes, body }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { vec![] } else { serde_json::to_vec(&body).unwrap() };
        self.send(method, path, &[], &body).await
    }

    /// The same by somebody of another account.
    pub(super) async fn call_as(&self, account: &str, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { vec![] } else { serde_json::to_vec(&body).unwrap() };
        self.send(method, path, &[("authorization", &signature(account))], &body).await
    }

    pub(super) async fn create(&self, name: &str, more: Value) -> Answer {
        let mut body = json!({
            "FunctionName": name,
            "Runtime": "provided.al2023",
            "Role": ROLE,
            "Handler": "bootstrap",
            "Code": {"ZipFile": zip("one")},
        });
        merge(&mut body, more);
        self.call("POST", "/2015-03-31/functions", body).await
    }

    /// Creates the function and waits until it is active.
    pub(super) async fn created(&self, name: &str, more: Value) {
        let created = self.create(name, more).await;
        assert_eq!(created.status, 201, "{:?}", created.error());
        self.settled(name).await;
    }

    pub(super) async fn settled(&self, name: &str) -> Value {
        for _ in 0..3000 {
            let now =
                self.call("GET", &format!("/2015-03-31/functions/{name}/configuration"), Value::Null).await;
            if now.body["State"] != "Pending" && now.body["LastUpdateStatus"] != "InProgress" {
                return now.body;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} never settles");
    }

    pub(super) async fn invoke(&self, name: &str, headers: &[(&str, &str)], payload: &[u8]) -> Answer {
        self.send("POST", &format!("/2015-03-31/functions/{name}/invocations"), headers, payload).await
    }
}

pub(super) fn arn(name: &str) -> FunctionArn {
    let FunctionRef { name, .. } = FunctionRef::parse(name).unwrap();
    FunctionArn {
        region: Region::new("us-east-1").unwrap(),
        account: AccountId::new("000000000000").unwrap(),
        name,
    }
}

/// A signature that development mode believes: twelve digits as the key are an account.
fn signature(key: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={key}/20270115/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature={}",
        "0".repeat(64)
    )
}

pub(super) fn zip(content: &str) -> String {
    let mut writer = Writer::new();
    writer.file("bootstrap", true, content.as_bytes()).unwrap();
    STANDARD.encode(writer.finish().unwrap())
}

/// Sets the members of `more`; null removes one.
fn merge(body: &mut Value, more: Value) {
    let (Value::Object(body), Value::Object(more)) = (body, more) else { return };
    for (name, value) in more {
        match value {
            Value::Null => drop(body.remove(&name)),
            value => drop(body.insert(name, value)),
        }
    }
}

pub(super) fn refused(answer: &Answer, status: u16, code: &str, text: &str) {
    let (found_status, found_code, message) = answer.error();
    assert_eq!((found_status, found_code), (status, code), "{message}");
    assert!(message.contains(text), "{text:?} is not in {message:?}");
}
