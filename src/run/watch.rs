//! `status --watch`: the status again and again, with rates, until Ctrl-C. Does not know what a
//! status holds. Invariant: escape codes go to a terminal only; what is not a terminal gets each
//! status whole, one after the other.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use signal_hook::low_level::pipe;

use crate::run::exit::{Exit, Failure};
use crate::run::rundir::RunDir;
use crate::run::status::Status;
use crate::run::{client, os, rates};

/// To the upper left corner, and nothing from there on (ECMA-48, CUP and ED).
const REDRAW: &str = "\x1b[H\x1b[J";

/// How the status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table that takes the place of the one before on a terminal, and follows it elsewhere.
    Table,
    /// One JSON object in a line.
    Json,
}

/// Shows the status of the server in `dir`, whose configuration has this `name`, every so often. A
/// server that does not run at first is a
/// reason to end; one that ends meanwhile may come back.
pub fn watch(dir: &RunDir, name: &str, every: Duration, form: Form) -> Result<Exit, Failure> {
    let fail = |error: io::Error| Failure::io("cannot watch", &error);
    let mut interrupt = Interrupt::listen().map_err(fail)?;
    let mut former: Option<(Status, Instant)> = None;
    let mut first = true;
    loop {
        let began = Instant::now();
        let mut found = client::status(dir)?;
        let now = Instant::now();
        if let (Some(status), Some((earlier, at))) = (&mut found, &former) {
            rates::note(status, earlier, now - *at);
        }
        match show(found.as_ref(), name, form, first) {
            // Whoever read this has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
            other => other.map_err(fail)?,
        }
        if first && found.is_none() {
            return Ok(Exit::NotRunning);
        }
        first = false;
        former = found.map(|status| (status, now));
        if interrupt.came_within(every.saturating_sub(began.elapsed())) {
            return Ok(Exit::Done);
        }
    }
}

fn show(status: Option<&Status>, name: &str, form: Form, first: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let text = match (form, status) {
        (Form::Json, Some(status)) => serde_json::to_string(status)? + "\n",
        (Form::Json, None) => "{\"state\":\"stopped\"}\n".to_string(),
        (Form::Table, Some(status)) => status.table_with_rates(),
        (Form::Table, None) => format!("not running ({name})\n"),
    };
    let text = match form {
        Form::Table if stdout.is_terminal() => {
            let (rows, width) = os::terminal_size(&stdout).unwrap_or((usize::MAX, usize::MAX));
            format!("{REDRAW}{}", fit(&text, rows, width))
        }
        Form::Table if !first => format!("\n{text}"),
        _ => text,
    };
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// As much of `text` as a terminal of this size shows without scrolling. The last line, which sums
/// up, is always among it.
fn fit(text: &str, rows: usize, width: usize) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    // One row is left for the cursor, one for the mark of what is missing.
    let room = rows.saturating_sub(1).max(3);
    if lines.len() > room {
        let last = lines.pop();
        lines.truncate(room - 2);
        lines.push("…");
        lines.extend(last);
    }
    let cut = |line: &str| line.chars().take(width).chain(['\n']).collect::<String>();
    lines.into_iter().map(cut).collect()
}

/// Ctrl-C as a byte on a socket, so that it can be waited for with a limit.
struct Interrupt {
    stream: UnixStream,
}

impl Interrupt {
    fn listen() -> io::Result<Interrupt> {
        let (stream, writer) = UnixStream::pair()?;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Interrupt { stream })
    }

    fn came_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // No time at all would mean for ever.
            let left = left.max(Duration::from_millis(1));
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
                Ok(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_on_the_terminal_is_cut_and_the_last_line_stays() {
        let text = "one\ntwo\nthree\nfour\nsum\n";
        assert_eq!(fit(text, 6, 80), text);
        assert_eq!(fit(text, 5, 80), "one\ntwo\n…\nsum\n");
        assert_eq!(fit(text, 0, 80), "one\n…\nsum\n");
        assert_eq!(fit(text, 6, 3), "one\ntwo\nthr\nfou\nsum\n");
    }
}
