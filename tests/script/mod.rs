//! Transcripts: a readable conversation with the server, played against real workers and a real
//! switchboard in virtual time. The format is described in tests/transcripts/README.md.

mod notation;
mod play;
mod requests;

use std::time::Duration;

/// A line of a transcript, continued lines joined.
struct Line {
    number: usize,
    text: String,
}

/// What one line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// `NAME > TEXT`
    Say(String, String),
    /// `NAME < TEXT`
    Hear(String, String),
    /// `NAME ! VERB ARGUMENTS`
    Act(String, String),
    /// `@ +30s`
    Pass(Duration),
    /// `@ kill PROCESS`
    Kill(String),
    /// `@ start PROCESS`
    Start(String),
}

/// Plays a transcript; what went wrong, with the line, if anything did.
pub fn run(text: &str) -> Result<(), String> {
    let mut lines = lines_of(text).into_iter().peekable();
    let mut workers = 1;
    let mut limits = serde_json::Map::new();
    while let Some(line) = lines.next_if(|line| is_setting(&line.text)) {
        let broken = |why: String| format!("line {}: {why}", line.number);
        let (name, rest) = line.text.split_once(' ').unwrap_or((&line.text, ""));
        if name == "workers" {
            workers = rest.parse().map_err(|_| broken("how many?".to_owned()))?;
            continue;
        }
        for (key, value) in notation::pairs(rest) {
            let value: u64 = value.parse().map_err(|_| broken(format!("{key} of?")))?;
            limits.insert(key.to_owned(), value.into());
        }
    }
    let limits = serde_json::from_value(limits.into()).map_err(|error| error.to_string())?;
    let mut play = play::Play::new(workers, limits);
    for line in lines {
        let broken = |why| format!("line {}: {why}\n    {}", line.number, line.text);
        let (times, step) = step_of(&line.text).map_err(broken)?;
        for _ in 0..times {
            play.step(&step).map_err(broken)?;
        }
    }
    play.end()
}

fn is_setting(line: &str) -> bool {
    line.starts_with("workers ") || line.starts_with("limits ")
}

/// Without comments and empty lines.
fn lines_of(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(line) if text.starts_with(' ') => {
                line.text.push(' ');
                line.text.push_str(text.trim());
            }
            _ => lines.push(Line {
                number: index + 1,
                text: text.trim_end().to_owned(),
            }),
        }
    }
    lines
}

/// A step and how often it is to be done.
fn step_of(line: &str) -> Result<(usize, Step), String> {
    if let Some(rest) = line.strip_prefix("@ ") {
        return Ok((1, world_step(rest)?));
    }
    let (times, line) = match line.split_once(" * ") {
        Some((times, rest)) if times.bytes().all(|b| b.is_ascii_digit()) => {
            (times.parse().map_err(|_| "how often?")?, rest)
        }
        _ => (1, line),
    };
    let mut parts = line.splitn(3, ' ');
    let mut part = || parts.next().unwrap_or("").to_owned();
    let (name, sign, rest) = (part(), part(), part());
    let step = match sign.as_str() {
        ">" => Step::Say(name, rest),
        "<" => Step::Hear(name, rest),
        "!" => Step::Act(name, rest),
        _ => return Err("not a line of a transcript".to_owned()),
    };
    Ok((times, step))
}

fn world_step(text: &str) -> Result<Step, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    match verb {
        "kill" => return Ok(Step::Kill(rest.to_owned())),
        "start" => return Ok(Step::Start(rest.to_owned())),
        _ => {}
    }
    let duration = text.strip_prefix('+').and_then(|text| {
        let (digits, unit_ms) = match text.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (text.strip_suffix('s')?, 1000),
        };
        let count: u64 = digits.parse().ok()?;
        Some(Duration::from_millis(count * unit_ms))
    });
    duration
        .map(Step::Pass)
        .ok_or_else(|| "a time is written like +30s or +500ms".to_owned())
}
