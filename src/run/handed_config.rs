//! The configuration as the master hands it to its children, in one file without a name: the text
//! and the secrets that were fetched for it, so that a child needs neither the right to read them
//! nor the environment they came from. Invariant: a child has the very values the master checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::app::apps::Secret;
use crate::config::Config;
use crate::config::locate::Source;
use crate::config::problem::ConfigError;
use crate::config::program::Program;
use crate::config::secret::{Fault, Fetched, Keeper, Private};
use crate::run::os;

/// A configuration with its secrets.
#[derive(Serialize, Deserialize)]
pub struct Handed {
    path: Option<PathBuf>,
    text: String,
    secrets: Vec<(Keeper, String)>,
}

impl Handed {
    /// `config` is what `source` says.
    pub fn of(source: &Source, config: &Config) -> Handed {
        let secrets = config.kept.iter().chain(&config.private.kept);
        Handed {
            path: source.path.clone(),
            text: source.text.clone(),
            secrets: secrets
                .map(|(keeper, secret)| (keeper.clone(), secret.expose().to_string()))
                .collect(),
        }
    }

    /// The same for those who get along without what is private: another word stands there.
    fn without_private(source: &Source, config: &Config) -> Handed {
        let mut spans = config.private.spans.clone();
        spans.sort_by_key(|span| span.start);
        let mut text = source.text.clone();
        for span in spans.into_iter().rev() {
            text.replace_range(span, "\"withheld\"");
        }
        let source = Source {
            text,
            ..source.clone()
        };
        let config = Config {
            private: Private::default(),
            ..config.clone()
        };
        Handed::of(&source, &config)
    }

    /// What it was made of, checked anew. `program` is the one that runs, as ever.
    pub fn open(&self, program: &Program) -> Result<(Source, Config), ConfigError> {
        let source = Source {
            path: self.path.clone(),
            text: self.text.clone(),
            program: program.clone(),
        };
        let secrets: BTreeMap<&Keeper, &String> =
            self.secrets.iter().map(|(k, s)| (k, s)).collect();
        let fetch = |keeper: &Keeper| {
            let secret = secrets.get(keeper).ok_or_else(|| Fault {
                message: "the secret was not handed over".to_string(),
                hint: None,
            })?;
            Ok(Fetched {
                secret: Secret::new(secret.to_string()),
                warning: None,
            })
        };
        let config = source.config(&fetch)?;
        Ok((source, config))
    }
}

/// A configuration as children get it.
#[derive(Debug)]
pub struct Packed {
    pub file: File,
    /// The same without what is private.
    pub public: File,
    /// What they do not get: the variables that hold a secret.
    pub variables: Vec<String>,
}

/// Packs `config`, which is what `source` says.
pub fn pack(source: &Source, config: &Config) -> io::Result<Packed> {
    let keepers = config.kept.keys().chain(config.private.kept.keys());
    let variables = keepers.filter_map(|keeper| match keeper {
        Keeper::Env(name) => Some(name.clone()),
        Keeper::File(_) | Keeper::Credential(_) => None,
    });
    let public = Handed::without_private(source, config);
    Ok(Packed {
        file: os::memory_file(&serde_json::to_vec(&Handed::of(source, config))?)?,
        public: os::memory_file(&serde_json::to_vec(&public)?)?,
        variables: variables.collect(),
    })
}

/// A child's side.
pub fn unpack(file: OwnedFd, program: &Program) -> Result<Config, String> {
    // All children share the descriptor's position, so it cannot be read from where it stands.
    let file = File::from(file);
    let mut bytes = Vec::new();
    let mut reader = FromStart { file: &file, at: 0 };
    let read = reader.read_to_end(&mut bytes);
    let handed: Handed = read
        .and_then(|_| Ok(serde_json::from_slice(&bytes)?))
        .map_err(|error| format!("the configuration: {error}"))?;
    let (_, config) = handed.open(program).map_err(|error| error.0)?;
    Ok(config)
}

struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_reads_the_secrets_that_the_master_fetched() {
        let source = Source {
            path: Some("/etc/lineman/a.toml".into()),
            text: "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[apps]]\nid = \"a\"\nkey = \"k\"\n\
                   secret = { file = \"s\" }\n"
                .into(),
            program: Program::default(),
        };
        let fetch = |_: &Keeper| {
            let secret = Secret::new("tiger".to_string());
            let warning = None;
            Ok(Fetched { secret, warning })
        };
        let config = source.config(&fetch).unwrap();
        let file = pack(&source, &config).unwrap().file;
        for _ in 0..2 {
            let again = unpack(file.try_clone().unwrap().into(), &Program::default()).unwrap();
            assert_eq!(again.apps[0].keys[0].secret.expose(), "tiger");
        }
    }
}
