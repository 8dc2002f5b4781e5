//! A small AWS client for our own commands: one connection, signed requests, the two JSON protocols.

mod credentials;
mod endpoint;

pub(crate) use credentials::CredentialsError;
pub(crate) use endpoint::{Endpoint, EndpointError};

use crate::cli::ServerArgs;
use crate::credentials_file::Profile;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use martlet_identity::{SignError, Signer};
use martlet_model::Timestamp;
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;

/// Why the server was not asked, or what it answered instead of a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("no server answers at {endpoint}")]
    Connect { endpoint: Endpoint, source: io::Error },
    #[error("the connection to {endpoint} broke")]
    Transport { endpoint: Endpoint, source: hyper::Error },
    #[error("cannot make a request out of {path:?}")]
    Request { path: String, source: http::Error },
    #[error("cannot sign the request")]
    Sign(#[source] SignError),
    #[error("{endpoint} answered {operation} with something that is not JSON (status {status})")]
    NotJson { endpoint: Endpoint, operation: &'static str, status: StatusCode, source: serde_json::Error },
    /// An error as the API words it.
    #[error("{operation}: {message} ({code})")]
    Api { operation: &'static str, status: StatusCode, code: String, message: String },
}

impl ClientError {
    /// Whether the API answered with this error code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Api { code, .. } if code == wanted)
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Endpoint(_) => None,
            Self::Credentials(error) => error.hint(),
            Self::Connect { endpoint, .. } => Some(match endpoint.origin() {
                "the default" => {
                    "start a server with `martlet up`, or name another with --endpoint URL".to_owned()
                }
                origin => format!("{origin} names this server; start it, or name another with --endpoint URL"),
            }),
            Self::Api { code, .. } => match code.as_str() {
                "UnrecognizedClientException" | "InvalidSignatureException" | "InvalidClientTokenId"
                | "SignatureDoesNotMatch" | "IncompleteSignature" => Some(
                    "these are not this server's credentials; it printed where they are when it started: set \
                     AWS_SHARED_CREDENTIALS_FILE to that file"
                        .to_owned(),
                ),
                "ResourceNotFoundException" => Some("`martlet ls` lists what is there".to_owned()),
                "TooManyRequestsException" => Some("wait until running invocations are done, or raise account_concurrency".to_owned()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// An answer whose body has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a server says about itself, as far as commands need it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) account_id: String,
    /// Runtime names, such as `python3.12`.
    pub(crate) runtimes: Vec<String>,
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    identity: Profile,
    region: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Finds the server and the credentials; connects with the first request.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] and [`ClientError::Credentials`].
    pub(crate) fn new(arguments: &ServerArgs, data_dirs: &[PathBuf]) -> Result<Self, ClientError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let endpoint = Endpoint::find(arguments.endpoint.as_deref(), variable)?;
        let identity = credentials::find(arguments.profile.as_deref(), variable, data_dirs)?;
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        Ok(Self { endpoint, identity, region, connection: None })
    }

    /// What the server says about itself at `/_martlet/health`. Requests are signed for its region from then on, unless
    /// the environment names another.
    pub(crate) async fn server(&mut self) -> Result<Server, ClientError> {
        let request = Request::get("/_martlet/health");
        let answer = self.send(request, Bytes::new(), None).await?;
        let health = self.json("health", &answer)?;
        let text = |name: &str| health[name].as_str().unwrap_or_default().to_owned();
        self.region.get_or_insert_with(|| text("region"));
        let runtimes = health["runtimes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |runtime: &Value| runtime["runtime"].as_str().map(str::to_owned);
        Ok(Server { account_id: text("account_id"), runtimes: runtimes.iter().filter_map(name).collect() })
    }

    /// A Lambda operation with a JSON answer.
    pub(crate) async fn lambda(
        &mut self,
        operation: &'static str,
        method: Method,
        path: &str,
        input: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let body = input.map_or_else(Bytes::new, |input| input.to_string().into());
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer = self.signed("lambda", request, body).await?;
        self.checked(operation, &answer)
    }

    /// The Invoke operation, whose answer is the function's and not the API's.
    pub(crate) async fn invoke(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.signed("lambda", request, payload).await?;
        if !answer.status.is_success() {
            self.checked("Invoke", &answer)?;
        }
        Ok(answer)
    }

    /// An operation of CloudWatch Logs.
    pub(crate) async fn logs(
        &mut self,
        operation: &'static str,
        input: &Value,
    ) -> Result<Value, ClientError> {
        let request = Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Logs_20140328.{operation}"));
        let answer = self.signed("logs", request, input.to_string().into()).await?;
        self.checked(operation, &answer)
    }

    async fn signed(
        &mut self,
        service: &'static str,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        if self.region.is_none() {
            self.server().await?;
        }
        self.send(request, body, Some(service)).await
    }

    /// Sends one request, over the open connection when there is one.
    async fn send(
        &mut self,
        request: http::request::Builder,
        body: Bytes,
        sign_for: Option<&'static str>,
    ) -> Result<Answer, ClientError> {
        let path = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let request = request.header("host", self.endpoint.authority()).body(());
        let (mut head, ()) = request.map_err(|source| ClientError::Request { path, source })?.into_parts();
        if let Some(service) = sign_for {
            self.sign(&mut head, &body, service)?;
        }
        let connection = self.connection().await?;
        let sent = async {
            let response = connection.send_request(Request::from_parts(head, Full::new(body))).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let sent = sent.await;
        if sent.is_err() {
            self.connection = None;
        }
        sent.map_err(|source| ClientError::Transport { endpoint: self.endpoint.clone(), source })
    }

    fn sign(&self, head: &mut http::request::Parts, body: &[u8], service: &str) -> Result<(), ClientError> {
        if let Some(token) = &self.identity.session_token {
            let token = HeaderValue::from_str(token).map_err(|_| ClientError::Sign(SignError::Credential))?;
            head.headers.insert("x-amz-security-token", token);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let region = self.region.as_deref().unwrap_or_default();
        let signer = Signer { credentials: &self.identity.credentials, region, service };
        signer.sign(&head.method, &head.uri, &mut head.headers, body, now).map_err(ClientError::Sign)
    }

    async fn connection(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let mut open = self.connection.take();
        if let Some(connection) = &mut open
            && connection.ready().await.is_err()
        {
            open = None;
        }
        let open = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(self.connection.insert(open))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let endpoint = || self.endpoint.clone();
        let stream = TcpStream::connect(self.endpoint.resolvable())
            .await
            .map_err(|source| ClientError::Connect { endpoint: endpoint(), source })?;
        // Nagle's algorithm would only delay the last segment of a request.
        let _ = stream.set_nodelay(true);
        let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Transport { endpoint: endpoint(), source })?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn json(&self, operation: &'static str, answer: &Answer) -> Result<Value, ClientError> {
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|source| ClientError::NotJson {
            endpoint: self.endpoint.clone(),
            operation,
            status: answer.status,
            source,
        })
    }

    fn checked(&self, operation: &'static str, answer: &Answer) -> Result<Value, ClientError> {
        let body = self.json(operation, answer)?;
        if answer.status.is_success() {
            return Ok(body);
        }
        Err(api_error(operation, answer, &body))
    }
}

/// The error of an answer: its code from the header (rest-json) or the body (json 1.1), without namespace and URL.
fn api_error(operation: &'static str, answer: &Answer, body: &Value) -> ClientError {
    let header = answer.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let code = header.or_else(|| body["__type"].as_str()).unwrap_or("Unknown");
    let code = code.split(':').next().unwrap_or(code);
    let code = code.rsplit('#').next().unwrap_or(code);
    let message = ["message", "Message", "errorMessage"].iter().find_map(|name| body[*name].as_str());
    ClientError::Api {
        operation,
        status: answer.status,
        code: code.to_owned(),
        message: message.unwrap_or("no message").to_owned(),
    }
}

/// Text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_keep_only_unreserved_bytes() {
        assert_eq!(segment("a-b_c.~9"), "a-b_c.~9");
        assert_eq!(segment("f:$LATEST/é"), "f%3A%24LATEST%2F%C3%A9");
    }

    #[test]
    fn error_codes_lose_namespace_and_url() {
        let answer = |header: Option<&'static str>| Answer {
            status: StatusCode::NOT_FOUND,
            headers: header
                .map(|code| {
                    (http::HeaderName::from_static("x-amzn-errortype"), http::HeaderValue::from_static(code))
                })
                .into_iter()
                .collect(),
            body: Bytes::new(),
        };
        let error = api_error("X", &answer(Some("ResourceNotFoundException:http://x/")), &Value::Null);
        assert!(error.is("ResourceNotFoundException"));
        let body = serde_json::json!({"__type": "com.amazon#ThrottlingException", "message": "slow down"});
        let error = api_error("X", &answer(None), &body);
        assert_eq!(error.to_string(), "X: slow down (ThrottlingException)");
    }
}
