//! Mistakes in a configuration file and how they are shown: file, line, the line itself, and what
//! to do instead. Knows nothing of what the settings mean. Invariant: a line that may hold a secret
//! is never quoted beyond its key.

use std::fmt::{self, Write};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One step into the document: a key or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Key(&'static str),
    Index(usize),
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the file it is about; `None` when it is about something missing.
    pub span: Option<Range<usize>>,
    pub message: String,
    pub hint: Option<String>,
}

/// Every mistake found, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Where `path` lies in the text; the nearest part of it that exists when it does not.
pub fn locate(document: &Spanned<DeTable<'_>>, path: &[Step]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let Step::Key(key) = first else { return None };
    let mut value: &Spanned<DeValue<'_>> = document.get_ref().get(*key)?;
    for step in rest {
        let next = match step {
            Step::Key(key) => value.get_ref().get(*key),
            Step::Index(index) => value.get_ref().get(*index),
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}

/// All problems of one file, in the order of their lines.
pub fn render(file: &str, text: &str, mut problems: Vec<Problem>) -> ConfigError {
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
    let shown: Vec<String> = problems
        .iter()
        .map(|problem| render_one(file, text, problem))
        .collect();
    ConfigError(shown.join("\n"))
}

fn render_one(file: &str, text: &str, problem: &Problem) -> String {
    let mut shown = String::new();
    match &problem.span {
        Some(span) => render_excerpt(&mut shown, file, text, span, &problem.message),
        None => shown.push_str(&format!("{file}: {}\n", problem.message.trim_end())),
    }
    if let Some(hint) = &problem.hint {
        // Writing into a String cannot fail.
        let _ = writeln!(shown, "  hint: {hint}");
    }
    shown
}

fn render_excerpt(shown: &mut String, file: &str, text: &str, span: &Range<usize>, message: &str) {
    let start = boundary(text, span.start);
    let line_number = text[..start].matches('\n').count() + 1;
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let column = text[line_start..start].chars().count();
    let end = boundary(text, span.end.min(line_start + line.len())).max(start);
    let width = text[start..end].chars().count().max(1);
    let (quoted, column, width) = match masked(line) {
        Some(masked) => (masked, 0, 1),
        None => (line.to_string(), column, width),
    };
    let margin = " ".repeat(line_number.to_string().len());
    let _ = writeln!(shown, "{file}:{line_number}: {}", message.trim_end());
    let _ = writeln!(shown, "{margin} |");
    let _ = writeln!(shown, "{line_number} | {quoted}");
    let _ = writeln!(
        shown,
        "{margin} | {}{}",
        " ".repeat(column),
        "^".repeat(width)
    );
}

/// The nearest place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}

/// The key of a line whose value may be a secret, even when the key is misspelt.
fn masked(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase().replace("second", "");
    let words = ["sec", "key", "pass", "redis", "postgres"];
    if !words.iter().any(|word| lower.contains(word)) {
        return None;
    }
    let key = line.split_once('=').map_or("", |(key, _)| key);
    Some(format!("{key}= …"))
}

/// The word in `words` that differs least from `word`, if it is close enough to be meant.
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    words
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 2)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in characters. Bounded: a word longer than 64 counts as its first 64.
fn distance(one: &str, two: &str) -> usize {
    let one: Vec<char> = one.chars().take(64).collect();
    let two: Vec<char> = two.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in two.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_file_and_line_and_points_at_the_value() {
        let text = "workers = 1\nthreads = 900\n";
        let document = DeTable::parse(text).unwrap();
        let span = locate(&document, &[Step::Key("threads")]);
        let problem = Problem {
            span,
            message: "too many".into(),
            hint: Some("fewer".into()),
        };
        let shown = render("a.toml", text, vec![problem]).0;
        assert_eq!(
            shown,
            "a.toml:2: too many\n  |\n2 | threads = 900\n  |           ^^^\n  hint: fewer\n"
        );
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_quoted() {
        for line in [
            "secret = \"tiger\"",
            "secrt = \"tiger\"",
            "a = {key = 1, secret = \"tiger\"}",
        ] {
            let problem = Problem {
                span: Some(2..4),
                message: "bad".into(),
                hint: None,
            };
            let shown = render("a.toml", line, vec![problem]).0;
            assert!(!shown.contains("tiger"), "{shown}");
        }
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_does_no_harm() {
        for span in [0..100, 50..60, 1..2, 2..2, 5..6, 6..7, 7..9] {
            let problem = Problem {
                span: Some(span),
                message: "bad".into(),
                hint: None,
            };
            assert!(render("a", "é=ü\r\n\r\n", vec![problem]).0.contains("a:"));
        }
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_foreign_one_none() {
        assert_eq!(nearest("chanels", &["channels", "echo"]), Some("channels"));
        assert_eq!(nearest("ecko", &["channels", "echo"]), Some("echo"));
        assert_eq!(nearest("websocket", &["channels", "echo"]), None);
    }
}
