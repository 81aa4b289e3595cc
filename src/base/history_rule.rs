//! Which channels keep how much history. Knows no channel and keeps nothing.

use std::time::Duration;

/// One demand. Of several that cover a channel, the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    pub app_id: String,
    /// A channel's name; `*` stands for any text.
    pub pattern: String,
    /// Of each channel, at most.
    pub events: usize,
    pub bytes: usize,
    pub age: Duration,
}

impl HistoryRule {
    pub fn covers(&self, app_id: &str, channel: &str) -> bool {
        self.app_id == app_id && matches(&self.pattern, channel)
    }
}

/// Whether `pattern`, in which `*` stands for any text, describes all of `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        // The first place leaves most for what follows.
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_the_pattern_for_all_of_the_name() {
        for (pattern, yes, no) in [
            ("room", &["room"][..], &["rooms", "", "xroom"][..]),
            ("*", &["", "room"], &[]),
            ("room-*", &["room-", "room-1"], &["room", "a-room-1"]),
            ("*-log", &["-log", "a-log"], &["a-logs"]),
            ("a*a", &["aa", "aba"], &["a", "ab"]),
            ("a*b*c", &["abc", "a-b-b-c"], &["acb", "ac"]),
            ("*x*x*", &["xx", "axbxc"], &["x", "axb"]),
            ("ab*bc", &["abbc"], &["abc"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }
}
