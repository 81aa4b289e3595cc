//! Every key of the configuration file: one row each, from which the shipped file and the reference
//! page are made. Knows no values of a running server. Invariant: a row's default is what the
//! program does without the key.

use std::fmt::Write;

use crate::base::limits::Limits;
use crate::config::{cluster, credentials, history, push, store, webhooks};

/// One key.
pub struct KeyRow {
    pub name: &'static str,
    /// The type in the reader's words.
    pub kind: &'static str,
    /// As written in the file; empty when the key must be given or has no fixed default.
    pub default: &'static str,
    pub help: &'static str,
}

/// One table of the file with its keys.
pub struct TableRow {
    /// As written in the file; empty for the top level.
    pub heading: &'static str,
    pub help: &'static str,
    pub keys: &'static [KeyRow],
    /// What the shipped file sets, word for word.
    pub active: &'static str,
    /// Not in the shipped file but as a comment: the table means something even when it is empty.
    pub optional: bool,
}

pub const TABLES: &[TableRow] = &[
    TableRow {
        heading: "",
        help: "Processes.",
        keys: &[
            KeyRow {
                name: "workers",
                kind: "integer, 0 to 256",
                default: "0",
                help: "Processes that serve clients. 0 is one for each core.",
            },
            KeyRow {
                name: "threads",
                kind: "integer, 1 to 64",
                default: "1",
                help: "Event loops in each worker. More processes isolate better; more threads share memory.",
            },
            KeyRow {
                name: "run_dir",
                kind: "path",
                default: "",
                help: "Where the lock and the sockets live, in a directory of their own for each configuration file. Without it: /run/lineman for root, else $XDG_RUNTIME_DIR/lineman, else /tmp/lineman-UID. A relative path starts beside this file.",
            },
            KeyRow {
                name: "user",
                kind: "word",
                default: "",
                help: "A server started by root runs its workers and its switchboard as this user; the master keeps its rights, to open ports and to start others. Without it, nothing is dropped.",
            },
            KeyRow {
                name: "group",
                kind: "word",
                default: "",
                help: "The group that goes with user. Without it, the user's own.",
            },
            KeyRow {
                name: "drain_seconds",
                kind: "integer, 0 to 86_400",
                default: "30",
                help: "Over how long `reload -g` and `stop -g` let clients go: each is told to reconnect at its own moment in this time, evenly spread. `reload` takes 2 seconds.",
            },
            KeyRow {
                name: "watchdog_seconds",
                kind: "integer, 3 to 3600, or 0",
                default: "10",
                help: "A worker or switchboard that does nothing for so long is killed and replaced; what it was doing is logged first. One that has not begun to serve after twice that time is too. 0 lets both be.",
            },
            KeyRow {
                name: "worker_memory_bytes",
                kind: "integer, from 33_554_432, or 0",
                default: "0",
                help: "A worker that holds more memory than this is replaced as by `reload -g`. 0 sets no ceiling.",
            },
        ],
        active: "",
        optional: false,
    },
    TableRow {
        heading: "[log]",
        help: "What is written about the server's own life. Never what clients send, never a secret.",
        keys: &[
            KeyRow {
                name: "level",
                kind: "word",
                default: "\"info\"",
                help: "One of off, error, warn, info, debug, trace.",
            },
            KeyRow {
                name: "format",
                kind: "word",
                default: "\"text\"",
                help: "text, or json for one JSON object per line.",
            },
            KeyRow {
                name: "file",
                kind: "path",
                default: "",
                help: "A file to append to instead of standard error. Without it, a server started with -d writes lineman.log in its run directory. A relative path starts beside this file. `lineman reopen` opens it again after it was renamed.",
            },
        ],
        active: "",
        optional: false,
    },
    TableRow {
        heading: "[[listen]]",
        help: "Where clients connect. One table for each address; at least one.",
        keys: &[
            KeyRow {
                name: "url",
                kind: "URL",
                default: "",
                help: "SCHEME://HOST:PORT. http and websocket both serve HTTP and WebSocket, and with a tls table HTTPS and WSS; https and wss say the same and demand that table; text has lines, frame has 4-byte lengths (docs/raw-tcp.md), tcp has bytes as they come. HOST is an IPv4 address, an IPv6 address in brackets, or localhost; port 0 takes a free port, and status tells which. Or unix://PATH, which serves HTTP and WebSocket on a Unix socket of mode 0660; a relative path starts beside this file.",
            },
            KeyRow {
                name: "handler",
                kind: "word",
                default: "\"channels\"",
                help: "channels speaks the Pusher Channels protocol; echo sends every message back, and is the only one for tcp; metrics serves numbers for Prometheus at /metrics (docs/metrics.md), over HTTP only and to whoever asks; files serves the files below root, over HTTP only.",
            },
            KeyRow {
                name: "root",
                kind: "path",
                default: "",
                help: "The directory that handler = \"files\" serves; a relative path starts beside this file. Links may not lead out of it, hidden files are not there, and directories are not listed.",
            },
            KeyRow {
                name: "index",
                kind: "name",
                default: "",
                help: "The file that stands for a directory. Without it, index.html.",
            },
            KeyRow {
                name: "trusted_proxies",
                kind: "list of networks",
                default: "[]",
                help: "Who may say for whom a connection or a request is, by one of the two keys below: addresses and networks such as \"10.0.0.0/8\" or \"::1\"; \"unix\" is whoever reaches a unix:// socket. Name your proxies and nobody else: they are taken at their word.",
            },
            KeyRow {
                name: "proxy_protocol",
                kind: "true or false",
                default: "false",
                help: "Whether every connection begins with a PROXY header of version 1 or 2, before TLS. One that does not, or that comes from elsewhere than trusted_proxies, is ended.",
            },
            KeyRow {
                name: "real_ip_header",
                kind: "word",
                default: "\"none\"",
                help: "The header in which trusted_proxies say who a request is from: none, x-forwarded-for, or forwarded (RFC 7239). The rightmost address that is not theirs counts. Only one is believed, since a proxy passes on the other as the client wrote it.",
            },
            KeyRow {
                name: "workers",
                kind: "integer, up to workers",
                default: "0",
                help: "How many of the workers accept here, counted from the first. 0 is all.",
            },
            KeyRow {
                name: "connections",
                kind: "integer",
                default: "0",
                help: "Connections of this listener in the whole server. At the limit, accepting here rests, and who comes waits in the kernel's queue, until one closes; other listeners go on. 0 sets no limit but limits.connections.",
            },
            KeyRow {
                name: "accepts_per_second",
                kind: "integer",
                default: "0",
                help: "New connections of this listener in a second, in the whole server and after a burst of as many. Beyond, accepting here rests until the time of the next has come. 0 sets no limit.",
            },
        ],
        active: "url = \"http://127.0.0.1:8080\"\nhandler = \"channels\"\n",
        optional: false,
    },
    TableRow {
        heading: "[listen.tls]",
        help: "TLS for the [[listen]] table above it; tls = { … } inside that table is the same. Relative paths start beside this file. SIGHUP has the files read anew, and no connection notices; if this file changed as well, it reloads.",
        keys: &[
            KeyRow {
                name: "certificate",
                kind: "path",
                default: "",
                help: "The certificate and those that lead to its root, as PEM. It is shown to clients that ask for a name without a certificate of its own.",
            },
            KeyRow {
                name: "key",
                kind: "path",
                default: "",
                help: "The private key of the certificate, as PEM without a passphrase. Only the master reads it.",
            },
            KeyRow {
                name: "min_version",
                kind: "\"1.2\" or \"1.3\"",
                default: "\"1.2\"",
                help: "The oldest version of TLS that is spoken.",
            },
            KeyRow {
                name: "client_ca",
                kind: "path",
                default: "",
                help: "Whose signature the certificates of clients must bear, as PEM. Without it no client is asked for one.",
            },
            KeyRow {
                name: "client_auth",
                kind: "word",
                default: "",
                help: "required (as without this key) turns away who has no certificate of client_ca; optional lets them in.",
            },
        ],
        active: "",
        optional: true,
    },
    TableRow {
        heading: "[[listen.tls.sni]]",
        help: "Another certificate for the [[listen]] table above it. One table for each.",
        keys: &[
            KeyRow {
                name: "names",
                kind: "list of names",
                default: "",
                help: "The names for which it is shown, such as [\"example.org\", \"*.example.org\"]. The star stands for one name without dots.",
            },
            KeyRow {
                name: "certificate",
                kind: "path",
                default: "",
                help: "As above.",
            },
            KeyRow {
                name: "key",
                kind: "path",
                default: "",
                help: "As above.",
            },
        ],
        active: "",
        optional: true,
    },
    TableRow {
        heading: "[[apps]]",
        help: "Who may connect and publish. One table for each app. Everybody knows the demo secret, so the server refuses it on an address that other machines reach.",
        keys: &[
            KeyRow {
                name: "id",
                kind: "string",
                default: "",
                help: "Names the app in the paths of the HTTP API.",
            },
            KeyRow {
                name: "key",
                kind: "string",
                default: "",
                help: "Clients connect with it. It is public.",
            },
            KeyRow {
                name: "secret",
                kind: "string, or where it is kept",
                default: "",
                help: "Signs publishing calls and access to private channels. Make one with: openssl rand -hex 32. Instead of the secret itself: { env = \"NAME\" } for a variable, { file = \"PATH\" } for a file (one newline at its end is no part of it; a relative path starts beside this file), { credential = \"NAME\" } for a credential of systemd. Each reload reads it again.",
            },
            KeyRow {
                name: "publishes_per_second",
                kind: "integer",
                default: "0",
                help: "So many events a second are published over the HTTP API, with all keys of the app and over all workers; a call beyond gets 429. A batch counts as its events, at most as a second's worth. 0: any number.",
            },
            KeyRow {
                name: "client_events",
                kind: "true or false",
                default: "true",
                help: "Whether clients may send client- events to each other on private and presence channels.",
            },
            KeyRow {
                name: "subscription_counts",
                kind: "true or false",
                default: "false",
                help: "Whether the subscribers of a channel are told how many they are, with each change; above 100 at most every 5 s. Not in presence channels.",
            },
            KeyRow {
                name: "watchlists",
                kind: "true or false",
                default: "false",
                help: "Whether a client that signs in with a watchlist is told which of these users are online, and of each change.",
            },
            KeyRow {
                name: "replay_guard",
                kind: "boolean",
                default: "false",
                help: "Whether a signed request that changes something is refused with 401 when the very same comes again within the ten minutes for which its signature is good. Two events that are alike and published within one second with one key are the same request to it. For 500,000 requests in that time; with more, 503.",
            },
            KeyRow {
                name: "authorize_seconds",
                kind: "integer, 0 to 86_400",
                default: "0",
                help: "Within this time a client has to sign in or to join a private or presence channel. Then it is closed with 4009. 0: it need not.",
            },
            KeyRow {
                name: "origins",
                kind: "list of origins",
                default: "[]",
                help: "The pages whose clients may connect, as the browser names them: \"https://example.com\", or \"https://*.example.com\" for all hosts below it. Others are closed with 4009. Empty: any. Clients that are no browser send no origin and are let in.",
            },
        ],
        active: "id = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n",
        optional: false,
    },
    TableRow {
        heading: "[[apps.keys]]",
        help: "A further key of the app above, or its keys if it has none itself: to replace one without a break, or for backends that may do less. Clients connect with any key. To replace one: add the new key, reload, change the backends and clients, remove the old key, reload.",
        keys: &[
            KeyRow {
                name: "key",
                kind: "string",
                default: "",
                help: "As above; no other key of any app is the same.",
            },
            KeyRow {
                name: "secret",
                kind: "string, or where it is kept",
                default: "",
                help: "As above; no other key of the app has the same.",
            },
            KeyRow {
                name: "roles",
                kind: "list of words",
                default: "[\"publish\", \"read\", \"push\", \"admin\"]",
                help: "What the secret is good for. publish: events, and signatures for clients, which let them into private channels and sign them in. read: asking for channels and users. admin: ending the connections of users, and the credentials for push providers. push: devices and notifications. Without it all of them.",
            },
            KeyRow {
                name: "publishes_per_second",
                kind: "integer",
                default: "0",
                help: "As above, for this key alone; the app's holds as well.",
            },
        ],
        active: "",
        optional: true,
    },
    history::APP_TABLE,
    webhooks::APP_TABLE,
    credentials::APNS_TABLE,
    credentials::FCM_TABLE,
    credentials::WEBPUSH_TABLE,
    credentials::AZURE_TABLE,
    webhooks::TABLE,
    push::TABLE,
    push::FORMER_TABLE,
    store::TABLE,
    cluster::TABLE,
    TableRow {
        heading: "[http]",
        help: "What is said to browsers.",
        keys: &[KeyRow {
            name: "cors_origins",
            kind: "list of origins",
            default: "[]",
            help: "The pages of other sites that may read answers of the HTTP API and the probes (CORS): [\"*\"] for all. Empty: none. It is no protection of the API, which is what signatures are for.",
        }],
        active: "",
        optional: false,
    },
    TableRow {
        heading: "[websocket]",
        help: "Compression of WebSocket messages (permessage-deflate, RFC 7692). Off by default: it costs CPU for every message and earns little on the short ones that most programs send.",
        keys: &[
            KeyRow {
                name: "compression",
                kind: "true or false",
                default: "false",
                help: "Whether clients that offer it get it. A broadcast is compressed once for all clients without a context of their own.",
            },
            KeyRow {
                name: "compression_context",
                kind: "word",
                default: "\"none\"",
                help: "What messages may refer to. none: only to themselves, and an idle connection holds no memory for compression. client: those of clients to earlier ones. both: those of the server too, and every broadcast is compressed for each receiver. A context is the last bytes that went by, at most the window's. That of the client is held for as long as the connection lives, since the client may refer to it at any time; that of the server is given back when the client was silent for activity_seconds and ten more.",
            },
            KeyRow {
                name: "compression_min_bytes",
                kind: "integer",
                default: "1_024",
                help: "Shorter messages are sent as they are. With the context both, short messages are worth compressing: 64 is a good value then.",
            },
            KeyRow {
                name: "compression_window_bits",
                kind: "integer, 9 to 15",
                default: "15",
                help: "How far back a message may refer, as a power of two: 15 is 32 KiB, 11 is 2 KiB. It is what a context holds per connection and direction; with the context none it costs nothing.",
            },
        ],
        active: "",
        optional: false,
    },
];

