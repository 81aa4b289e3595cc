//! RESP3, in which Redis and Valkey are spoken to: commands as they are written, values as they are
//! read. It does not know what is asked. Invariant: nothing is read deeper, longer or of more parts
//! than stated here.

use crate::wire::bus_codec::Garbled;

/// One message is no longer: the members of the largest channel fit many times over.
const MESSAGE_BYTES: usize = 256 * 1024 * 1024;
/// A line holds a number or a short sentence.
const LINE_BYTES: usize = 64 * 1024;
/// Lists within lists.
const DEPTH_MAX: usize = 8;

/// Appends one command (RESP: an array of bulk strings).
pub fn command(to: &mut Vec<u8>, parts: &[&[u8]]) {
    head(to, b'*', parts.len());
    for part in parts {
        head(to, b'$', part.len());
        to.extend_from_slice(part);
        to.extend_from_slice(b"\r\n");
    }
}

fn head(to: &mut Vec<u8>, kind: u8, count: usize) {
    to.push(kind);
    to.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// What Redis says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Nil,
    Int(i64),
    /// A string of any kind; numbers that are no integers too.
    Text(&'a [u8]),
    /// The command was refused; for people, but for its first word.
    Error(&'a [u8]),
    /// Of a map, keys and values in turn.
    List(Vec<Value<'a>>),
    /// Not an answer to anything.
    Push(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Value::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An integer, or a string that is one, as in the values of a hash.
    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => self.text()?.parse().ok(),
        }
    }

    /// Empty for what is no list.
    pub fn list(&self) -> &[Value<'a>] {
        match self {
            Value::List(values) => values,
            _ => &[],
        }
    }
}

/// Finds the end of the message at the front of a stream, however that is cut; no byte is looked at
/// twice.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where to go on.
    at: usize,
    /// Values that belong to the message and were not seen yet; none before its start.
    open: usize,
}

impl Scanner {
    /// The length of the message that `stream` begins with, once it is whole. Then the next call is
    /// about the stream behind it.
    pub fn next(&mut self, stream: &[u8]) -> Result<Option<usize>, Garbled> {
        loop {
            if self.at > 0 && self.open == 0 {
                let length = self.at;
                if length > stream.len() {
                    return Ok(None);
                }
                *self = Scanner::default();
                return Ok(Some(length));
            }
            let Some((line, end)) = next_line(stream, self.at)? else {
                return Ok(None);
            };
            let (opens, skips) = measure(line)?;
            self.open = self.open.max(1) - 1 + opens;
            self.at = end + skips;
            if self.at > MESSAGE_BYTES || self.open > MESSAGE_BYTES {
                return Err(Garbled);
            }
        }
    }
}

/// The line at `at` without its end, and where the next one begins.
fn next_line(stream: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Garbled> {
    let rest = stream.get(at..).unwrap_or_default();
    let window = &rest[..rest.len().min(LINE_BYTES)];
    match memchr::memchr(b'\n', window) {
        Some(end) if end > 1 && window[end - 1] == b'\r' => {
            Ok(Some((&window[..end - 1], at + end + 1)))
        }
        Some(_) => Err(Garbled),
        None if window.len() == LINE_BYTES => Err(Garbled),
        None => Ok(None),
    }
}

/// How many values follow that belong to the one whose first line this is, and how many bytes.
fn measure(line: &[u8]) -> Result<(usize, usize), Garbled> {
    let (kind, count) = line.split_first().ok_or(Garbled)?;
    Ok(match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => (0, 0),
        b'$' | b'=' | b'!' => (0, length(count)?.map_or(0, |length| length + 2)),
        b'*' | b'~' | b'>' => (length(count)?.unwrap_or(0), 0),
        b'%' => (2 * length(count)?.unwrap_or(0), 0),
        _ => return Err(Garbled),
    })
}

/// `None` for the null of RESP2, -1.
fn length(digits: &[u8]) -> Result<Option<usize>, Garbled> {
    if digits == b"-1" {
        return Ok(None);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Garbled)?;
    let length: usize = digits.parse().map_err(|_| Garbled)?;
    match length <= MESSAGE_BYTES {
        true => Ok(Some(length)),
        false => Err(Garbled),
    }
}

/// Reads one message that `Scanner` has measured.
pub fn parse(message: &[u8]) -> Result<Value<'_>, Garbled> {
    let mut at = 0;
    let value = read(message, &mut at, 0)?;
    match at == message.len() {
        true => Ok(value),
        false => Err(Garbled),
    }
}

