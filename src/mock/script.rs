//! Rules that decide what a mock answers: when each applies, what it does, and how it is written, on
//! the command line (`token=dead* answer=Unregistered`) and in TOML. Owns the counts that rules go by.
//! Does not know what an answer looks like.
//!
//! Invariant: the first rule that applies is the only one. A rule counts the requests that its
//! patterns fit, whether it applied or not.

use std::time::Duration;

use serde::Serialize;

use crate::base::dice::Dice;
use crate::mock::{Asked, Kind, Sight};

/// More is a mistake.
const RULES: usize = 1000;
/// Longer than any client waits.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a GOAWAY says (RFC 9113 section 6.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GoAway {
    /// Apple's `reason` beside it; empty: none.
    pub reason: String,
    pub code: u32,
    /// The last stream; else as it follows from what is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The provider decides.
    Nothing,
    Answer {
        status: u16,
        /// Empty where the provider has none for the status.
        word: String,
        goaway: Option<GoAway>,
    },
    Silence,
    Reset(u32),
    GoAway(GoAway),
    Cut,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From 1, in the order in which they were given.
    pub number: usize,
    token: Option<String>,
    path: Option<String>,
    every: Option<u64>,
    nth: Option<(u64, u64)>,
    /// Of a million.
    chance: Option<u64>,
    seen: u64,
    pub deed: Deed,
    pub delay: Duration,
    pub retry_after: Option<u32>,
    /// Instead of the one that belongs to the answer.
    pub body: Option<String>,
}

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
}

impl Script {
    /// Adds a rule from the command line: words with blanks between them, each `name=value` or a bare
    /// name. Values hold no blanks.
    pub fn add_text(&mut self, kind: Kind, text: &str) -> Result<(), String> {
        let words = text.split_whitespace();
        let pairs = words.map(|word| word.split_once('=').unwrap_or((word, "")));
        let pairs = pairs.map(|(name, value)| (name.to_string(), value.to_string()));
        self.add(kind, &pairs.collect::<Vec<_>>())
            .map_err(|why| format!("the rule `{text}`: {why}"))
    }

    /// Adds all `[[rule]]` tables of a TOML text.
    pub fn add_toml(&mut self, kind: Kind, text: &str) -> Result<(), String> {
        let mut table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let rules = table.remove("rule");
        if let Some(other) = table.keys().next() {
            return Err(format!(
                "`{other}` is no key here; rules are `[[rule]]` tables"
            ));
        }
        let Some(toml::Value::Array(rules)) = rules else {
            return Err("there is no `[[rule]]` table in it".to_string());
        };
        for (index, rule) in rules.into_iter().enumerate() {
            let add = |script: &mut Script| {
                let toml::Value::Table(rule) = rule else {
                    return Err("it is no table".to_string());
                };
                let pairs: Result<Vec<_>, String> = rule
                    .into_iter()
                    .map(|(name, value)| Ok((name.clone(), written(&name, &value)?)))
                    .collect();
                script.add(kind, &pairs?)
            };
            add(self).map_err(|why| format!("rule {}: {why}", index + 1))?;
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, pairs: &[(String, String)]) -> Result<(), String> {
        if self.rules.len() == RULES {
            return Err(format!("there are more than {RULES} rules"));
        }
        let number = self.rules.len() + 1;
        self.rules.push(Draft::read(kind, pairs)?.rule(number)?);
        Ok(())
    }

    /// The first rule that applies.
    pub fn find(&mut self, asked: &Asked, sight: &Sight, dice: &mut Dice) -> Option<Rule> {
        let rules = &mut self.rules;
        let found = rules
            .iter_mut()
            .find_map(|rule| rule.applies(asked, sight, dice).then_some(rule));
        found.cloned()
    }
}

/// A TOML value as it would stand on the command line.
fn written(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(true) => Ok(String::new()),
        _ => Err(format!("`{name}` has to be a text, a number or `true`")),
    }
}

impl Rule {
    fn applies(&mut self, asked: &Asked, sight: &Sight, dice: &mut Dice) -> bool {
        let path_fits = match &self.path {
            Some(pattern) => fits(pattern, asked.path()),
            None => sight.is_push,
        };
        let token_fits = |pattern: &String| fits(pattern, &sight.token);
        if !path_fits || !self.token.as_ref().is_none_or(token_fits) {
            return false;
        }
        self.seen += 1;
        let seen = self.seen;
        self.every.is_none_or(|every| seen.is_multiple_of(every))
            && self
                .nth
                .is_none_or(|(first, last)| (first..=last).contains(&seen))
            && self
                .chance
                .is_none_or(|chance| dice.below(1_000_000) < chance)
    }
}

/// Whether a pattern, in which `*` is any text, fits the whole of a text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((front, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(front) else {
        return false;
    };
    let (middle, back) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(back)
}

/// A rule as it is read.
#[derive(Default)]
struct Draft {
    token: Option<String>,
    path: Option<String>,
    every: Option<u64>,
    nth: Option<(u64, u64)>,
    chance: Option<u64>,
    answer: Option<(u16, String)>,
    silence: bool,
    reset: Option<u32>,
    goaway: Option<GoAway>,
    code: Option<u32>,
    last: Option<u32>,
    close: bool,
    delay: Duration,
    retry_after: Option<u32>,
    body: Option<String>,
}