const LIMITS_HELP: &str = "Every bound of the server and what happens at it.";

/// The text of `config/lineman.toml`.
pub fn config_file() -> String {
    let mut text = String::from(
        "# The configuration of Lineman. A line that starts with # and holds a key shows the default.\n\
         # Check this file with: lineman check\n\
         # Made from src/config/keys.rs; docs/configuration.md has the same as a page.\n",
    );
    for table in TABLES {
        text.push('\n');
        if table.optional {
            optional_table(&mut text, table);
            continue;
        }
        comment(&mut text, table.help);
        if !table.heading.is_empty() {
            // A commented heading would put the keys below it into another table when they are
            // uncommented; an empty table does no harm.
            let _ = writeln!(text, "{}", table.heading);
        }
        for key in table.keys {
            comment(&mut text, key.help);
            let set = table.active.lines().find(|line| {
                line.split_once(" = ")
                    .is_some_and(|(name, _)| name == key.name)
            });
            let _ = match set {
                Some(line) => writeln!(text, "{line}"),
                None if key.default.is_empty() => writeln!(text, "# {} = \"…\"", key.name),
                None => writeln!(text, "# {} = {}", key.name, key.default),
            };
        }
    }
    text.push('\n');
    comment(&mut text, LIMITS_HELP);
    text.push_str("[limits]\n");
    for row in Limits::ROWS {
        comment(&mut text, row.help);
        let _ = writeln!(text, "# {} = {}", row.name, (row.default)());
    }
    text
}

