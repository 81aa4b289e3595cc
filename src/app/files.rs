//! The `files` handler: which file a request means, and what is answered once it is known. It sees
//! no file: opening and reading is asked for. Invariant: a path that is asked for has no part that
//! leads upward or is hidden; that nothing leads out by a link is for whoever opens it.

use std::collections::BTreeMap;

use crate::app::application::{Application, Cx, Unavailable};
use crate::app::cors;
use crate::app::media::media_type;
use crate::app::probe::{self, Probe, READ_METHODS};
use crate::base::close::Close;
use crate::base::files::{FileFacts, FilePart, NoFile};
use crate::base::ids::ConnId;
use crate::wire::bus::Answer;
use crate::wire::http::{Request, Response};
use crate::wire::http_date::{imf_fixdate, parse_imf_fixdate};
use crate::wire::query::decode_path;

/// Holds what each connection waits for: one request at a time, so no more than connections.
#[derive(Default)]
pub struct Files {
    waiting: BTreeMap<ConnId, Wanted>,
}

/// What a request said about its answer (RFC 9110 sections 13.1 and 14.2).
#[derive(Default)]
struct Wanted {
    /// To send the client to, if this is a directory.
    with_slash: String,
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<u64>,
    if_unmodified_since: Option<u64>,
    if_range: Option<String>,
    range: Option<String>,
}

impl Wanted {
    fn new(request: &Request<'_>) -> Wanted {
        let field = |name: &str| request.header(name).map(str::to_owned);
        let date = |name: &str| request.header(name).and_then(parse_imf_fixdate);
        let joined = |name: &str| {
            let all: Vec<&str> = request.headers(name).collect();
            (!all.is_empty()).then(|| all.join(","))
        };
        let (path, query) = (request.path(), request.query());
        let mark = if query.is_empty() { "" } else { "?" };
        Wanted {
            with_slash: format!("{path}/{mark}{query}"),
            if_match: joined("if-match"),
            if_none_match: joined("if-none-match"),
            if_modified_since: date("if-modified-since"),
            if_unmodified_since: date("if-unmodified-since"),
            if_range: field("if-range"),
            // Of the methods, only GET knows ranges.
            range: field("range").filter(|_| request.method == "GET"),
        }
    }

    /// RFC 9110 section 13.2.2.
    fn answer(&self, file: &FileFacts) -> Response {
        let tag = format!("\"{:x}-{:x}\"", file.modified_unix_ns, file.length);
        let modified = file.modified_unix_ns / 1_000_000_000;
        let date = String::from_utf8_lossy(&imf_fixdate(modified)).into_owned();
        let unchanged = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => tags.trim() == "*" || lists(tags, &tag, false),
            (None, Some(since)) => modified <= since,
            (None, None) => true,
        };
        if !unchanged {
            return Response::error(412, "The file is another one than you mean");
        }
        let known = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => tags.trim() == "*" || lists(tags, &tag, true),
            (None, Some(since)) => modified <= since,
            (None, None) => false,
        };
        let response = if known {
            Response::empty(304)
        } else {
            let same = self.if_range.as_ref();
            let same = same.is_none_or(|it| *it == tag || *it == date);
            self.part(file, same)
        };
        response
            .with_header("ETag", tag)
            .with_header("Last-Modified", date)
    }

    fn part(&self, file: &FileFacts, same: bool) -> Response {
        let length = file.length;
        let range = self.range.as_deref().filter(|_| same);
        let (status, part) = match range.map_or(Range::All, |range| Range::read(range, length)) {
            Range::None => {
                return Response::error(416, "The file is not that long")
                    .with_header("Content-Range", format!("bytes */{length}"));
            }
            Range::All => (200, FilePart { offset: 0, length }),
            Range::Part(part) => (206, part),
        };
        let mut response = Response::new(status, media_type(&file.name), "")
            .with_header("Accept-Ranges", "bytes")
            .with_header("X-Content-Type-Options", "nosniff");
        response.file = Some(part);
        match status {
            206 => {
                let (first, last) = (part.offset, part.offset + part.length - 1);
                let range = format!("bytes {first}-{last}/{length}");
                response.with_header("Content-Range", range)
            }
            _ => response,
        }
    }
}

