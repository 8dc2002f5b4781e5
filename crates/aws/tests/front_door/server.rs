//! A server with a toy Lambda, and a client of a few lines that signs with our own signer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use martlet_aws::models;
use martlet_aws::pipeline::{Ctx, Internal, Operation, Pipeline, Service};
use martlet_aws::protocol::{ApiError, Blob, Input, Output};
use martlet_gateway::{GatewayOptions, Head, Shutdown, serve};
use martlet_identity::{Authenticator, Caller, Credentials, Keyring, Mode, Secret, Signer};
use martlet_model::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Credentials,
    _shutdown: Shutdown,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(GatewayOptions::default()).await
    }

    pub(crate) async fn start_with(options: GatewayOptions) -> Self {
        let credentials = Credentials { access_key: "AKIATEST".into(), secret: Secret::new("a secret") };
        let account = AccountId::new("000000000000").unwrap();
        let keyring = Keyring::new().with(&credentials, account, "default");
        let pipeline = Pipeline::new(
            Authenticator::new(keyring, Mode::Enforced),
            vec![toy_lambda()],
            Arc::new(ToyInternal),
            Arc::new(now),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, stages) = Shutdown::new();
        tokio::spawn(serve(listener, Arc::new(pipeline), options, stages));
        Self { address, credentials, _shutdown: shutdown }
    }

    pub(crate) async fn signed(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        self.signed_for("lambda", method, path, headers, body).await
    }

    pub(crate) async fn signed_for(
        &self,
        service: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        let headers = self.signature(service, method, path, headers, body);
        self.send(method, path, &headers, body).await
    }

    /// Signs one body and sends another.
    pub(crate) async fn tampered(
        &self,
        method: &str,
        path: &str,
        signed: &[u8],
        sent: &[u8],
    ) -> Response<Bytes> {
        let headers = self.signature("lambda", method, path, &[], signed);
        self.send(method, path, &headers, sent).await
    }

    pub(crate) async fn plain(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        self.send(method, path, &self.headers(headers), body).await
    }

    /// A signed request as it goes over the wire.
    pub(crate) fn bytes(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        raw(method, path, &self.signature("lambda", method, path, &[], body), body)
    }

    pub(crate) fn presigned(&self, path: &str) -> String {
        let signer = Signer { credentials: &self.credentials, region: "us-east-1", service: "martlet" };
        signer.presign(&self.address.to_string(), path, 60, now()).unwrap()
    }

    fn headers(&self, headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_str(&self.address.to_string()).unwrap());
        for (name, value) in headers {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    fn signature(
        &self,
        service: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HeaderMap {
        let mut map = self.headers(headers);
        let uri: Uri = path.parse().unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let signer = Signer { credentials: &self.credentials, region: "us-east-1", service };
        signer.sign(&method, &uri, &mut map, body, now()).unwrap();
        map
    }

    async fn send(&self, method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
        let request = raw(method, path, headers, body);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        parse(&answer)
    }
}

/// A request as it goes over the wire.
fn raw(method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

fn parse(answer: &[u8]) -> Response<Bytes> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut response = Response::builder().status(status);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        response = response.header(name, value);
    }
    response.body(Bytes::copy_from_slice(&answer[end..])).unwrap()
}

pub(crate) fn json(answer: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {:?}", answer.body()))
}

struct Toy;

const INVOKE: Operation = Operation::new(
    "Invoke",
    "lambda:InvokeFunction",
    &["FunctionName", "InvocationType", "LogType", "ClientContext", "Payload", "Qualifier"],
)
.body_limit(1000);
const CREATE_FUNCTION: Operation = Operation::new(
    "CreateFunction",
    "lambda:CreateFunction",
    &[
        "FunctionName",
        "Runtime",
        "Role",
        "Handler",
        "Code.ZipFile",
        "Timeout",
        "Environment.Variables",
        "Tags",
    ],
)
.harmless(&[("TracingConfig.Mode", "PassThrough"), ("PackageType", "Zip")]);
const LIST_FUNCTIONS: Operation =
    Operation::new("ListFunctions", "lambda:ListFunctions", &["Marker", "MaxItems"]);

fn toy_lambda() -> Service {
    Service::builder(models::LAMBDA, Arc::new(Toy))
        .and_then(|service| service.on(INVOKE, invoke))
        .and_then(|service| service.on(CREATE_FUNCTION, create_function))
        .and_then(|service| service.on(LIST_FUNCTIONS, list_functions))
        .unwrap()
        .build()
}

async fn invoke(_toy: Arc<Toy>, _ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let name = input.text("FunctionName").unwrap_or_default();
    match name {
        "missing" => {
            return Err(ApiError::new("ResourceNotFoundException", "Function not found: missing"));
        }
        "busy" => {
            return Err(ApiError::new("TooManyRequestsException", "Rate Exceeded.")
                .with("Reason", "CallerRateLimitExceeded")
                .with("retryAfterSeconds", "1"));
        }
        "panic" => panic!("as asked"),
        _ => {}
    }
    let output = Output::payload(input.payload.clone()).header("ExecutedVersion", "$LATEST");
    Ok(match input.text("InvocationType") {
        Some(kind) => {
            let context = input.text("ClientContext").unwrap_or_default();
            let qualifier = input.text("Qualifier").unwrap_or_default();
            output.status(202).header("LogResult", format!("{name} {qualifier} {kind} {context}"))
        }
        None => output,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateFunction {
    function_name: String,
    code: Code,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Code {
    zip_file: Option<Blob>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    function_name: String,
    code_size: usize,
}

async fn create_function(_toy: Arc<Toy>, _ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    let request: CreateFunction = input.parse()?;
    let code_size = request.code.zip_file.map_or(0, |zip| zip.0.len());
    Output::json(&Created { function_name: request.function_name, code_size })
}

async fn list_functions(_toy: Arc<Toy>, ctx: Ctx, input: Input) -> Result<Output, ApiError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListFunctions {
        max_items: Option<u32>,
        marker: Option<String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        functions: Vec<Created>,
        next_marker: String,
    }
    let request: ListFunctions = input.parse()?;
    let next_marker = format!(
        "{} {} {} {}",
        request.max_items.unwrap_or_default(),
        request.marker.unwrap_or_default(),
        ctx.account(),
        ctx.region
    );
    Output::json(&Listed { functions: vec![], next_marker })
}

struct ToyInternal;

impl Internal for ToyInternal {
    fn is_public(&self, path: &str) -> bool {
        path == "/_martlet/health"
    }

    fn handle<'a>(
        &'a self,
        _head: &'a Head,
        caller: Option<&'a Caller>,
        _body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        let text = caller.map_or("well".to_owned(), |caller| caller.principal.account.to_string());
        Box::pin(async move { Response::new(Bytes::from(text)) })
    }
}
