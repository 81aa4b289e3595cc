//! How transcripts write values: placeholders, strings between backticks, and what an expected
//! value accepts.

use serde_json::Value;

/// Begins an expected string that is compared as JSON if it holds JSON.
const LOOSE: char = '\u{1}';

/// `a=1 b=2`; a word without `=` has an empty value.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_ascii_whitespace()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
}

/// Replaces `$repeat(TEXT, COUNT)` and every `$NAME` that `lookup` knows; a name is letters, digits,
/// `_`, and `.` between them, and may have an argument in parentheses.
pub fn fill(
    text: &str,
    lookup: &dyn Fn(&str, Option<&str>) -> Option<String>,
) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        filled.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let argument = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        let value = match (name, argument) {
            ("repeat", Some((argument, _))) => repeat(argument)?,
            (_, argument) => lookup(name, argument.map(|(argument, _)| argument))
                .ok_or_else(|| format!("nothing is known of ${name}"))?,
        };
        filled.push_str(&value);
        rest = argument.map_or(after, |(_, rest)| rest);
    }
    filled.push_str(rest);
    Ok(filled)
}

fn repeat(argument: &str) -> Result<String, String> {
    let parts = argument.rsplit_once(", ");
    let (text, count) = parts.ok_or("$repeat(TEXT, COUNT)")?;
    let count: usize = count.parse().map_err(|_| "$repeat(TEXT, COUNT)")?;
    Ok(text.repeat(count))
}

/// Makes a JSON string of everything between backticks.
pub fn backticks(text: &str) -> String {
    rewrite(text, |inner| inner.to_owned())
}

/// Likewise, for expected values.
pub fn loose_backticks(text: &str) -> String {
    rewrite(text, |inner| format!("{LOOSE}{inner}"))
}

fn rewrite(text: &str, change: impl Fn(&str) -> String) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| match index % 2 {
            0 => part.to_owned(),
            _ => Value::from(change(part)).to_string(),
        })
        .collect()
}

/// Whether the text received is what the transcript has: the same JSON, or the same text.
pub fn check_text(expected: &str, actual: &str) -> Result<(), String> {
    let differ = || Err(format!("received {actual}"));
    if expected == "*" {
        return Ok(());
    }
    let json = serde_json::from_str::<Value>(&loose_backticks(expected));
    match (json, serde_json::from_str::<Value>(actual)) {
        (Ok(expected), Ok(actual)) if accepts(&expected, &actual) => Ok(()),
        (Ok(_), _) => differ(),
        (Err(error), _) if expected.starts_with('{') => Err(format!("not JSON: {error}")),
        _ if expected == actual => Ok(()),
        _ => differ(),
    }
}

fn accepts(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(expected), actual) if expected == "*" => !actual.is_null(),
        (Value::String(expected), Value::String(actual)) => match expected.strip_prefix(LOOSE) {
            Some(expected) => check_text(expected, actual).is_ok(),
            None => expected == actual,
        },
        (Value::Array(expected), Value::Array(actual)) => {
            let pairs = || expected.iter().zip(actual);
            expected.len() == actual.len() && pairs().all(|(e, a)| accepts(e, a))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            let has = |(key, e): (&String, &Value)| actual.get(key).is_some_and(|a| accepts(e, a));
            expected.len() == actual.len() && expected.iter().all(has)
        }
        (expected, actual) => expected == actual,
    }
}
