//! The four layers and how they are laid over each other. No reading of the environment here: it comes in as
//! [`Inputs`], so that tests can bring their own.

use super::keys::{self, Fallback, KEYS, Key};
use super::value::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Environment variables that begin with `MARTLET_` and are not configuration keys.
const OTHER_VARIABLES: &[&str] = &["MARTLET_CONFIG", "MARTLET_ENDPOINT"];

/// The configuration file that is read when no other is named, inside the data directory.
pub(crate) const FILE_NAME: &str = "martlet.toml";

const ROOTS_DATA_DIR: &str = "/var/lib/martlet";

/// Why a configuration was refused. Every message names the place that must be mended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file that was asked for, or found, cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is not TOML.
    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },
    /// A key that does not exist.
    #[error("{origin}: there is no key {name:?}{}", hint(.nearest.as_deref()))]
    UnknownKey { origin: Origin, name: String, nearest: Option<String> },
    /// An environment variable of ours that does not exist.
    #[error("the environment sets {name}, which Martlet does not know{}", hint(.nearest.as_deref()))]
    UnknownVariable { name: String, nearest: Option<String> },
    /// A value that its key does not take.
    #[error("{origin}: {key} cannot be {value}: {reason}")]
    Value { origin: Origin, key: &'static str, value: String, reason: String },
    /// There is no home directory to put the data in.
    #[error("there is no default data directory, because HOME is not set; name one with --data-dir DIR")]
    NoHome,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "; `martlet up --print-config` lists what there is".to_owned(),
        |nearest| format!("; did you mean {nearest}?"),
    )
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// What defaults depend on.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Whether the effective user is root.
    pub(crate) root: bool,
    /// Physical memory, in MB.
    pub(crate) memory_mb: u64,
}

/// Everything that configuration is made from.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    /// The flags that were given, in order; a later one wins.
    pub(crate) flags: Vec<(&'static Key, String)>,
    /// All environment variables that are Unicode.
    pub(crate) environment: Vec<(String, String)>,
    /// The file that was asked for by flag.
    pub(crate) file: Option<PathBuf>,
    pub(crate) machine: Machine,
}

/// Every key with its value and where that was set.
#[derive(Debug)]
pub(crate) struct Layers {
    settings: BTreeMap<&'static str, (Value, Origin)>,
}

impl Layers {
    /// Lays the layers over each other: defaults < file < environment < flags. Without a named file,
    /// `martlet.toml` in the data directory is read when it exists.
    ///
    /// # Errors
    /// The first [`ConfigError`] met.
    pub(crate) fn load(inputs: &Inputs) -> Result<Self, ConfigError> {
        let variable = |name: &str| {
            inputs.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        let mut over = BTreeMap::new();
        for (name, text) in &inputs.environment {
            if name.starts_with("MARTLET_") && !OTHER_VARIABLES.contains(&name.as_str()) {
                let key = find_variable(name)?;
                set(&mut over, key, text, Origin::Environment(name.clone()))?;
            }
        }
        for (key, text) in &inputs.flags {
            set(&mut over, key, text, Origin::Flag(key.flag()))?;
        }

        let named = inputs.file.clone().or_else(|| variable("MARTLET_CONFIG").map(PathBuf::from));
        let mut settings = match named {
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                read_file(&path, &text)?
            }
            None => {
                let data_dir = match over.get("data_dir") {
                    Some((Value::Path(path), _)) => path.clone(),
                    _ => default_data_dir(inputs.machine.root, variable)?,
                };
                read_data_dir_file(&data_dir)?
            }
        };
        settings.append(&mut over);

        for key in KEYS {
            if !settings.contains_key(key.name) {
                let value = match key.default {
                    Fallback::Fixed("") => Value::Paths(Vec::new()),
                    Fallback::Fixed(text) => read(key, text, &Origin::Default)?,
                    Fallback::DataDir => Value::Path(default_data_dir(inputs.machine.root, variable)?),
                    Fallback::MemoryBudget => Value::Number((inputs.machine.memory_mb / 4 * 3).max(128)),
                };
                settings.insert(key.name, (value, Origin::Default));
            }
        }
        Ok(Self { settings })
    }

    /// All keys in the order of the table, each with its value as the file would spell it and its origin.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().filter_map(|key| self.settings.get(key.name).map(|(value, origin)| (key, value, origin)))
    }

    /// The error of a value that its kind accepts and the rest of the configuration does not.
    pub(crate) fn refused(&self, name: &'static str, reason: String) -> ConfigError {
        let (value, origin) = &self.settings[name];
        ConfigError::Value { origin: origin.clone(), key: name, value: value.to_string(), reason }
    }

    /// Where the value of `name` was set.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        &self.settings[name].1
    }

    pub(crate) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text.clone(),
            other => other.to_string(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self.value(name) {
            Value::Path(path) => path.clone(),
            other => unreachable!("{name} is no path but {other}"),
        }
    }

    pub(crate) fn paths(&self, name: &str) -> Vec<PathBuf> {
        match self.value(name) {
            Value::Paths(paths) => paths.clone(),
            other => unreachable!("{name} is no list of paths but {other}"),
        }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        match self.value(name) {
            Value::Address(address) => *address,
            other => unreachable!("{name} is no address but {other}"),
        }
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Switch(true))
    }

    /// A number; the bounds in the table of keys keep it within every type it is asked as.
    pub(crate) fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        match self.value(name) {
            Value::Number(number) => {
                T::try_from(*number).unwrap_or_else(|_| unreachable!("{name} is within its bounds"))
            }
            other => unreachable!("{name} is no number but {other}"),
        }
    }

    pub(crate) fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.number(name))
    }

    /// A value by the name of its key. Every key has one, and of its own kind: [`Layers::load`] saw to both.
    fn value(&self, name: &str) -> &Value {
        &self.settings[name].0
    }
}

