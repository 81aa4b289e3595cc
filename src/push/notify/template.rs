//! Placeholders in texts: `{{name}}` stands for the field of that name in the note's data. There is
//! nothing else to it: no conditions, no loops, no escapes. Invariant: what cannot be filled in is
//! refused, and what was filled in is not read again.

use serde_json::{Map, Value};

/// The text with everything filled in: strings as they are, numbers and truth values in words.
///
/// ```
/// use lineman::push::notify::template::fill;
///
/// let data = serde_json::from_str(r#"{"name":"Ann","n":2}"#)?;
/// assert_eq!(fill("{{name}} has {{n}}", &data).as_deref(), Ok("Ann has 2"));
/// assert!(fill("{{nobody}}", &data).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn fill(text: &str, data: &Map<String, Value>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .ok_or("a placeholder begins with {{ and does not end with }}")?;
        let name = name.trim();
        filled.push_str(before);
        match data.get(name) {
            Some(Value::String(value)) => filled.push_str(value),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                filled.push_str(&value.to_string());
            }
            Some(_) => return Err(format!("{{{{{name}}}}} is no text, number or truth value")),
            None => return Err(format!("{{{{{name}}}}} is not in data")),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_filled_in_and_once() {
        let data = serde_json::from_str(r#"{"a":"{{b}}","b":true,"c":null,"d":{}}"#);
        let data: Map<String, Value> = data.expect("JSON");
        let table = [
            ("", Ok("")),
            ("a } { }} b", Ok("a } { }} b")),
            ("{{ a }}-{{b}}", Ok("{{b}}-true")),
            ("{{c}}", Err("{{c}} is no text, number or truth value")),
            ("{{d}}", Err("{{d}} is no text, number or truth value")),
            ("{{}}", Err("{{}} is not in data")),
            (
                "x{{a",
                Err("a placeholder begins with {{ and does not end with }}"),
            ),
        ];
        for (text, expected) in table {
            let filled = fill(text, &data);
            assert_eq!(
                filled.as_deref().map_err(String::as_str),
                expected,
                "{text}"
            );
        }
    }
}
