//! The Telemetry API and the Logs API that it replaced, without I/O: who subscribed to what, and what waits to be sent.

use martlet_model::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::log::iso;

/// What telemetry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Category {
    Platform,
    Function,
    Extension,
}

impl Category {
    fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Function => "function",
            Self::Extension => "extension",
        }
    }
}

/// Which of the two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Logs,
    Telemetry,
}

impl Api {
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Logs => &["2020-08-15", "2021-03-18"],
            Self::Telemetry => &["2022-07-01", "2022-12-13", "2025-01-29"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logs => "Logs",
            Self::Telemetry => "Telemetry",
        }
    }
}

/// A refused subscription: status, type and message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u16, pub(crate) String, pub(crate) String);

/// Where a subscriber listens, on the sandbox's own loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Http { put: bool, port: u16, path: String },
    Tcp { port: u16 },
}

impl Destination {
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    schema_version: Option<String>,
    types: Vec<Category>,
    destination: AskedDestination,
    #[serde(default)]
    buffering: AskedBuffering,
}

#[derive(Deserialize)]
struct AskedDestination {
    protocol: String,
    #[serde(rename = "URI")]
    uri: Option<String>,
    port: Option<u16>,
    method: Option<String>,
    encoding: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AskedBuffering {
    max_items: Option<u32>,
    max_bytes: Option<u32>,
    timeout_ms: Option<u32>,
}

/// When what was buffered is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buffering {
    items: usize,
    bytes: usize,
    timeout: Duration,
}

/// Events on their way to a subscriber.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) events: Vec<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Subscriber {
    name: String,
    api: Api,
    categories: Vec<Category>,
    destination: Destination,
    buffering: Buffering,
    waiting: VecDeque<String>,
    bytes: usize,
    /// When the oldest that waits came.
    since: Option<Instant>,
    dropped: (usize, usize),
}

/// All subscriptions of one environment.
#[derive(Debug)]
pub(crate) struct Telemetry {
    subscribers: Vec<Subscriber>,
    open: bool,
    /// What was told before anybody could subscribe: who does later is told, too.
    history: Vec<(Category, Told)>,
}

/// One piece of news, as each API tells it; an API that does not know it is silent.
#[derive(Clone, Debug)]
struct Told {
    logs: Option<String>,
    telemetry: Option<String>,
}

impl Told {
    fn to(&self, api: Api) -> Option<&String> {
        match api {
            Api::Logs => self.logs.as_ref(),
            Api::Telemetry => self.telemetry.as_ref(),
        }
    }
}

/// Most bytes that wait for a subscriber, in buffers of the size that it asked for.
const BUFFERS: usize = 4;

impl Telemetry {
    pub(crate) fn new() -> Self {
        Self { subscribers: Vec::new(), open: true, history: Vec::new() }
    }

    /// The extension `name` subscribes, or subscribes anew.
    pub(crate) fn subscribe(
        &mut self,
        name: &str,
        api: Api,
        body: &[u8],
        now: (Timestamp, Instant),
    ) -> Result<Option<Standing>, Refused> {
        if !self.open {
            let message = format!("{} API subscription is closed already", api.name());
            return Err(Refused(403, format!("{}.SubscriptionClosed", api.name()), message));
        }
        let other = |subscriber: &Subscriber| subscriber.api != api;
        if self.subscribers.iter().any(|subscriber| subscriber.name == name && other(subscriber)) {
            let message = "an extension subscribes by one of the two APIs, not by both";
            return Err(Refused(403, format!("{}.SubscriptionClosed", api.name()), message.to_owned()));
        }
        let subscriber = subscriber(name, api, body)
            .map_err(|message| Refused(400, "ValidationError".to_owned(), message))?;
        if let Some(known) = self.subscribers.iter_mut().find(|known| known.name == name) {
            (known.destination, known.categories, known.buffering) =
                (subscriber.destination, subscriber.categories, subscriber.buffering);
            return Ok(None);
        }
        let types: Vec<_> = subscriber.categories.iter().map(|category| category.name()).collect();
        let standing = Standing { name: name.to_owned(), api, types: types.clone() };
        self.subscribers.push(subscriber);
        let at = self.subscribers.len() - 1;
        for (category, told) in std::mem::take(&mut self.history) {
            self.subscribers[at].take(category, &told, now.1);
            self.history.push((category, told));
        }
        let record = json!({ "name": name, "state": "Subscribed", "types": types });
        match api {
            Api::Logs => self.platform(now, Some(("logsSubscription", record)), None),
            Api::Telemetry => self.platform(now, None, Some(("telemetrySubscription", record))),
        }
        Ok(Some(standing))
    }