type Settings = BTreeMap<&'static str, (Value, Origin)>;

fn read(key: &'static Key, text: &str, origin: &Origin) -> Result<Value, ConfigError> {
    Value::from_text(key.kind, text).map_err(|reason| ConfigError::Value {
        origin: origin.clone(),
        key: key.name,
        value: format!("{text:?}"),
        reason,
    })
}

fn set(settings: &mut Settings, key: &'static Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
    let value = read(key, text, &origin)?;
    settings.insert(key.name, (value, origin));
    Ok(())
}

fn find_variable(name: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.variable() == name).ok_or_else(|| {
        let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        let candidates = variables.iter().map(String::as_str).chain(OTHER_VARIABLES.iter().copied());
        let nearest = keys::nearest(name, candidates).map(str::to_owned);
        ConfigError::UnknownVariable { name: name.to_owned(), nearest }
    })
}

/// Data directories of servers that run on this machine without flags or files that say otherwise: this user's, then
/// root's. `MARTLET_DATA_DIR` is the only one when it is set.
pub(crate) fn local_data_dirs(root: bool, variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(path) = variable("MARTLET_DATA_DIR") {
        return vec![path.into()];
    }
    let names = ["XDG_DATA_HOME", "HOME"];
    let values = names.map(&variable);
    let variable =
        |name: &str| names.iter().position(|known| *known == name).and_then(|i| values[i].as_deref());
    let mut paths: Vec<PathBuf> = default_data_dir(root, variable).into_iter().collect();
    if !root {
        paths.push(ROOTS_DATA_DIR.into());
    }
    paths
}

fn default_data_dir<'a>(
    root: bool,
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Result<PathBuf, ConfigError> {
    if root {
        return Ok(ROOTS_DATA_DIR.into());
    }
    // The base directory rules say that a relative XDG_DATA_HOME is to be ignored.
    if let Some(data_home) = variable("XDG_DATA_HOME").map(Path::new).filter(|path| path.is_absolute()) {
        return Ok(data_home.join("martlet"));
    }
    match variable("HOME").map(Path::new).filter(|path| path.is_absolute()) {
        Some(home) => Ok(home.join(".local/share/martlet")),
        None => Err(ConfigError::NoHome),
    }
}

fn read_data_dir_file(data_dir: &Path) -> Result<Settings, ConfigError> {
    let path = data_dir.join(FILE_NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // Somebody else's data directory, or none yet: opening it says more than this layer could.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Settings::new());
        }
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let settings = read_file(&path, &text)?;
    if let Some((value, origin)) = settings.get("data_dir") {
        return Err(ConfigError::Value {
            origin: origin.clone(),
            key: "data_dir",
            value: value.to_string(),
            reason: "this file was found in the data directory and cannot name another; use --data-dir DIR"
                .into(),
        });
    }
    Ok(settings)
}

fn read_file(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let origin_at = |offset: usize| Origin::File {
        path: path.to_owned(),
        line: 1 + text[..offset.min(text.len())].matches('\n').count(),
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: origin_at(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut settings = Settings::new();
    read_table("", table.get_ref(), &origin_at, &mut settings)?;
    Ok(settings)
}

fn read_table(
    prefix: &str,
    table: &DeTable<'_>,
    origin_at: &dyn Fn(usize) -> Origin,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for (name, value) in table.iter() {
        let full = format!("{prefix}{}", name.get_ref());
        let origin = origin_at(name.span().start);
        let inside = format!("{full}.");
        if let DeValue::Table(table) = value.get_ref()
            && KEYS.iter().any(|key| key.name.starts_with(&inside))
        {
            read_table(&inside, table, origin_at, settings)?;
            continue;
        }
        let Some(key) = keys::find(&full) else {
            let nearest = keys::nearest(&full, KEYS.iter().map(|key| key.name)).map(str::to_owned);
            return Err(ConfigError::UnknownKey { origin, name: full, nearest });
        };
        let value = Value::from_toml(key.kind, value.get_ref()).map_err(|reason| ConfigError::Value {
            origin: origin.clone(),
            key: key.name,
            value: spelled(value.get_ref()),
            reason,
        })?;
        settings.insert(key.name, (value, origin));
    }
    Ok(())
}

fn spelled(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