impl Draft {
    fn read(kind: Kind, pairs: &[(String, String)]) -> Result<Draft, String> {
        let mut draft = Draft::default();
        for (at, (name, value)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("`{name}` is there twice"));
            }
            let whole = || {
                value
                    .parse()
                    .map_err(|_| format!("`{name}={value}` is no number"))
            };
            let number = || match whole()? {
                0 => Err(format!("`{name}` counts from 1")),
                number => Ok(number),
            };
            match &**name {
                "silence" | "close" if !value.is_empty() => {
                    return Err(format!("`{name}` takes no value"));
                }
                "silence" => draft.silence = true,
                "close" => draft.close = true,
                "goaway" => {
                    let reason = value.clone();
                    draft.goaway = Some(GoAway {
                        reason,
                        ..GoAway::default()
                    });
                }
                _ if value.is_empty() => {
                    return Err(format!("`{name}` wants a value: `{name}=…`"));
                }
                "token" => draft.token = Some(value.clone()),
                "path" => draft.path = Some(value.clone()),
                "every" => draft.every = Some(number()?),
                "nth" => draft.nth = Some(range(value)?),
                "chance" => draft.chance = Some(chance(value)?),
                "answer" => draft.answer = Some(answer(kind, value)?),
                "delay" => draft.delay = duration(value)?,
                "retry-after" | "retry_after" => draft.retry_after = Some(whole()? as u32),
                "reset" => draft.reset = Some(code(value)?),
                "code" => draft.code = Some(code(value)?),
                "last" => draft.last = Some(whole()? as u32),
                "body" => draft.body = Some(value.clone()),
                _ => return Err(unknown(name)),
            }
        }
        Ok(draft)
    }

    fn rule(self, number: usize) -> Result<Rule, String> {
        if self.goaway.is_none() && (self.code.is_some() || self.last.is_some()) {
            return Err("`code` and `last` belong to `goaway`".to_string());
        }
        if self.answer.is_none() && self.body.is_some() {
            return Err("`body` belongs to `answer`".to_string());
        }
        let goaway = self.goaway.map(|goaway| GoAway {
            code: self.code.unwrap_or(0),
            last: self.last,
            ..goaway
        });
        let deed = match (self.answer, goaway, self.reset, self.silence, self.close) {
            (Some((status, word)), goaway, None, false, false) => Deed::Answer {
                status,
                word,
                goaway,
            },
            (None, Some(goaway), None, false, false) => Deed::GoAway(goaway),
            (None, None, Some(code), false, false) => Deed::Reset(code),
            (None, None, None, true, false) => Deed::Silence,
            (None, None, None, false, true) => Deed::Cut,
            (None, None, None, false, false) => Deed::Nothing,
            _ => {
                let words = "only one of `answer`, `reset`, `silence`, `close`, `goaway` can be \
                             done, but for `goaway` behind an `answer`";
                return Err(words.to_string());
            }
        };
        let idle = deed == Deed::Nothing && self.delay.is_zero() && self.retry_after.is_none();
        if idle {
            return Err("it does nothing: add `answer=…`, `delay=…` or the like".to_string());
        }
        Ok(Rule {
            number,
            token: self.token,
            path: self.path,
            every: self.every,
            nth: self.nth,
            chance: self.chance,
            seen: 0,
            deed,
            delay: self.delay,
            retry_after: self.retry_after,
            body: self.body,
        })
    }
}

fn unknown(name: &str) -> String {
    format!(
        "`{name}` is unknown; conditions are token, path, every, nth, chance; what is done is answer, \
         body, delay, retry-after, silence, reset, goaway, code, last, close"
    )
}

/// `7` or `3-5`, from 1.
fn range(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err(format!(
            "`nth={text}` is neither a number such as 3 nor a range such as 3-5"
        )),
    }
}

/// `0.05` or `5%`, as parts of a million.
fn chance(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 10_000.0),
        None => (text, 1_000_000.0),
    };
    let number: Option<f64> = number.parse().ok();
    let parts = number.map(|number| number * unit);
    let parts = parts.filter(|parts| (0.0..=1_000_000.0).contains(parts));
    let parts = parts.ok_or_else(|| format!("`chance={text}` is neither 0 to 1 nor 0% to 100%"))?;
    Ok(parts.round() as u64)
}

/// `200ms`, `2s`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let read = units.iter().find_map(|(unit, millis)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        let millis = number * millis;
        (0.0..=DELAY_MAX.as_millis() as f64)
            .contains(&millis)
            .then(|| Duration::from_millis(millis as u64))
    });
    read.ok_or_else(|| format!("`{text}` is no time such as 200ms, 2s or 1m, up to a day"))
}

/// A status, a word of the provider, or both: `410`, `Unregistered`, `410:NewReason`.
fn answer(kind: Kind, text: &str) -> Result<(u16, String), String> {
    let words = kind.words();
    let status = |text: &str| {
        text.parse()
            .ok()
            .filter(|status| (200..=599).contains(status))
    };
    if let Some((number, word)) = text.split_once(':') {
        let status =
            status(number).ok_or_else(|| format!("`{number}` is no status of 200 to 599"))?;
        return Ok((status, word.to_string()));
    }
    if let Some(status) = status(text) {
        let word = words.iter().find(|(_, own)| *own == status);
        return Ok((status, word.map_or("", |(word, _)| word).to_string()));
    }
    let word = words.iter().find(|(word, _)| *word == text);
    let word = word.ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!(
            "`{text}` is no answer of {}; take a status such as 503, `STATUS:WORD`, or one of {}",
            kind.word(),
            all.join(", ")
        )
    })?;
    Ok((word.1, text.to_string()))
}

/// The error codes of RFC 9113 section 7, in their order.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

fn code(text: &str) -> Result<u32, String> {
    let named = CODES.iter().position(|name| *name == text);
    let code = named.map(|code| code as u32).or_else(|| text.parse().ok());
    code.ok_or_else(|| {
        format!(
            "`{text}` is no code of HTTP/2; take a number or one of {}",
            CODES.join(", ")
        )
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
