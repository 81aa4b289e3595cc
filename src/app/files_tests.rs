//! Paths, conditions and ranges of the `files` handler.

use super::*;

fn file() -> FileFacts {
    FileFacts {
        name: "a.html".to_owned(),
        length: 100,
        modified_unix_ns: 784_111_777_500_000_000,
    }
}

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

fn answer(fields: &str) -> Response {
    answer_to("GET", fields)
}

fn answer_to(method: &str, fields: &str) -> Response {
    let lines = fields.replace('\n', "\r\n");
    let request = Request {
        method,
        target: "/a",
        body: b"",
        lines: lines.as_bytes(),
        websocket: false,
    };
    Wanted::new(&request).answer(&file())
}

fn tag() -> String {
    format!("\"{:x}-64\"", file().modified_unix_ns)
}

#[test]
fn a_path_means_what_lies_below_the_root_or_nothing() {
    for (path, meant) in [
        ("/", Some("")),
        ("/a/b.html", Some("a/b.html")),
        ("/a/", Some("a/")),
        ("/a%20b%2ehtml", Some("a b.html")),
        ("/%C3%BC", Some("ü")),
        ("/.well-known/x", Some(".well-known/x")),
        ("/a+b", Some("a+b")),
        ("/a..b", Some("a..b")),
        ("*", None),
        ("/..", None),
        ("/../x", None),
        ("/a/../../x", None),
        ("/%2e%2e/x", None),
        ("/%2E./x", None),
        ("/a/%2e%2e%2f%2e%2e/x", None),
        ("/..%2fx", None),
        ("/%2fetc/passwd", None),
        ("//etc/passwd", None),
        ("/a//b", None),
        ("/..%5cx", None),
        ("/a%00.html", None),
        ("/a%0ab", None),
        ("/%ff", None),
        ("/%c0%ae%c0%ae/x", None),
        ("/%", None),
        ("/%zz", None),
        ("/./a", None),
        ("/.git/config", None),
        ("/a/.well-known", None),
        ("/.well-known/.x", None),
    ] {
        assert_eq!(below_root(path).as_deref(), meant, "{path}");
    }
    // Decoded once: what is left is the name of a file.
    assert_eq!(below_root("/%252e%252e/x").as_deref(), Some("%2e%2e/x"));
}

#[test]
fn a_condition_on_the_tag_goes_before_one_on_the_date() {
    assert_eq!(answer("").status, 200);
    let tag = tag();
    for (fields, status) in [
        (format!("If-None-Match: {tag}\n"), 304),
        (format!("If-None-Match: W/{tag}\n"), 304),
        (format!("If-None-Match: \"x\", {tag}\n"), 304),
        (format!("If-None-Match: \"x\"\nIf-None-Match: {tag}\n"), 304),
        ("If-None-Match: *\n".to_owned(), 304),
        (
            format!("If-None-Match: \"x\"\nIf-Modified-Since: {DATE}\n"),
            200,
        ),
        (format!("If-Modified-Since: {DATE}\n"), 304),
        (format!("If-Modified-Since: {EARLIER}\n"), 200),
        ("If-Modified-Since: yesterday\n".to_owned(), 200),
        (format!("If-Match: {tag}\n"), 200),
        (format!("If-Match: W/{tag}\n"), 412),
        ("If-Match: *\n".to_owned(), 200),
        (
            format!("If-Match: \"x\"\nIf-Unmodified-Since: {DATE}\n"),
            412,
        ),
        (format!("If-Unmodified-Since: {EARLIER}\n"), 412),
        (format!("If-Unmodified-Since: {DATE}\n"), 200),
    ] {
        assert_eq!(answer(&fields).status, status, "{fields}");
    }
    let told = answer("");
    assert!(told.headers.contains(&("ETag", tag.into())));
    assert!(told.headers.contains(&("Last-Modified", DATE.into())));
    assert_eq!(told.content_type, "text/html; charset=utf-8");
}

#[test]
fn one_range_of_bytes_is_answered_and_anything_else_with_the_whole() {
    let whole = FilePart {
        offset: 0,
        length: 100,
    };
    for (range, status, offset, length) in [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=90-", 206, 90, 10),
        ("bytes=90-999", 206, 90, 10),
        ("bytes=-10", 206, 90, 10),
        ("bytes=-1000", 206, 0, 100),
        ("bytes=99-99", 206, 99, 1),
        ("bytes=0-99999999999999999999999", 206, 0, 100),
        ("bytes=0-1,5-6", 200, 0, 100),
        ("bytes=9-1", 200, 0, 100),
        ("bytes=-", 200, 0, 100),
        ("bytes=+1-2", 200, 0, 100),
        ("lines=0-1", 200, 0, 100),
    ] {
        let response = answer(&format!("Range: {range}\n"));
        assert_eq!(response.status, status, "{range}");
        assert_eq!(response.file, Some(FilePart { offset, length }), "{range}");
    }
    let part = answer("Range: bytes=90-\n");
    let told = ("Content-Range", "bytes 90-99/100".into());
    assert!(part.headers.contains(&told));
    for range in ["bytes=100-", "bytes=-0", "bytes=99999999999999999999999-"] {
        let response = answer(&format!("Range: {range}\n"));
        assert_eq!((response.status, response.file), (416, None), "{range}");
        assert!(
            response
                .headers
                .contains(&("Content-Range", "bytes */100".into()))
        );
    }
    assert_eq!(answer_to("HEAD", "Range: bytes=0-1\n").file, Some(whole));
}

#[test]
fn a_range_of_what_was_another_file_is_the_whole_of_this_one() {
    let tag = tag();
    for (condition, status) in [
        (tag.as_str(), 206),
        (DATE, 206),
        ("\"x\"", 200),
        (EARLIER, 200),
        (&format!("W/{tag}"), 200),
    ] {
        let fields = format!("Range: bytes=1-2\nIf-Range: {condition}\n");
        assert_eq!(answer(&fields).status, status, "{condition}");
    }
}
