//! The server as a part of another program: what it listens on, what it does there, and `run`. Owns
//! the words of a `Server`; everything behind them is what `lineman` itself is made of. Invariant:
//! what is said here becomes a configuration text, so a program has every setting, verb and promise
//! that `lineman` has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::app::service::{Served, Service, Services};
use crate::cli;
use crate::config::program::Program;
use crate::wire::framing::Framing;
use crate::wire::protocol::OwnFraming;

/// A server with listeners of the program's own.
///
/// `run` reads the command line as Workerman's programs do (`start`, `start -d`, `stop`, `reload`,
/// `status`, `connections`, …; none means `start`). It starts the program again for each worker and
/// for the switchboard, with the same arguments: `main` runs in each of these processes up to
/// `run`, which knows which one it is in and does not return before its work is done. So what
/// stands before `run` must be the same each time and open nothing.
///
/// ```no_run
/// use lineman::{Callbacks, Server};
///
/// fn main() -> std::process::ExitCode {
///     Server::new()
///         .listen("websocket://127.0.0.1:8080", || {
///             Callbacks::new()
///                 .on_connect(|conn| conn.subscribe("room"))
///                 .on_message(|conn, message| conn.publish("room", message))
///         })
///         .run()
/// }
/// ```
#[must_use = "nothing happens until `run`"]
pub struct Server {
    program: Program,
    served: Vec<Served>,
}

/// Where a service is to be found: a URL, and what belongs to that place alone.
///
/// ```
/// use lineman::{Callbacks, Listen, Server};
///
/// let place = Listen::on("https://0.0.0.0:8443")
///     .tls("certificate.pem", "key.pem")
///     .settings("connections = 10_000");
/// let _server = Server::new().listen(place, Callbacks::new);
/// ```
pub struct Listen {
    url: String,
    tls: Option<(String, String)>,
    framing: Option<&'static OwnFraming>,
    settings: String,
}

impl Listen {
    /// One of `http://`, `https://`, `websocket://`, `text://`, `frame://`, `tcp://` with an IP
    /// address and a port, or `unix://PATH` (docs/configuration.md says what each speaks).
    pub fn on(url: &str) -> Listen {
        Listen {
            url: url.to_string(),
            tls: None,
            framing: None,
            settings: String::new(),
        }
    }

    /// Serves TLS with this chain and key, both PEM files.
    pub fn tls(mut self, certificate: &str, key: &str) -> Listen {
        self.tls = Some((certificate.to_string(), key.to_string()));
        self
    }

    /// Speaks a protocol of the program's own; the URL has to say `tcp://`.
    pub fn framing(mut self, framing: impl Framing + 'static) -> Listen {
        self.framing = Some(OwnFraming::leak(framing));
        self
    }

    /// Further keys of its `[[listen]]` table, as TOML lines.
    pub fn settings(mut self, lines: &str) -> Listen {
        self.settings = lines.to_string();
        self
    }

    fn table(&self, handler: &str) -> String {
        let text = |text: &str| toml::Value::from(text).to_string();
        let (url, handler) = (text(&self.url), text(handler));
        let mut table = format!("\n[[listen]]\nurl = {url}\nhandler = {handler}\n");
        if !self.settings.is_empty() {
            table.push_str(&self.settings);
            table.push('\n');
        }
        if let Some((certificate, key)) = &self.tls {
            let (certificate, key) = (text(certificate), text(key));
            table.push_str("[listen.tls]\n");
            table.push_str(&format!("certificate = {certificate}\nkey = {key}\n"));
        }
        table
    }
}

impl From<&str> for Listen {
    fn from(url: &str) -> Listen {
        Listen::on(url)
    }
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl Server {
    /// A server named after the running program.
    pub fn new() -> Server {
        let file = std::env::current_exe().ok();
        let stem = file.as_deref().and_then(|file| file.file_stem());
        let name = stem.map(|stem| stem.to_string_lossy().into_owned());
        Server {
            program: Program {
                name: Some(name.unwrap_or_else(|| "server".to_string())),
                file,
                ..Program::default()
            },
            served: Vec::new(),
        }
    }

    /// The name in `ps`, in messages and for the lines that the program logs; to be said first.
    pub fn name(mut self, name: &str) -> Server {
        self.program.name = Some(name.to_string());
        self
    }

    /// Serves at a place. `make` is called once in each reactor. The handler's word in `status`, and
    /// for a configuration that wants it elsewhere (`[[listen]]` with this `handler`), is the name
    /// of the program; `NAME-2` for the second, and so on.
    pub fn listen<S: Service + 'static>(
        self,
        place: impl Into<Listen>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Server {
        let place = place.into();
        let number = self.served.len() + 1;
        let word = match &self.program.name {
            Some(name) if number == 1 => name.clone(),
            name => format!("{}-{number}", name.as_deref().unwrap_or_default()),
        };
        let table = place.table(&word);
        let mut server = self.add(&word, place.framing, make);
        server.program.listen.push((word, table));
        server
    }

    /// Makes a service known to the configuration, whose `[[listen]]` tables say where it is by
    /// `handler = "WORD"`.
    pub fn handler<S: Service + 'static>(
        self,
        word: &str,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Server {
        self.add(word, None, make)
    }

    fn add<S: Service + 'static>(
        mut self,
        word: &str,
        framing: Option<&'static OwnFraming>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Server {
        self.program.handlers.push(word.to_string());
        self.served.push(Served {
            factory: Arc::new(move || Box::new(make()) as Box<dyn Service>),
            framing,
        });
        self
    }

    /// Settings for when there is no configuration file: TOML with any key of
    /// docs/configuration.md, such as `"workers = 2"`. A later call adds to what was said.
    pub fn settings(mut self, toml: &str) -> Server {
        self.program.settings.push_str(toml);
        self.program.settings.push('\n');
        self
    }

    /// The configuration file when `--config` names none. Changes of it are taken up by `reload`.
    pub fn config(mut self, path: impl Into<PathBuf>) -> Server {
        self.program.config = Some(path.into());
        self
    }

    /// Does what the command line says; returns the exit code of the command. The program must
    /// have one thread.
    #[must_use = "it is the exit code of the program"]
    pub fn run(self) -> ExitCode {
        cli::run(&self.program, &Services::new(self.served))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::app::service::Callbacks;
    use crate::config::load::parse;
    use crate::config::secret::no_secrets;

    #[test]
    fn what_is_said_becomes_a_configuration() {
        let server = Server::new()
            .name("chat")
            .listen("text://127.0.0.1:0", Callbacks::new)
            .listen(
                Listen::on("https://[::1]:8443").tls("a \"b\".pem", "k.pem"),
                Callbacks::new,
            )
            .settings("workers = 3");
        let program = server.program;
        let config = parse(
            &program.without_file(),
            "f",
            Path::new("/etc"),
            &program,
            &no_secrets,
        );
        let config = config.expect("valid");
        assert_eq!(config.workers, 3);
        let words: Vec<&str> = config.listen.iter().map(|one| one.word.as_str()).collect();
        assert_eq!(words, ["chat", "chat-2"]);
        assert!(config.listen[1].tls.is_some());
    }
}
