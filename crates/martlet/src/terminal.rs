//! What people see: data goes to stdout, everything else to stderr; colour only where it is welcome, and never the
//! only bearer of a meaning.

use std::error::Error;
use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::sync::OnceLock;

/// Text in bold where stderr takes colours.
pub(crate) fn bold(text: impl Display) -> String {
    styled("1", text)
}

/// Text in red where stderr takes colours.
pub(crate) fn red(text: impl Display) -> String {
    styled("1;31", text)
}

/// Text in yellow where stderr takes colours.
pub(crate) fn yellow(text: impl Display) -> String {
    styled("1;33", text)
}

/// Text in cyan where stderr takes colours.
pub(crate) fn cyan(text: impl Display) -> String {
    styled("36", text)
}

fn styled(code: &str, text: impl Display) -> String {
    if stderr_has_colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// Whether stderr is a terminal and neither `NO_COLOR` nor `TERM=dumb` asks for plain text.
pub(crate) fn stderr_has_colours() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        std::io::stderr().is_terminal() && !set("NO_COLOR") && !dumb
    })
}

/// Tells on stderr what is being done.
pub(crate) fn progress(text: impl Display) {
    eprintln!("{text}");
}

/// Suggests on stderr what to try next.
pub(crate) fn try_next(commands: &[String]) {
    eprintln!("{}", bold("Try next:"));
    for command in commands {
        eprintln!("  {}", cyan(command));
    }
}

/// How this program is called: a path where it was called by one, for it may not be on the PATH then.
pub(crate) fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { shell_word(&called) } else { "martlet".to_owned() }
}

/// A word as a shell reads it back.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Prints an error with everything that caused it, once, and what to do about it.
pub(crate) fn report(error: &dyn Error, hint: Option<&str>) {
    eprintln!("{} {error}", red("error:"));
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  caused by: {cause}");
        source = cause.source();
    }
    if let Some(hint) = hint {
        eprintln!("{} {hint}", cyan("hint:"));
    }
}

/// A table with a head; columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A size as people read it: `812 B`, `1.4 KB`, `23 MB`.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let number = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..10_240 => format!("{:.1} KB", number / 1024.0),
        10_240..1_048_576 => format!("{:.0} KB", number / 1024.0),
        1_048_576..10_485_760 => format!("{:.1} MB", number / 1_048_576.0),
        _ => format!("{:.0} MB", number / 1_048_576.0),
    }
}

/// Writes to stdout; a reader that has gone away ends the program quietly, as it ends any other filter.
pub(crate) fn print(bytes: &[u8]) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to stdout, like [`print`].
pub(crate) fn print_line(line: impl Display) {
    print(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(vec!["a-long-name".into(), "1 B".into()]);
        assert_eq!(table.to_string(), "NAME         SIZE\na-long-name  1 B\n");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(shell_word("/var/lib/martlet"), "/var/lib/martlet");
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
    }

    #[test]
    fn sizes_are_short() {
        let sizes: Vec<String> = [0, 1023, 1024, 10_240, 1_500_000, 50_000_000].map(size).to_vec();
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KB", "10 KB", "1.4 MB", "48 MB"]);
    }
}
