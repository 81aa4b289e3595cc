//! `lineman mock`: one process that is a push provider for whoever runs it. Owns its sockets, its
//! files and what it prints; what it answers is decided in `mock` and `node/mock`.
//!
//! What is printed on stdout is JSON, one object a line: first that it is ready and where, then one
//! for each request. People read the same on stderr.

mod authority;
mod providers;
mod telling;
mod words;

use std::fs::{self, DirBuilder};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::dice::Dice;
use crate::base::limits::Limits;
use crate::base::tls_rules::{ClientAuth, TlsRules};
use crate::mock::script::Script;
use crate::mock::{Kind, Mock};
use crate::net::admission::Admission;
use crate::net::clock::{Clock, unix_seconds};
use crate::net::reactor::Reactor;
use crate::net::sockets::{Listening, Sockets, Tls};
use crate::net::tarpit::Tarpit;
use crate::net::tickets::TicketSecret;
use crate::net::tls::{Identity, Material, ServerTls};
use crate::node::mock::{BODY_BYTES, MockNode, MockOptions};
use crate::run::exit::{Exit, Failure};
use crate::run::os;
use crate::run::role::seed;
use authority::Authority;
use words::Common;
pub use words::Which;

/// Where a mock is, for those that have to write it into something.
pub struct Site<'a> {
    /// `https://127.0.0.1:2197`, one for each address.
    pub urls: &'a [String],
    pub dir: &'a Path,
    pub plain: bool,
}

fn failed(what: &str, why: impl ToString) -> Failure {
    Failure::new(Exit::Failed, format!("{what}: {}", why.to_string()))
}

pub(super) fn usage(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, why)
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| failed(&path.display().to_string(), error))
}

/// Runs until the process is ended.
pub fn run(which: &Which) -> Result<Exit, Failure> {
    let (kind, start) = (which.kind(), which.common());
    let script = script(start, kind)?;
    let listeners = listen(&start.listen)?;
    let urls = urls(&listeners, start.plain)?;
    let dir = directory(start, kind)?;
    let (tls, ca) = secure(start, kind, &dir)?;
    let mut dice = Dice::new(seed().map_err(|why| failed("a seed", why))?);
    let site = Site {
        urls: &urls,
        dir: &dir,
        plain: start.plain,
    };
    let (provider, more) = providers::build(which, &site, &mut dice)?;
    announce(kind, &urls, ca.as_deref(), more);
    let options = MockOptions {
        mock: Mock::new(provider, script, dice, !start.quiet),
        streams_max: start.streams,
        start_with_one: kind == Kind::Apns && start.client_ca.is_none(),
        limits: Limits {
            http_body_bytes: BODY_BYTES,
            ..Limits::default()
        },
        tell: telling::start().map_err(|error| failed("a thread", error))?,
    };
    let sockets = sockets(listeners, tls);
    let reactor = Reactor::new(
        MockNode::new(options),
        sockets,
        start.connections,
        Clock::start(),
    );
    let turned = reactor.and_then(|mut reactor| reactor.run());
    turned.map_err(|error| failed("the mock gives up", error))?;
    Ok(Exit::Done)
}

fn script(start: &Common, kind: Kind) -> Result<Script, Failure> {
    let mut script = Script::default();
    for rule in &start.rules {
        script.add_text(kind, rule).map_err(usage)?;
    }
    if let Some(path) = &start.rules_file {
        let text = read(path)?;
        let added = script.add_toml(kind, &text);
        added.map_err(|why| usage(format!("{}: {}", path.display(), why.trim_end())))?;
    }
    Ok(script)
}

fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Failure> {
    let bound = addresses.iter().map(|address| {
        TcpListener::bind(address).map_err(|error| failed(&address.to_string(), error))
    });
    bound.collect()
}

fn urls(listeners: &[TcpListener], plain: bool) -> Result<Vec<String>, Failure> {
    let scheme = if plain { "http" } else { "https" };
    let bound = listeners.iter().map(|listener| {
        let address = listener.local_addr();
        let mut address = address.map_err(|error| failed("an address", error))?;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Ok(format!("{scheme}://{address}"))
    });
    bound.collect()
}

/// Only its owner may look into it: there are keys.
fn directory(start: &Common, kind: Kind) -> Result<PathBuf, Failure> {
    let name = format!("lineman-mock-{}-{}", kind.word(), std::process::id());
    let chosen = start.dir.clone();
    let dir = chosen.unwrap_or_else(|| std::env::temp_dir().join(name));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|error| failed(&dir.display().to_string(), error))?;
    Ok(dir)
}

