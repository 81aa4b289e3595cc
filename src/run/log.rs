//! Log lines on standard error. Owns how a line looks and the one thread that writes it. Does not
//! know what is worth logging. Invariant: whoever logs never waits for whoever reads the log; what
//! does not fit is dropped and counted.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::kv::{self, Key, Value, VisitSource};
use log::{Log, Metadata, Record};

use crate::config::{LogFormat, LogOptions};

/// Lines that may wait for the writer: a burst of a second at a rate nobody reads any more, and
/// about two megabytes.
const LINES_MAX: usize = 10_000;
/// One line. A longer message is cut.
const LINE_BYTES_MAX: usize = 4096;
/// How long the end of the program waits for a reader that stalls.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

enum Item {
    Line(String),
    /// Everything before it is written when the sender is answered.
    Flush(Sender<()>),
}

struct Logger {
    form: Form,
    queue: Sender<Item>,
}

/// Lines of this process that nobody took.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process were dropped since it started.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Starts the writer. Call once for each process, after any fork. `role` stands in each line.
pub fn start(role: &str, options: &LogOptions) {
    let (queue, items) = bounded(LINES_MAX);
    let writer = Writer {
        form: Form {
            role: role.to_string(),
            pid: std::process::id(),
            format: options.format,
            program: options.program.clone(),
        },
        items,
    };
    let form = writer.form.clone();
    let spawned = thread::Builder::new()
        .name("log".into())
        .spawn(move || writer.run());
    if spawned.is_err() {
        // A process that cannot have a thread has worse problems than a silent log.
        return;
    }
    let logger = Logger { form, queue };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(options.level);
    }
}

/// Waits until what was logged is written, or the patience ends.
pub fn flush() {
    log::logger().flush();
}

/// Makes panics log lines. A message that was put together at run time is kept back: it may quote
/// what a client sent.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = panic
            .location()
            .map_or_else(String::new, ToString::to_string);
        match panic.payload().downcast_ref::<&'static str>() {
            Some(message) => log::error!("bug in thread {name} at {place}: {message}"),
            None => log::error!("bug in thread {name} at {place}"),
        }
        flush();
    }));
}