/// Whether a list of entity tags has this one; `weakly` takes it for the same if it says so of
/// itself only weakly (RFC 9110 section 8.8.3.2).
pub(super) fn lists(tags: &str, tag: &str, weakly: bool) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|it| match it.strip_prefix("W/") {
            Some(it) => weakly && it == tag,
            None => it == tag,
        })
}

/// What the `Range` field asks for. Several ranges, and units other than bytes, are answered with
/// the whole file, as section 14.2 allows.
enum Range {
    All,
    Part(FilePart),
    None,
}

impl Range {
    fn read(field: &str, length: u64) -> Range {
        let Some((first, last)) = field
            .strip_prefix("bytes=")
            .and_then(|range| range.trim().split_once('-'))
        else {
            return Range::All;
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A number too long to be read is larger than any file.
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let (first, end) = match (first, number(first), last, number(last)) {
            ("", _, _, Some(count)) => (length.saturating_sub(count), length),
            (_, Some(first), "", _) => (first, length),
            (_, Some(first), _, Some(last)) if first <= last => {
                (first, last.saturating_add(1).min(length))
            }
            _ => return Range::All,
        };
        match first < end {
            true => Range::Part(FilePart {
                offset: first,
                length: end - first,
            }),
            false => Range::None,
        }
    }
}

/// The path below the root that a URL path means; `None`: it means no file that is served. Every
/// part is decoded once and may then be no way upward, nothing hidden but `.well-known` (RFC 8615)
/// at the top, and no two parts in one.
fn below_root(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    let raw: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    for (index, part) in raw.iter().enumerate() {
        let part = decode_path(part)?;
        let hidden = part.starts_with('.') && !(index == 0 && part == ".well-known");
        let last = index + 1 == raw.len();
        let strange = part.contains(['/', '\\']) || part.chars().any(char::is_control);
        if hidden || strange || (part.is_empty() && !last) {
            return None;
        }
        parts.push(part.into_owned());
    }
    Some(parts.join("/"))
}

fn not_found() -> Response {
    Response::text(404, "Not found\n")
}

impl Application for Files {
    fn request(&mut self, conn: ConnId, request: &Request<'_>, cx: &mut Cx<'_>) {
        if let Probe::Answered | Probe::Asked = probe::request(conn, request, cx) {
            return;
        }
        let response = match request.method {
            "GET" | "HEAD" => match below_root(request.path()) {
                Some(path) => {
                    self.waiting.insert(conn, Wanted::new(request));
                    return cx.outlet.open_file(conn, path);
                }
                None => not_found(),
            },
            "OPTIONS" => cors::options(READ_METHODS),
            _ => probe::method_not_allowed(READ_METHODS),
        };
        cx.outlet.reply(conn, response);
    }

    fn file_opened(&mut self, conn: ConnId, file: Result<&FileFacts, NoFile>, cx: &mut Cx<'_>) {
        let wanted = self.waiting.remove(&conn).unwrap_or_default();
        let response = match file {
            Ok(file) => wanted.answer(file),
            Err(NoFile::Absent) => not_found(),
            Err(NoFile::Directory) => {
                Response::text(301, "").with_header("Location", wanted.with_slash)
            }
            Err(NoFile::Busy) => {
                Response::error(503, "No file can be opened now").with_header("Retry-After", "1")
            }
        };
        cx.outlet.reply(conn, response);
    }

    fn answered(&mut self, conn: ConnId, answer: Result<Answer<'_>, Unavailable>, cx: &mut Cx<'_>) {
        cx.outlet.reply(conn, probe::ready(answer));
    }

    fn closed(&mut self, conn: ConnId, _close: &Close, _cx: &mut Cx<'_>) {
        self.waiting.remove(&conn);
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
