//! Guessing a function's runtime and handler from its files, without running any of them.

use std::fmt;

/// The languages that are told apart, and the one that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Language {
    /// An executable named `bootstrap`.
    Provided,
    Python,
    Node,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provided => "provided.al2023",
            Self::Python => "Python",
            Self::Node => "Node",
        })
    }
}

/// A file at the top of the function, or the one that its `package.json` names as main.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its path inside the function.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A handler that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) language: Language,
    pub(crate) handler: String,
}

/// Why there is no guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GuessError {
    #[error(
        "found no handler: looked for a function named {} in the .py, .mjs, .js and .cjs files at the top, and for a \
         file named bootstrap",
        FUNCTIONS.join(" or ")
    )]
    Nothing,
    #[error("found TypeScript only ({0}); compile it to JavaScript and deploy what comes out")]
    TypeScript(String),
    #[error("found handlers of several languages: {0}; say which one is meant with --runtime or --handler")]
    Several(String),
}

/// Names of handler functions, best first.
const FUNCTIONS: &[&str] = &["lambda_handler", "handler", "lambdaHandler"];

/// Stems of files that usually hold the handler, best first; any other follows in the order of the alphabet.
const STEMS: &[&str] = &["lambda_function", "app", "index", "main", "handler", "function", "server"];

/// The best guess at the handler, among `sources` and of `language` when that is known already.
///
/// # Errors
/// [`GuessError`] when nothing, or more than one language, has a handler.
pub(crate) fn handler(sources: &[Source], language: Option<Language>) -> Result<Guess, GuessError> {
    let wanted = |found: &Guess| language.is_none_or(|language| found.language == language);
    let mut found: Vec<(Rank, Guess)> = sources
        .iter()
        .filter_map(|source| examine(source, sources))
        .filter(|(_, guess)| wanted(guess))
        .collect();
    found.sort_by(|left, right| left.0.cmp(&right.0));
    let Some((_, best)) = found.first() else {
        let typescript = sources.iter().find(|source| source.name.ends_with(".ts"));
        return Err(
            typescript.map_or(GuessError::Nothing, |source| GuessError::TypeScript(source.name.clone()))
        );
    };
    // A bootstrap is unmistakable; helpers in other languages often lie beside it.
    if best.language != Language::Provided
        && let Some((_, other)) = found.iter().find(|(_, guess)| guess.language != best.language)
    {
        return Err(GuessError::Several(format!(
            "{} ({}), {} ({})",
            best.handler, best.language, other.handler, other.language
        )));
    }
    Ok(best.clone())
}

/// The language of the file that a handler names, such as `app.handler`; `None` when no source fits.
pub(crate) fn language_of(handler: &str, sources: &[Source]) -> Option<Language> {
    let module = handler.rsplit_once('.').map_or(handler, |(module, _)| module);
    let has = |name: String| sources.iter().any(|source| source.name == name);
    if has(format!("{}.py", module.replace('.', "/"))) {
        Some(Language::Python)
    } else if [".mjs", ".js", ".cjs"].iter().any(|extension| has(format!("{module}{extension}"))) {
        Some(Language::Node)
    } else {
        has("bootstrap".into()).then_some(Language::Provided)
    }
}

/// Orders guesses: a bootstrap, then what package.json calls main, then familiar files, then familiar functions.
type Rank = (usize, usize, usize, String);

fn examine(source: &Source, sources: &[Source]) -> Option<(Rank, Guess)> {
    if source.name == "bootstrap" {
        let guess = Guess { language: Language::Provided, handler: "bootstrap".into() };
        return Some(((0, 0, 0, source.name.clone()), guess));
    }
    let (stem, extension) = source.name.rsplit_once('.')?;
    let (language, defines): (_, fn(&str, &str) -> bool) = match extension {
        "py" => (Language::Python, python_defines),
        "mjs" | "js" | "cjs" => (Language::Node, node_exports),
        _ => return None,
    };
    let function = FUNCTIONS.iter().position(|function| defines(&source.text, function))?;
    let is_main = main_of(sources).is_some_and(|main| main == source.name);
    let familiar = STEMS.iter().position(|known| *known == stem).unwrap_or(STEMS.len());
    let rank = (if is_main { 1 } else { 2 }, familiar, function, source.name.clone());
    Some((rank, Guess { language, handler: format!("{stem}.{}", FUNCTIONS[function]) }))
}

/// The file that `package.json` names as main, without a leading `./`.
pub(crate) fn main_of(sources: &[Source]) -> Option<String> {
    let package = sources.iter().find(|source| source.name == "package.json")?;
    let package: serde_json::Value = serde_json::from_str(&package.text).ok()?;
    let main = package.get("main")?.as_str()?;
    Some(main.strip_prefix("./").unwrap_or(main).to_owned())
}

/// Whether a module of Python binds `name` at its top: `def`, `async def`, assignment or import.
fn python_defines(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let definition = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
        if let Some(rest) = definition {
            return begins_with_word(rest.trim_start(), name);
        }
        if line.starts_with("from ") {
            let imported = line.split(" import ").nth(1).unwrap_or_default();
            return imported.split(',').any(|item| item.split_whitespace().next_back() == Some(name));
        }
        begins_with_word(line, name)
            && line[name.len()..].trim_start().strip_prefix('=').is_some_and(|rest| !rest.starts_with('='))
    })
}