/// How lines of this process look.
#[derive(Clone)]
struct Form {
    role: String,
    pid: u32,
    format: LogFormat,
    /// The embedding program, whose lines are ours too.
    program: Option<String>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries may tell of trouble, but their chatter could carry what clients sent.
        let own = |program: &String| metadata.target().starts_with(program.as_str());
        let ours =
            metadata.target().starts_with("lineman") || self.form.program.as_ref().is_some_and(own);
        ours || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.form.line(SystemTime::now(), record);
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(line)) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (done, wait) = bounded(1);
        if self
            .queue
            .send_timeout(Item::Flush(done), FLUSH_PATIENCE)
            .is_ok()
        {
            let _ = wait.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

struct Writer {
    form: Form,
    items: Receiver<Item>,
}

impl Writer {
    fn run(self) {
        let mut told = 0;
        while let Ok(item) = self.items.recv() {
            match item {
                Item::Line(line) => write_line(&line),
                Item::Flush(done) => drop(done.send(())),
            }
            let dropped = dropped() - told;
            if dropped > 0 {
                told += dropped;
                write_line(
                    &self.form.line(
                        SystemTime::now(),
                        &Record::builder()
                            .level(log::Level::Warn)
                            .target("lineman")
                            .args(format_args!(
                                "log lines dropped because nobody took them: {dropped}"
                            ))
                            .build(),
                    ),
                );
            }
        }
    }
}

fn write_line(line: &str) {
    // One write, so that lines of several processes do not mix. Nobody is left to tell when the
    // log itself fails.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

impl Form {
    fn line(&self, at: SystemTime, record: &Record<'_>) -> String {
        let mut line = String::with_capacity(128);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = timestamp(since.as_millis() as u64);
        let message = cut(record.args().to_string());
        match self.format {
            LogFormat::Text => {
                let level = record.level();
                let _ = write!(line, "{time} {level:<5} {}[{}] ", self.role, self.pid);
                escape(&mut line, &message);
                let _ = record.key_values().visit(&mut TextPairs(&mut line));
            }
            LogFormat::Json => {
                let mut object = serde_json::Map::new();
                object.insert("time".into(), time.into());
                object.insert(
                    "level".into(),
                    record.level().as_str().to_lowercase().into(),
                );
                object.insert("role".into(), self.role.as_str().into());
                object.insert("pid".into(), self.pid.into());
                object.insert("message".into(), message.into());
                let _ = record.key_values().visit(&mut JsonPairs(&mut object));
                line.push_str(&serde_json::Value::Object(object).to_string());
            }
        }
        line.push('\n');
        line
    }
}

fn cut(mut message: String) -> String {
    if message.len() > LINE_BYTES_MAX {
        let whole = |at: &usize| message.is_char_boundary(*at);
        let end = (0..=LINE_BYTES_MAX).rev().find(whole).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// A line stays one line, and a terminal obeys nobody but its user.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

struct TextPairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = cut(value.to_string());
        let _ = write!(self.0, " {key}=");
        if value.is_empty() || value.contains([' ', '"', '=']) {
            let _ = write!(self.0, "{value:?}");
        } else {
            escape(self.0, &value);
        }
        Ok(())
    }
}

struct JsonPairs<'a>(&'a mut serde_json::Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let json = match (value.to_u64(), value.to_i64(), value.to_bool()) {
            (Some(number), _, _) => number.into(),
            (_, Some(number), _) => number.into(),
            (_, _, Some(truth)) => truth.into(),
            _ => cut(value.to_string()).into(),
        };
        // A key of the line itself is not to be overwritten.
        if !self.0.contains_key(key.as_str()) {
            self.0.insert(key.as_str().to_string(), json);
        }
        Ok(())
    }
}

/// RFC 3339 in UTC. The days are counted as in Howard Hinnant's `civil_from_days`.
pub fn timestamp(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, message: &str) -> String {
        let form = Form {
            role: "worker/0".into(),
            pid: 7,
            format,
            program: None,
        };
        let pairs = [("count", Value::from(3)), ("who", Value::from("a b"))];
        let at = UNIX_EPOCH + Duration::from_millis(1_795_350_896_789);
        let mut record = Record::builder();
        record.level(log::Level::Info).key_values(&pairs);
        form.line(at, &record.args(format_args!("{message}")).build())
    }

    #[test]
    fn text_has_time_level_role_message_and_pairs() {
        assert_eq!(
            line(LogFormat::Text, "hello"),
            "2026-11-22T12:34:56.789Z INFO  worker/0[7] hello count=3 who=\"a b\"\n"
        );
    }

    #[test]
    fn json_is_one_object() {
        let line = line(LogFormat::Json, "a\nb");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["time"], "2026-11-22T12:34:56.789Z");
        assert_eq!(object["message"], "a\nb");
        assert_eq!(
            (object["pid"].as_u64(), object["count"].as_u64()),
            (Some(7), Some(3))
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        let line = line(LogFormat::Text, "a\nb\x1b[2J");
        assert!(line.contains("a\\nb\\u{1b}[2J"), "{line}");
    }

    #[test]
    fn a_long_message_is_cut() {
        assert!(line(LogFormat::Text, &"ü".repeat(5000)).len() < LINE_BYTES_MAX + 200);
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let check =
            |unix_s: u64, expected: &str| assert_eq!(&timestamp(unix_s * 1000)[..10], expected);
        check(0, "1970-01-01");
        check(951_782_400, "2000-02-29");
        check(951_868_800, "2000-03-01");
        check(1_709_164_800, "2024-02-29");
        check(4_107_542_400, "2100-03-01");
    }
}