    /// The init phase is over: nobody can subscribe any more.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.history = Vec::new();
    }

    /// Whether anybody listens, or may yet.
    pub(crate) fn is_wanted(&self) -> bool {
        self.open || !self.subscribers.is_empty()
    }

    /// Adds news of the platform, with its name and record in each API that knows it.
    pub(crate) fn platform(
        &mut self,
        now: (Timestamp, Instant),
        logs: Option<(&str, Value)>,
        telemetry: Option<(&str, Value)>,
    ) {
        let text = |(name, record): (&str, Value)| event(now.0, &format!("platform.{name}"), &record);
        let told = Told { logs: logs.map(text), telemetry: telemetry.map(text) };
        self.tell(Category::Platform, told, now.1);
    }

    /// Adds a line that the function or an extension printed.
    pub(crate) fn printed(&mut self, category: Category, written: Timestamp, line: &str, now: Instant) {
        if self.is_wanted() {
            let text = event(written, category.name(), &Value::from(line));
            self.tell(category, Told { logs: Some(text.clone()), telemetry: Some(text) }, now);
        }
    }

    fn tell(&mut self, category: Category, told: Told, now: Instant) {
        for subscriber in &mut self.subscribers {
            subscriber.take(category, &told, now);
        }
        if self.open {
            self.history.push((category, told));
        }
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    pub(crate) fn destination(&self, at: usize) -> &Destination {
        &self.subscribers[at].destination
    }

    /// When something is to be sent to the subscriber at this place.
    pub(crate) fn due(&self, at: usize) -> Option<Instant> {
        let subscriber = &self.subscribers[at];
        let since = subscriber.since?;
        Some(if subscriber.is_full() { since } else { since + subscriber.buffering.timeout })
    }

    /// What is to be sent to the subscriber at this place now; all that there is when it is the last time.
    pub(crate) fn take(&mut self, at: usize, now: (Timestamp, Instant), last: bool) -> Option<Batch> {
        if !last && self.due(at).is_none_or(|due| now.1 < due) {
            return None;
        }
        let subscriber = &mut self.subscribers[at];
        let (records, bytes) = std::mem::take(&mut subscriber.dropped);
        if records > 0 {
            let reason = "Some logs were dropped because the downstream consumer is slower than the logs production rate";
            let record = json!({ "reason": reason, "droppedRecords": records, "droppedBytes": bytes });
            subscriber.waiting.push_back(event(now.0, "platform.logsDropped", &record));
        }
        let mut batch = Batch { events: Vec::new(), bytes: 0 };
        while batch.events.len() < subscriber.buffering.items && batch.bytes < subscriber.buffering.bytes {
            let Some(event) = subscriber.waiting.pop_front() else { break };
            batch.bytes += event.len();
            batch.events.push(event);
        }
        subscriber.bytes = subscriber.waiting.iter().map(String::len).sum();
        subscriber.since = (!subscriber.waiting.is_empty()).then_some(now.1);
        (!batch.events.is_empty()).then_some(batch)
    }

    /// A batch could not be sent.
    pub(crate) fn lost(&mut self, at: usize, events: usize, bytes: usize) {
        let dropped = &mut self.subscribers[at].dropped;
        *dropped = (dropped.0 + events, dropped.1 + bytes);
    }
}