fn read<'a>(message: &'a [u8], at: &mut usize, depth: usize) -> Result<Value<'a>, Garbled> {
    let (line, end) = next_line(message, *at)?.ok_or(Garbled)?;
    *at = end;
    let (kind, rest) = line.split_first().ok_or(Garbled)?;
    Ok(match kind {
        b'+' | b'#' | b',' | b'(' => Value::Text(rest),
        b'-' => Value::Error(rest),
        b'_' => Value::Nil,
        b':' => {
            let digits = std::str::from_utf8(rest).map_err(|_| Garbled)?;
            Value::Int(digits.parse().map_err(|_| Garbled)?)
        }
        b'$' | b'=' | b'!' => match length(rest)? {
            None => Value::Nil,
            Some(length) => {
                let bytes = message.get(end..end + length).ok_or(Garbled)?;
                if message.get(end + length..end + length + 2) != Some(b"\r\n") {
                    return Err(Garbled);
                }
                *at = end + length + 2;
                match kind {
                    b'!' => Value::Error(bytes),
                    // A verbatim string names its format first.
                    b'=' => Value::Text(bytes.get(4..).ok_or(Garbled)?),
                    _ => Value::Text(bytes),
                }
            }
        },
        _ => {
            let (count, _) = measure(line)?;
            if depth == DEPTH_MAX {
                return Err(Garbled);
            }
            if rest == b"-1" {
                return Ok(Value::Nil);
            }
            let values = (0..count).map(|_| read(message, at, depth + 1));
            let values = values.collect::<Result<_, _>>()?;
            match kind {
                b'>' => Value::Push(values),
                _ => Value::List(values),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n_\r\n-ERR no\r\n\
        *2\r\n$1\r\nx\r\n*1\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n\
        %1\r\n+k\r\n=5\r\ntxt:v\r\n*0\r\n";

    fn expected() -> Vec<Value<'static>> {
        vec![
            Value::Text(b"OK"),
            Value::Int(-7),
            Value::Text(b"a\r\nbc"),
            Value::Nil,
            Value::Nil,
            Value::Error(b"ERR no"),
            Value::List(vec![Value::Text(b"x"), Value::List(vec![Value::Int(1)])]),
            Value::Push(vec![
                Value::Text(b"message"),
                Value::Text(b"c"),
                Value::Text(b""),
            ]),
            Value::List(vec![Value::Text(b"k"), Value::Text(b"v")]),
            Value::List(Vec::new()),
        ]
    }

    #[test]
    fn values_come_out_whole_however_the_stream_is_cut() {
        for cut in 0..=STREAM.len() {
            let mut scanner = Scanner::default();
            let (mut held, mut seen) = (Vec::new(), Vec::new());
            for part in [&STREAM[..cut], &STREAM[cut..]] {
                held.extend_from_slice(part);
                while let Some(length) = scanner.next(&held).expect("well-formed") {
                    let message: Vec<u8> = held.drain(..length).collect();
                    seen.push(format!("{:?}", parse(&message).expect("well-formed")));
                }
            }
            let expected: Vec<String> = expected().iter().map(|it| format!("{it:?}")).collect();
            assert_eq!(seen, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_resp_is_refused_and_so_is_what_is_too_deep_or_too_long() {
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        let deep = [deep, b":1\r\n".to_vec()].concat();
        let length = Scanner::default().next(&deep).expect("lists");
        assert_eq!(length, Some(deep.len()));
        assert_eq!(parse(&deep), Err(Garbled));
        let table: [&[u8]; 7] = [
            b"HTTP/1.1 400\r\n",
            b"$999999999999\r\n",
            b"*-2\r\n",
            b"$x\r\n",
            b"\r\n",
            b"+OK\n",
            &[b'+'; LINE_BYTES],
        ];
        for bytes in table {
            assert_eq!(Scanner::default().next(bytes), Err(Garbled), "{bytes:?}");
        }
        assert_eq!(parse(b"$1\r\nabc"), Err(Garbled));
        assert_eq!(parse(b":x\r\n"), Err(Garbled));
    }

    #[test]
    fn a_command_is_an_array_of_its_parts() {
        let mut bytes = Vec::new();
        command(&mut bytes, &[b"PUBLISH", b"a", b"\r\n"]);
        assert_eq!(bytes, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$2\r\n\r\n\r\n");
    }
}
