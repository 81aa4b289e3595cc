//! What a program that embeds the server brings to its configuration: its name, the words of its
//! handlers, and the tables it wrote itself. Owns how they are joined to a file. Does not know what
//! a handler does. Invariant: the joined text is a configuration like any other, so that errors,
//! reloads and child processes need to know nothing of its origin.

use std::path::PathBuf;

use crate::app::handler::Handler;

/// See the file's head. The default is the server itself, which brings nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// `None` for `lineman`.
    pub name: Option<String>,
    /// Where this name counts: the embedding program's file, so that two of one name do not meet.
    pub file: Option<PathBuf>,
    /// The words of its handlers; `Handler::Service` counts in them.
    pub handlers: Vec<String>,
    /// The configuration file when none is asked for.
    pub config: Option<PathBuf>,
    /// TOML: the configuration when there is no file.
    pub settings: String,
    /// Its listeners: the handler's word, and the `[[listen]]` table as TOML. A table stands behind
    /// every file that has none for this handler.
    pub listen: Vec<(String, String)>,
}

impl Program {
    pub fn is_embedding(&self) -> bool {
        self.name.is_some()
    }

    /// A file's text with what the program adds. The tables come last, where TOML takes them
    /// whatever stands before; lines before them keep their numbers.
    pub fn complete(&self, mut text: String) -> String {
        let said = handlers_in(&text);
        for (_, table) in self.listen.iter().filter(|(word, _)| !said.contains(word)) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(table);
        }
        text
    }

    /// The text when there is no file.
    pub fn without_file(&self) -> String {
        self.complete(self.settings.clone())
    }

    /// Every handler that a listener may name. The program's own come first: what it calls `echo` is
    /// its own echo.
    pub(super) fn words(&self) -> Vec<(&str, Handler)> {
        let own = self.handlers.iter().enumerate();
        let own = own.map(|(index, word)| (word.as_str(), Handler::Service(index as u16)));
        own.chain(Handler::BUILT_IN).collect()
    }
}

/// The handlers that a file has a listener for; none if it cannot be read, which is told later.
fn handlers_in(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap_or_default();
    let listen = table.get("listen").and_then(toml::Value::as_array);
    let handlers = listen
        .into_iter()
        .flatten()
        .filter_map(|one| one.get("handler"));
    handlers
        .filter_map(|word| Some(word.as_str()?.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::secret::no_secrets;

    const ADMIN: &str = "[[listen]]\nurl = \"text://127.0.0.1:0\"\nhandler = \"admin\"\n";

    fn program() -> Program {
        Program {
            name: Some("chat".into()),
            handlers: vec!["echo".into(), "admin".into()],
            settings: "workers = 1".into(),
            listen: vec![("admin".into(), ADMIN.into())],
            ..Program::default()
        }
    }

    #[test]
    fn the_tables_of_the_program_stand_behind_any_file() {
        for text in ["workers = 1", "[limits]\nconnections = 5\n", ""] {
            let text = program().complete(text.into());
            let config = parse(&text, "f", Path::new("/"), &program(), &no_secrets).expect("valid");
            assert_eq!(config.listen[0].handler, Handler::Service(1));
            assert_eq!(config.listen[0].word, "admin");
        }
        let text = program().without_file();
        let config = parse(&text, "f", Path::new("/"), &program(), &no_secrets).expect("valid");
        assert_eq!(config.workers, 1);
    }

    #[test]
    fn a_file_that_places_a_handler_takes_it_from_where_the_program_put_it() {
        let moved = ADMIN.replace("text", "frame");
        let config = parse(
            &program().complete(moved),
            "f",
            Path::new("/"),
            &program(),
            &no_secrets,
        );
        let listen = config.expect("valid").listen;
        assert_eq!(listen.len(), 1);
        assert_eq!(listen[0].url.to_string(), "frame://127.0.0.1:0");
    }

    #[test]
    fn a_file_may_name_the_handlers_of_the_program_and_no_others() {
        let text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echoo\"\n";
        let error = parse(text, "f", Path::new("/"), &program(), &no_secrets).unwrap_err();
        assert!(error.0.contains("did you mean \"echo\"?"), "{error}");
        let listen = |program: &Program| {
            let text = text.replace("echoo", "echo");
            let config = parse(&text, "f", Path::new("/"), program, &no_secrets);
            config.expect("valid").listen[0].handler
        };
        assert_eq!(listen(&program()), Handler::Service(0));
        assert_eq!(listen(&Program::default()), Handler::Echo);
        let text = text.replace("echoo", "admin");
        assert!(parse(&text, "f", Path::new("/"), &Program::default(), &no_secrets).is_err());
    }
}
