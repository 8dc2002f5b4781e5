//! From a directory or a zip file to what the API wants: a package, a runtime, a handler.

pub(crate) mod guess;
mod pack;

pub(crate) use pack::{PackError, Package};

use guess::Language;
use martlet_model::{RuntimeFamily, RuntimeName};

/// The newest of the server's runtimes for a language.
pub(crate) fn newest(runtimes: &[String], language: Language) -> Option<&str> {
    let rank = |name: &str| match (language, RuntimeName::new(name).family()?) {
        (Language::Python, RuntimeFamily::Python { minor }) => Some(minor),
        (Language::Node, RuntimeFamily::Node { major }) => Some(major),
        // provided.al2 is the older of the two.
        (Language::Provided, RuntimeFamily::Provided) => Some(u32::from(name == "provided.al2023")),
        _ => None,
    };
    let ranked = runtimes.iter().filter_map(|name| Some((rank(name)?, name.as_str())));
    ranked.max().map(|(_, name)| name)
}

/// The language that a runtime runs; `None` for one that no bootstrap of ours serves.
pub(crate) fn language_of_runtime(runtime: &str) -> Option<Language> {
    Some(match RuntimeName::new(runtime).family()? {
        RuntimeFamily::Python { .. } => Language::Python,
        RuntimeFamily::Node { .. } => Language::Node,
        RuntimeFamily::Provided => Language::Provided,
    })
}

/// A function's name after a directory or file: what a name may not have becomes a hyphen.
pub(crate) fn name_after(stem: &str) -> Option<String> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let name: String = stem.chars().map(|letter| if word(letter) { letter } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(64).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_runtime_is_newest_by_number() {
        let runtimes =
            ["python3.9", "python3.12", "nodejs20.x", "provided.al2", "provided.al2023", "nodejs8.x"];
        let runtimes: Vec<String> = runtimes.map(str::to_owned).to_vec();
        assert_eq!(newest(&runtimes, Language::Python), Some("python3.12"));
        assert_eq!(newest(&runtimes, Language::Node), Some("nodejs20.x"));
        assert_eq!(newest(&runtimes, Language::Provided), Some("provided.al2023"));
        assert_eq!(newest(&runtimes[..2], Language::Node), None);
    }

    #[test]
    fn names_come_from_directories() {
        assert_eq!(name_after("hello-python").as_deref(), Some("hello-python"));
        assert_eq!(name_after("my app (2)").as_deref(), Some("my-app--2"));
        assert_eq!(name_after("...").as_deref(), None);
        assert_eq!(name_after(&"x".repeat(80)).unwrap().len(), 64);
    }
}
