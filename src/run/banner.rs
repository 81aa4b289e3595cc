//! What `start` prints once the server stands: what runs, where it listens, what to try next.
//! Does not know whether anything runs. Invariant: every command shown works when copied.

use std::fmt::Write;

use crate::config::apps::DEMO_SECRET;
use crate::run::status::{ListenStatus, columns};

/// What the banner is about.
#[derive(Clone, Debug)]
pub struct Banner {
    /// How the user called us, so that the commands shown can be copied.
    pub program: String,
    pub user: String,
    pub workers: u32,
    pub threads: u32,
    /// Whether there is one.
    pub courier: bool,
    pub listen: Vec<ListenStatus>,
    /// The configuration as it must be given again; `None` when it is found by itself.
    pub config: Option<String>,
    pub config_name: String,
    /// Whether the app of the shipped configuration is there.
    pub demo: bool,
    /// `None` when the log goes to the terminal.
    pub log_file: Option<String>,
    pub daemon: bool,
}

impl Banner {
    /// `missing` names what is not ready yet.
    pub fn text(&self, missing: &[String]) -> String {
        let mut text = format!(
            "Lineman {} — {}\n\n",
            env!("CARGO_PKG_VERSION"),
            self.config_name
        );
        text.push_str(&columns(&self.rows()));
        text.push('\n');
        if !missing.is_empty() {
            let _ = writeln!(
                text,
                "Not ready yet: {}. The log tells more.\n",
                missing.join(", ")
            );
        }
        self.write_next(&mut text);
        text
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let heading = ["ROLE", "LISTEN", "HANDLER", "PROCESSES", "USER"].map(str::to_string);
        let row = |role: &str, listen: &str, handler: &str, processes: String| {
            [
                role.to_string(),
                listen.to_string(),
                handler.to_string(),
                processes,
                self.user.clone(),
            ]
        };
        let workers = match self.threads {
            1 => self.workers.to_string(),
            threads => format!("{} × {threads}", self.workers),
        };
        let mut rows = vec![heading];
        rows.push(row("master", "-", "-", "1".to_string()));
        rows.push(row("switchboard", "-", "-", "1".to_string()));
        if self.courier {
            rows.push(row("courier", "-", "-", "1".to_string()));
        }
        for listen in &self.listen {
            rows.push(row("worker", &listen.url, &listen.handler, workers.clone()));
        }
        rows
    }

    fn write_next(&self, text: &mut String) {
        let program = quoted(&self.program);
        let again = match &self.config {
            Some(path) => format!(" --config {}", quoted(path)),
            None => String::new(),
        };
        let channels = self
            .listen
            .iter()
            .filter(|listen| listen.handler == "channels")
            .find_map(|listen| browsable(&listen.url));
        if let (true, Some(url)) = (self.demo, channels) {
            let _ = writeln!(
                text,
                "Try next:\n  \
                 open {url}/ in a browser, then publish into it:\n  \
                 curl -H 'Authorization: Bearer {DEMO_SECRET}' -H 'Content-Type: application/json' \
                 -d '{{\"name\":\"message\",\"channel\":\"room\",\"data\":\"hello\"}}' \
                 {url}/apps/demo/events\n  \
                 {program} status{again}\n"
            );
        }
        if let Some(file) = &self.log_file {
            let _ = writeln!(text, "Log: {file}");
        }
        let _ = match self.daemon {
            true => writeln!(text, "Stop with: {program} stop{again}"),
            false => writeln!(text, "Press Ctrl-C to stop."),
        };
    }
}

/// As a browser and curl take it, if they can reach it.
fn browsable(url: &str) -> Option<String> {
    match url.split_once("://")? {
        ("https", address) => Some(format!("https://{address}")),
        ("http" | "websocket", address) => Some(format!("http://{address}")),
        _ => None,
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner() -> Banner {
        let listen = ListenStatus {
            url: "http://127.0.0.1:9".into(),
            certificates: Vec::new(),
            handler: "channels".into(),
            workers: 2,
        };
        Banner {
            program: "target/release/lineman".into(),
            user: "nobody".into(),
            workers: 2,
            threads: 1,
            courier: false,
            listen: vec![listen],
            config: Some("my file.toml".into()),
            config_name: "/x/a.toml".into(),
            demo: true,
            log_file: None,
            daemon: false,
        }
    }

    #[test]
    fn it_says_what_runs_and_what_to_try() {
        let text = banner().text(&[]);
        for part in [
            "http://127.0.0.1:9 ",
            "channels",
            "nobody",
            "-d '{\"name\":\"message\",\"channel\":\"room\",\"data\":\"hello\"}' http://127.0.0.1:9/apps/demo/events",
            "target/release/lineman status --config 'my file.toml'",
            "Ctrl-C",
        ] {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
        assert!(!text.contains("Not ready"));
        assert!(
            banner()
                .text(&["worker 1".into()])
                .contains("Not ready yet: worker 1")
        );
    }

    #[test]
    fn the_demo_is_shown_only_where_it_works() {
        let text = Banner {
            demo: false,
            ..banner()
        }
        .text(&[]);
        assert!(!text.contains("curl"), "{text}");
        let mut lines_first = banner();
        lines_first.listen[0].url = "websocket://127.0.0.1:9".into();
        let lines = ListenStatus {
            url: "text://127.0.0.1:8".into(),
            handler: "channels".into(),
            workers: 2,
            certificates: Vec::new(),
        };
        lines_first.listen.insert(0, lines);
        let text = lines_first.text(&[]);
        assert!(text.contains("open http://127.0.0.1:9/ in"), "{text}");
        assert!(text.contains("text://127.0.0.1:8 "), "{text}");
    }
}
