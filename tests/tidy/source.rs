//! A Rust file as the rules see it: its text, and the same text with everything blanked out that is
//! no code. All forms have the same length, so a position in one is the same line in every other.

/// One file of the package.
pub struct Source {
    /// From the package's root, with `/`.
    pub path: String,
    pub text: String,
    /// Without comments and without what stands in literals.
    pub code: String,
    /// Of that, what is compiled into the program: no tests.
    pub product: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = without_literals(text);
        let product = match is_test_file(path) {
            true => blank(&code, 0, code.len()),
            false => without_tests(&code),
        };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            product,
        }
    }

    /// `path:line` of a position, as compilers write it.
    pub fn place(&self, position: usize) -> String {
        format!("{}:{}", self.path, line_of(&self.text, position))
    }

    pub fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

/// A sibling file of tests, included with `#[path]`, or a file outside the program.
fn is_test_file(path: &str) -> bool {
    !path.starts_with("src/") || path.ends_with("_tests.rs")
}

pub fn line_of(text: &str, position: usize) -> usize {
    1 + text[..position].bytes().filter(|b| *b == b'\n').count()
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `code`, not as a part of a longer word.
pub fn find_words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let starts_as_word = word.bytes().next().is_some_and(is_word);
    let ends_as_word = word.bytes().last().is_some_and(is_word);
    let found = code.match_indices(word).map(|(start, _)| start);
    found
        .filter(|start| {
            let end = start + word.len();
            let joined_before = *start > 0 && is_word(bytes[start - 1]);
            let joined_after = end < bytes.len() && is_word(bytes[end]);
            !(starts_as_word && joined_before || ends_as_word && joined_after)
        })
        .collect()
}

/// `text` with blanks between two positions; ends of lines stay.
fn blank(text: &str, start: usize, end: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for byte in &mut bytes[start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
    String::from_utf8(bytes).expect("whole literals and comments were blanked")
}

/// Blanks comments, and what stands between the quotes of strings and characters.
fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_literal(text, at);
        match end {
            None => at += 1,
            Some(end) => {
                for byte in &mut kept[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
        }
    }
    String::from_utf8(kept).expect("whole characters were blanked")
}

/// Where the comment or literal that begins at `at` ends; `None` if there begins none.
fn end_of_literal(text: &str, at: usize) -> Option<usize> {
    let rest = &text.as_bytes()[at..];
    let find = |what: &str, from: usize| text[at + from..].find(what).map(|p| at + from + p);
    let end_of_text = text.len();
    match rest {
        [b'/', b'/', ..] => Some(find("\n", 0).unwrap_or(end_of_text)),
        [b'/', b'*', ..] => Some(find("*/", 2).map_or(end_of_text, |end| end + 2)),
        [b'"', ..] => Some(end_of_string(text, at)),
        [b'r', b'"' | b'#', ..] if !is_after_word(text, at) => {
            let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return None;
            }
            let close = format!("\"{}", "#".repeat(hashes));
            Some(find(&close, 2 + hashes).map_or(end_of_text, |end| end + close.len()))
        }
        // A lifetime has no closing quote after one character.
        [b'\'', b'\\', ..] => Some(find("'", 3).map_or(end_of_text, |end| end + 1)),
        [b'\'', ..] => {
            let character = text[at + 1..].chars().next()?;
            let end = at + 1 + character.len_utf8();
            text[end..].starts_with('\'').then_some(end + 1)
        }
        _ => None,
    }
}

/// Raw byte strings begin with `br`, so one `b` before an `r` is no word.
fn is_after_word(text: &str, at: usize) -> bool {
    let before = &text.as_bytes()[..at];
    match before {
        [.., earlier, b'b'] => is_word(*earlier),
        [.., last] => is_word(*last),
        [] => false,
    }
}

fn end_of_string(text: &str, at: usize) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(at + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut product = code.to_owned();
    for (start, mark) in code.match_indices("#[cfg(test)]") {
        let after = start + mark.len();
        let end = match code[after..].find(['{', ';']) {
            Some(found) if code.as_bytes()[after + found] == b'{' => end_of_braces(code, after),
            Some(found) => after + found + 1,
            None => code.len(),
        };
        product = blank(&product, start, end);
    }
    product
}

/// Behind the `}` that closes the first `{` at or after `from`.
pub fn end_of_braces(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (index, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return index + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}