/// A table as one block of comments, to be uncommented together.
fn optional_table(text: &mut String, table: &TableRow) {
    comment(text, table.help);
    let _ = writeln!(text, "#   {}", table.heading);
    for key in table.keys {
        let value = match key.default {
            "" => "\"…\"",
            default => default,
        };
        let _ = writeln!(text, "#   {} = {value}", key.name);
    }
}

/// The text of `docs/configuration.md`.
pub fn reference_page() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         One TOML file. `--config FILE` names it; without that, `config/lineman.toml` in the working\n\
         directory, then `/etc/lineman/lineman.toml`, then the built-in defaults, which are the text of\n\
         the shipped `config/lineman.toml`. `lineman check` reads the file and reports every mistake.\n\n\
         This page is made from `src/config/keys.rs` and `src/base/limits.rs`.\n",
    );
    for table in TABLES {
        let heading = match table.heading {
            "" => "Top level".to_string(),
            heading => format!("`{heading}`"),
        };
        let _ = write!(text, "\n## {heading}\n\n{}\n\n", table.help);
        text.push_str("| key | type | default | |\n|---|---|---|---|\n");
        for key in table.keys {
            let default = match key.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {default} | {} |",
                key.name, key.kind, key.help
            );
        }
    }
    let _ = write!(
        text,
        "\n## `[limits]`\n\n{LIMITS_HELP} The unit is the last word of a name.\n\n"
    );
    text.push_str("| key | default | |\n|---|---|---|\n");
    for row in Limits::ROWS {
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} |",
            row.name,
            (row.default)(),
            row.help
        );
    }
    text
}

/// Comment lines of at most a hundred columns.
fn comment(text: &mut String, help: &str) {
    let mut line = String::from("#");
    for word in help.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