/// What connections are secured with, and the file of the authority that clients have to trust.
fn secure(
    start: &Common,
    kind: Kind,
    dir: &Path,
) -> Result<(Option<ServerTls>, Option<PathBuf>), Failure> {
    if start.plain {
        return Ok((None, None));
    }
    let (certificate, key, ca) = match start.cert.as_ref().zip(start.cert_key.as_ref()) {
        Some((certificate, key)) => (read(certificate)?, read(key)?, None),
        None => {
            let made = Authority::new().and_then(|authority| {
                let (certificate, key) = authority.issue(&names(start, kind))?;
                Ok((certificate, key, authority.pem))
            });
            let (certificate, key, pem) = made.map_err(|error| failed("a certificate", error))?;
            let path = write(dir, "ca.pem", &pem)?;
            (certificate, key, Some(path))
        }
    };
    let client_ca = start.client_ca.as_deref().map(read).transpose()?;
    let rules = TlsRules {
        client_auth: match client_ca {
            Some(_) => ClientAuth::Required,
            None => ClientAuth::None,
        },
        only_tls13: false,
        alpn: match kind {
            Kind::Apns => vec![b"h2".to_vec()],
            _ if start.http1 => vec![b"http/1.1".to_vec()],
            _ => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        },
    };
    let material = Material {
        identities: vec![Identity {
            names: Vec::new(),
            certificate,
            key,
        }],
        client_ca,
    };
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| failed("a secret", "there is no entropy"))?;
    let secret = TicketSecret::new(secret, unix_seconds());
    let tls = ServerTls::new(&material, &rules, &secret);
    let tls = tls.map_err(|fault| failed("the certificate", fault))?;
    Ok((Some(tls), ca))
}

/// What the certificate is for: this machine, and the provider's own names for whoever leads those
/// here in `/etc/hosts`.
fn names(start: &Common, kind: Kind) -> Vec<String> {
    let own: &[&str] = match kind {
        Kind::Apns => &[
            "api.push.apple.com",
            "api.sandbox.push.apple.com",
            "api.development.push.apple.com",
            "api-manage-broadcast.push.apple.com",
            "api-manage-broadcast.sandbox.push.apple.com",
        ],
        Kind::Fcm => &[
            "fcm.googleapis.com",
            "oauth2.googleapis.com",
            "iid.googleapis.com",
        ],
        Kind::WebPush => &[],
        Kind::Azure => &[
            "login.microsoftonline.com",
            "mock.vault.azure.net",
            "mock.servicebus.windows.net",
        ],
    };
    let own = ["localhost", "127.0.0.1", "::1"].iter().chain(own);
    let own = own.map(ToString::to_string);
    own.chain(start.names.iter().cloned()).collect()
}

/// Writes a file that only its owner may read; its path.
fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|error| failed(&path.display().to_string(), error))?;
    Ok(path)
}

/// Says that it is ready, to programs and to people.
fn announce(kind: Kind, urls: &[String], ca: Option<&Path>, more: Value) {
    let mut ready = json!({ "ready": true, "provider": kind.word(), "urls": urls });
    if let Some(ca) = ca {
        ready["ca"] = json!(ca.display().to_string());
    }
    if let Value::Object(more) = more {
        for (name, value) in more {
            ready[name] = value;
        }
    }
    println!("{ready}");
    for (name, value) in ready
        .as_object()
        .into_iter()
        .flatten()
        .skip_while(|_| false)
    {
        let shown = match value {
            Value::String(text) => text.clone(),
            Value::Array(all) => {
                let all = all
                    .iter()
                    .map(|it| it.as_str().map_or(it.to_string(), str::to_string));
                all.collect::<Vec<_>>().join("\n  ")
            }
            Value::Bool(_) => continue,
            other => other.to_string(),
        };
        eprintln!("{name}: {shown}");
    }
}

fn sockets(listeners: Vec<TcpListener>, tls: Option<ServerTls>) -> Sockets {
    let all = vec![tls; listeners.len()];
    let listening = listeners.into_iter().enumerate();
    let listening = listening.map(|(index, listener)| Listening::Clients {
        index,
        listener,
        proxies: None,
    });
    Sockets {
        listening: listening.collect(),
        master: None,
        switchboard: None,
        courier: None,
        store: None,
        admit: os::admit,
        tls: Tls {
            read: Some(Box::new(move || Ok(all.clone()))),
            handshake: Duration::from_secs(10),
        },
        admission: Admission::open(),
        tarpit: Tarpit::none(),
        write: Duration::from_secs(10),
        lines_dropped: || 0,
        roots: Vec::new(),
    }
}
