//! Every configuration key, once: its name, what it takes, its default and its help. The file, the environment, the
//! flags of `martlet up`, `--print-config` and the error messages all read this table.

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text; whoever uses it checks it further.
    Text,
    /// A directory or file.
    Path,
    /// Directories: an array in the file, separated by `:` in the environment and in a flag.
    Paths,
    /// `HOST:PORT`, the host an IP address or `localhost`.
    Address,
    /// A whole number within bounds, both included.
    Number { min: u64, max: u64 },
    /// One of these words. Where the first is `off`, a flag alone means the second.
    Choice(&'static [&'static str]),
    /// `true` or `false`; a flag alone means `true`.
    Switch,
}

/// What a key is worth when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fallback {
    /// This text, read as the kind says.
    Fixed(&'static str),
    /// Worked out from the machine and the user; see [`super::Machine`].
    DataDir,
    /// Three quarters of the machine's memory.
    MemoryBudget,
}

/// One configuration key.
#[derive(Debug)]
pub(crate) struct Key {
    /// As the file spells it; a dot stands for a table.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Fallback,
    /// The placeholder that `--help` shows for the value.
    pub(crate) placeholder: &'static str,
    /// One sentence without a full stop.
    pub(crate) help: &'static str,
}

impl Key {
    /// The environment variable that sets this key: `MARTLET_` and the name in capitals, dots as underscores.
    pub(crate) fn variable(&self) -> String {
        format!("MARTLET_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The flag of `martlet up` that sets this key, without its two hyphens.
    pub(crate) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: Fallback,
    placeholder: &'static str,
    help: &'static str,
) -> Key {
    Key { name, kind, default, placeholder, help }
}

use self::Fallback::{DataDir, Fixed, MemoryBudget};

/// All keys, in the order in which help and `--print-config` show them.
pub(crate) const KEYS: &[Key] = &[
    key("data_dir", Kind::Path, DataDir, "DIR", "Where everything is kept; one server at a time"),
    key(
        "listen",
        Kind::Address,
        Fixed("127.0.0.1:4566"),
        "HOST:PORT",
        "Where the API is served, as plain HTTP",
    ),
    key("account_id", Kind::Text, Fixed("000000000000"), "ID", "The account that everything belongs to"),
    key("region", Kind::Text, Fixed("us-east-1"), "REGION", "The region that ARNs name"),
    key(
        "user",
        Kind::Text,
        Fixed("martlet"),
        "USER",
        "When root starts Martlet on a new data directory: the user, by name or number, that the server runs as",
    ),
    key(
        "isolation",
        Kind::Choice(&["full", "no-cgroups"]),
        Fixed("full"),
        "LEVEL",
        "Which isolation a function needs to run at all; no-cgroups gives up the hard limits of memory and CPU",
    ),
    key(
        "tmp",
        Kind::Choice(&["disk", "memory"]),
        Fixed("disk"),
        "KIND",
        "What backs a function's /tmp: an image on disk, or memory that counts against the function's limit",
    ),
    key(
        "log_retention_days",
        Kind::Number { min: 0, max: 36_500 },
        Fixed("30"),
        "DAYS",
        "How long function logs are kept; 0 is for ever",
    ),
    key(
        "metering_retention_days",
        Kind::Number { min: 0, max: 36_500 },
        Fixed("400"),
        "DAYS",
        "How long the record of each invocation's use is kept; 0 is for ever",
    ),
    key(
        "idle_timeout_seconds",
        Kind::Number { min: 1, max: 86_400 },
        Fixed("300"),
        "SECONDS",
        "How long an execution environment may idle before it is stopped, as long as nothing is known of when its \
         function is called",
    ),
    key(
        "keep_alive",
        Kind::Choice(&["history", "fixed"]),
        Fixed("history"),
        "POLICY",
        "Whether environments are kept by their function's own history of calls, or each for idle_timeout_seconds",
    ),
    key(
        "fork_start",
        Kind::Switch,
        Fixed("true"),
        "BOOL",
        "Whether environments start by a fork of an initialised template, where the function allows it",
    ),
    key(
        "spares",
        Kind::Number { min: 0, max: 1000 },
        Fixed("1"),
        "COUNT",
        "Environments that stand ready beyond those at work, for a recently called function; where it is not forked, only while calls take such often enough to pay for the memory",
    ),
    key(
        "runtime_templates",
        Kind::Number { min: 0, max: 100 },
        Fixed("4"),
        "COUNT",
        "Kinds of interpreters of which one is kept started ahead, for functions that are called for the first time",
    ),
    key(
        "starts_per_second",
        Kind::Number { min: 1, max: 100_000 },
        Fixed("1000"),
        "COUNT",
        "Starts of environments in a second, all functions together",
    ),
    key(
        "function_starts_per_second",
        Kind::Number { min: 1, max: 100_000 },
        Fixed("100"),
        "COUNT",
        "Environments that one function may add in a second; ten times as many at once, and what needs more is throttled",
    ),
    key(
        "longest_wait_seconds",
        Kind::Number { min: 1, max: 900 },
        Fixed("60"),
        "SECONDS",
        "How long an invocation may wait for an environment; one that would wait longer is throttled",
    ),
    key(
        "stream_idle_seconds",
        Kind::Number { min: 1, max: 86_400 },
        Fixed("300"),
        "SECONDS",
        "How long a function that streams its answer to a function URL may be silent before the answer is broken off",
    ),
    key(
        "memory_budget_mb",
        Kind::Number { min: 128, max: 16_777_216 },
        MemoryBudget,
        "MB",
        "Memory that all execution environments together may use",
    ),
    key(
        "account_concurrency",
        Kind::Number { min: 1, max: 100_000 },
        Fixed("1000"),
        "COUNT",
        "Invocations that may run at once; one more is throttled",
    ),
    key(
        "async_retry_seconds",
        Kind::Number { min: 0, max: 3600 },
        Fixed("60"),
        "SECONDS",
        "How long an asynchronous event waits after its function has failed, twice as long after the second time; Lambda's is 60, less is for tests",
    ),
    key(
        "calls_per_second",
        Kind::Number { min: 0, max: 100_000 },
        Fixed("10"),
        "COUNT",
        "Invocations in a second for each unit of concurrency that is reserved for a function; 0 is no limit",
    ),
    key(
        "account_calls_per_second",
        Kind::Number { min: 0, max: 100_000 },
        Fixed("0"),
        "COUNT",
        "The same for each unit of what is not reserved, all its functions together; Lambda's is 10, 0 is no limit",
    ),
    key(
        "drain_seconds",
        Kind::Number { min: 0, max: 900 },
        Fixed("30"),
        "SECONDS",
        "How long a stop waits for running invocations",
    ),
    key(
        "runtime_paths",
        Kind::Paths,
        Fixed(""),
        "DIRS",
        "Further directories to look for Python and Node in, separated by colons",
    ),
    key(
        "file_systems",
        Kind::Paths,
        Fixed(""),
        "GRANTS",
        "Directories that functions may mount, each as ID=DIR by the id of an access point (fsap-...), with ,ro behind it where \
         nothing may be written; separated by colons",
    ),
    key(
        "log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        Fixed("info"),
        "LEVEL",
        "How much the server tells on stderr",
    ),
    key(
        "dev",
        Kind::Switch,
        Fixed("false"),
        "BOOL",
        "For local work only: accept any signature (test/test is account 000000000000, an access key of twelve \
         digits names its account), let a header ask for a cold start; listens on loopback only",
    ),
    key(
        "cold",
        Kind::Choice(&["off", "fork", "spare", "ordinary"]),
        Fixed("off"),
        "KIND",
        "To measure cold starts: give every synchronous invocation a start of this kind, whatever is idle",
    ),
    key(
        "gateway.max_connections",
        Kind::Number { min: 1, max: 100_000 },
        Fixed("4096"),
        "COUNT",
        "Connections open at once",
    ),
    key(
        "gateway.max_headers",
        Kind::Number { min: 16, max: 1000 },
        Fixed("100"),
        "COUNT",
        "Headers of one request",
    ),
    key(
        "gateway.max_header_bytes",
        Kind::Number { min: 8192, max: 1_048_576 },
        Fixed("65536"),
        "BYTES",
        "Size of a request's line and headers together",
    ),
    key(
        "gateway.header_timeout_seconds",
        Kind::Number { min: 1, max: 3600 },
        Fixed("10"),
        "SECONDS",
        "How long a client may take to send a request's headers",
    ),
    key(
        "gateway.body_idle_timeout_seconds",
        Kind::Number { min: 1, max: 3600 },
        Fixed("20"),
        "SECONDS",
        "How long a client may pause inside a request's body",
    ),
    key(
        "gateway.body_timeout_seconds",
        Kind::Number { min: 1, max: 3600 },
        Fixed("300"),
        "SECONDS",
        "How long a client may take to send a request's body",
    ),
    key(
        "gateway.write_timeout_seconds",
        Kind::Number { min: 1, max: 3600 },
        Fixed("60"),
        "SECONDS",
        "How long a client may leave an answer unread",
    ),
    key(
        "gateway.keep_alive_seconds",
        Kind::Number { min: 1, max: 3600 },
        Fixed("75"),
        "SECONDS",
        "How long a connection may wait for its next request",
    ),
];

/// The key of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The candidate with the fewest edits to `word`, when that is close enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, candidate) =
        candidates.into_iter().map(|candidate| (edits(word, candidate), candidate)).min()?;
    (distance <= word.len().max(candidate.len()) / 2).then_some(candidate)
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour to turn one word into the
/// other.
fn edits(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let changed = above[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                let swapped: &Vec<usize> = &before;
                best = best.min(swapped[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("listen", "listen"), 0);
        assert_eq!(edits("lisetn", "listen"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_key_is_named_only_when_it_is_near() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("data-dir", names()), Some("data_dir"));
        assert_eq!(nearest("retention_days", names()), Some("log_retention_days"));
        assert_eq!(nearest("acount_id", names()), Some("account_id"));
        assert_eq!(nearest("zzzzzzzz", names()), None);
    }

    #[test]
    fn names_flags_and_variables_are_unique() {
        for (index, key) in KEYS.iter().enumerate() {
            for other in &KEYS[index + 1..] {
                assert_ne!(key.name, other.name);
                assert_ne!(key.flag(), other.flag());
                assert_ne!(key.variable(), other.variable());
            }
        }
    }

    fn documented(key: &Key) -> String {
        let values = match key.kind {
            Kind::Text | Kind::Path | Kind::Paths | Kind::Address => String::new(),
            Kind::Number { min, max } => format!("{min} to {max}"),
            Kind::Choice(words) => format!("`{}`", words.join("`, `")),
            Kind::Switch => "`true`, `false`".to_owned(),
        };
        let default = match key.default {
            Fixed("") => "none".to_owned(),
            Fixed(text) => format!("`{text}`"),
            DataDir => "see below".to_owned(),
            MemoryBudget => "3/4 of the memory".to_owned(),
        };
        format!("| `{}` | {default} | {values} | {} |\n", key.name, key.help)
    }

    #[test]
    fn the_documentation_lists_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once("its test prints what belongs here -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- end of keys -->").unwrap();
        let rows: String = KEYS.iter().map(documented).collect();
        let expected = format!("| key | default | values | what it does |\n|---|---|---|---|\n{rows}");
        assert_eq!(table, expected, "docs/configuration.md should have between its marks:\n{expected}");
    }
}