impl Batch {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A subscription that has been taken, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) types: Vec<&'static str>,
}

impl Subscriber {
    fn is_full(&self) -> bool {
        self.waiting.len() >= self.buffering.items || self.bytes >= self.buffering.bytes
    }

    fn take(&mut self, category: Category, told: &Told, now: Instant) {
        let Some(event) = told.to(self.api).filter(|_| self.categories.contains(&category)) else { return };
        if self.bytes + event.len() > self.buffering.bytes * BUFFERS {
            self.dropped = (self.dropped.0 + 1, self.dropped.1 + event.len());
            return;
        }
        self.bytes += event.len();
        self.waiting.push_back(event.clone());
        self.since.get_or_insert(now);
    }
}

fn event(at: Timestamp, kind: &str, record: &Value) -> String {
    json!({ "time": iso(at), "type": kind, "record": record }).to_string()
}

fn subscriber(name: &str, api: Api, body: &[u8]) -> Result<Subscriber, String> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let version = asked.schema_version.as_deref().or((api == Api::Logs).then_some("2020-08-15"));
    let Some(version) = version else { return Err("schemaVersion is missing".to_owned()) };
    if !api.versions().contains(&version) {
        return Err(format!("schemaVersion: {version} is none of {}", api.versions().join(", ")));
    }
    if asked.types.is_empty() {
        return Err("types: at least one is needed".to_owned());
    }
    let asked_buffering = asked.buffering;
    let within = |field: &str, value: Option<u32>, usual: u32, least: u32, most: u32| match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(format!("buffering.{field}: {value} is not between {least} and {most}"))
        }
        value => Ok(value.unwrap_or(usual)),
    };
    let items = within("maxItems", asked_buffering.max_items, 10_000, 1_000, 10_000)?;
    let bytes = within("maxBytes", asked_buffering.max_bytes, 256 << 10, 256 << 10, 1 << 20)?;
    let timeout = within("timeoutMs", asked_buffering.timeout_ms, 1_000, 25, 30_000)?;
    Ok(Subscriber {
        name: name.to_owned(),
        api,
        categories: asked.types,
        destination: destination(&asked.destination)?,
        buffering: Buffering {
            items: items as usize,
            bytes: bytes as usize,
            timeout: Duration::from_millis(u64::from(timeout)),
        },
        waiting: VecDeque::new(),
        bytes: 0,
        since: None,
        dropped: (0, 0),
    })
}

fn destination(asked: &AskedDestination) -> Result<Destination, String> {
    if asked.encoding.as_deref().is_some_and(|encoding| encoding != "JSON") {
        return Err("destination.encoding: only JSON is known".to_owned());
    }
    match asked.protocol.to_ascii_uppercase().as_str() {
        "TCP" => match asked.port {
            Some(port @ 1..) => Ok(Destination::Tcp { port }),
            _ => Err("destination.port is missing".to_owned()),
        },
        "HTTP" => {
            let put = match asked.method.as_deref().unwrap_or("POST") {
                "POST" => false,
                "PUT" => true,
                other => return Err(format!("destination.method: {other} is neither PUT nor POST")),
            };
            let text = asked.uri.as_deref().ok_or("destination.URI is missing")?;
            let uri: http::Uri = text.parse().map_err(|error| format!("destination.URI: {error}"))?;
            if uri.scheme_str() != Some("http") {
                return Err("destination.URI: only http is known".to_owned());
            }
            if !matches!(uri.host(), Some("sandbox.localdomain" | "sandbox")) {
                return Err("destination.URI host must be sandbox.localdomain".to_owned());
            }
            let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            Ok(Destination::Http { put, port: uri.port_u16().unwrap_or(80), path })
        }
        other => Err(format!("destination.protocol: {other} is neither HTTP nor TCP")),
    }
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
