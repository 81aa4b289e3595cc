//! Which web origins are meant by an entry of an allow-list (RFC 6454 section 6.2). Knows nothing
//! of who keeps the list. Invariant: an entry without a `*` allows one origin and no other.

/// Whether an origin as a browser sends it is on the list.
pub fn is_listed(list: &[String], origin: &str) -> bool {
    list.iter().any(|entry| matches(entry, origin))
}

/// `*`, `SCHEME://HOST[:PORT]`, or `SCHEME://*.HOST[:PORT]` for every host below that one.
fn matches(entry: &str, origin: &str) -> bool {
    if entry == "*" || entry.eq_ignore_ascii_case(origin) {
        return true;
    }
    let Some((scheme, domain)) = entry.split_once("://*.") else {
        return false;
    };
    let Some((origin_scheme, host)) = origin.split_once("://") else {
        return false;
    };
    let at = host.len().checked_sub(domain.len() + 1);
    let Some((below, tail)) = at.and_then(|at| host.split_at_checked(at)) else {
        return false;
    };
    let label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    scheme.eq_ignore_ascii_case(origin_scheme)
        && !below.is_empty()
        && below.bytes().all(label)
        && tail.starts_with('.')
        && tail[1..].eq_ignore_ascii_case(domain)
}

/// Whether an entry can match anything a browser sends: no path, no trailing slash.
pub fn is_valid_entry(entry: &str) -> bool {
    if entry == "*" {
        return true;
    }
    let Some((scheme, host)) = entry.split_once("://") else {
        return false;
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let in_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let in_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    !scheme.is_empty()
        && scheme.bytes().all(in_scheme)
        && !host.is_empty()
        && host.bytes().all(in_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_what_it_says_and_nothing_else() {
        let table = [
            ("*", "https://a.example", true),
            ("*", "null", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://a.example", "null", false),
            ("https://*.a.example", "https://b.a.example", true),
            ("https://*.a.example", "https://c.b.A.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://.a.example", false),
            ("https://*.a.example", "https://evila.example", false),
            ("https://*.a.example", "http://b.a.example", false),
            ("https://*.a.example", "https://evil/b.a.example", false),
            ("https://*.a.example:1", "https://b.a.example:1", true),
            ("https://*.a.example", "https://b.a.example:1", false),
            (
                "https://*.a.example",
                "\u{e4}\u{e4}://\u{e4}.a.example",
                false,
            ),
        ];
        for (entry, origin, expected) in table {
            assert_eq!(matches(entry, origin), expected, "{entry} {origin}");
        }
    }

    #[test]
    fn entries_that_could_never_match_are_told() {
        for good in [
            "*",
            "https://a.example",
            "http://localhost:3000",
            "app://x",
            "http://[::1]:80",
        ] {
            assert!(is_valid_entry(good), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a/",
            "https://a b",
            "https://a.*",
            "://a",
        ] {
            assert!(!is_valid_entry(bad), "{bad}");
        }
    }
}