/// Whether a module of JavaScript exports `name`, in one of the ways that are written by hand or by bundlers.
fn node_exports(text: &str, name: &str) -> bool {
    let statements =
        ["export const ", "export let ", "export var ", "export function ", "export async function "];
    let members = ["exports.", "module.exports."];
    let statement = |line: &str| {
        let line = line.trim_start();
        statements
            .iter()
            .any(|start| line.strip_prefix(start).is_some_and(|rest| begins_with_word(rest, name)))
            || members.iter().any(|start| {
                line.strip_prefix(start).is_some_and(|rest| {
                    begins_with_word(rest, name) && rest[name.len()..].trim_start().starts_with('=')
                })
            })
    };
    text.lines().any(statement)
        || braces_after(text, "export").any(|names| lists(names, name, " as "))
        || braces_after(text, "module.exports =").any(|names| lists(names, name, ":"))
        // What esbuild writes for CommonJS.
        || braces_after(text, "_exports,").any(|names| lists(names, name, ":"))
}

/// The insides of every `START { ... }`.
fn braces_after<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let inside = text[at + start.len()..].trim_start().strip_prefix('{')?;
        inside.split('}').next()
    })
}

/// Whether a list between braces exports `name`: as itself, or renamed to it (`x as name`), or as a key (`name: x`).
fn lists(names: &str, name: &str, separator: &str) -> bool {
    names.split(',').any(|item| match item.split_once(separator) {
        Some((_, renamed)) if separator == " as " => renamed.trim() == name,
        Some((key, _)) => key.trim() == name,
        None => begins_with_word(item.trim().trim_start_matches("async "), name),
    })
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| {
        !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_' || next == '$')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(name, text)| Source { name: (*name).into(), text: (*text).into() }).collect()
    }

    fn guessed(files: &[(&str, &str)]) -> Result<String, GuessError> {
        handler(&sources(files), None).map(|guess| guess.handler)
    }

    #[test]
    fn python_handlers_are_found_where_they_are_bound() {
        assert_eq!(
            guessed(&[("lambda_function.py", "def lambda_handler(event, context):\n")]).unwrap(),
            "lambda_function.lambda_handler"
        );
        assert_eq!(guessed(&[("app.py", "x = 1\nasync def handler(e, c): ...")]).unwrap(), "app.handler");
        assert_eq!(guessed(&[("main.py", "handler = Mangum(app)")]).unwrap(), "main.handler");
        assert_eq!(guessed(&[("main.py", "from core import run as handler")]).unwrap(), "main.handler");
        for none in
            ["# def handler(", "  def handler(self):", "def handlers(e, c):", "handler == 3", "handler(1)"]
        {
            assert_eq!(guessed(&[("app.py", none)]), Err(GuessError::Nothing), "{none}");
        }
    }

    #[test]
    fn node_handlers_are_found_where_they_are_exported() {
        for text in [
            "export const handler = async (event) => {}",
            "export async function handler(event) {}",
            "exports.handler = async () => {}",
            "module.exports.handler = middy(x)",
            "module.exports = { handler }",
            "module.exports = {\n  other: 1,\n  handler: run,\n}",
            "const a = 1;\nexport { a, run as handler };",
            "module.exports = { async handler(event) { } }",
        ] {
            assert_eq!(guessed(&[("index.js", text)]).as_deref(), Ok("index.handler"), "{text}");
        }
        for text in ["// handler", "const handler = 1", "exports.handlers = 1", "export { handler as other }"]
        {
            assert_eq!(guessed(&[("index.js", text)]), Err(GuessError::Nothing), "{text}");
        }
    }

    #[test]
    fn familiar_files_and_functions_come_first() {
        let python = "def handler(e, c): ...\ndef lambda_handler(e, c): ...";
        assert_eq!(
            guessed(&[("aaa.py", python), ("main.py", python), ("app.py", python)]).unwrap(),
            "app.lambda_handler"
        );
        let node = "exports.handler = 1";
        assert_eq!(
            guessed(&[
                ("index.js", node),
                ("dist/run.js", node),
                ("package.json", "{\"main\": \"./dist/run.js\"}")
            ])
            .unwrap(),
            "dist/run.handler"
        );
    }

    #[test]
    fn a_bootstrap_wins_and_languages_do_not_mix() {
        let python = ("app.py", "def handler(e, c): ...");
        let node = ("app.js", "exports.handler = 1");
        assert_eq!(guessed(&[python, ("bootstrap", "#!/bin/sh")]).unwrap(), "bootstrap");
        assert!(matches!(guessed(&[python, node]), Err(GuessError::Several(_))));
        let only = handler(&sources(&[python, node]), Some(Language::Node)).unwrap();
        assert_eq!(only, Guess { language: Language::Node, handler: "app.handler".into() });
        assert_eq!(
            guessed(&[("index.ts", "export const handler = 1")]),
            Err(GuessError::TypeScript("index.ts".into()))
        );
    }

    #[test]
    fn a_handler_tells_its_language() {
        let files = sources(&[("app.py", ""), ("web.mjs", "")]);
        assert_eq!(language_of("app.run", &files), Some(Language::Python));
        assert_eq!(language_of("web.run", &files), Some(Language::Node));
        assert_eq!(language_of("none.run", &files), None);
    }

    proptest! {
        #[test]
        fn no_source_makes_it_panic(text in "(exports\\.|module\\.exports = |export |def |handler|[{},:= \n]|\\PC){0,40}") {
            for name in ["a.py", "a.js", "package.json", "bootstrap"] {
                let _ = guessed(&[(name, &text)]);
            }
        }
    }
}
