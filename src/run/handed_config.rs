//! The configuration as the master hands it to its children, in one file without a name: the text
//! and the secrets that were fetched for it, so that a child needs neither the right to read them
//! nor the environment they came from. Invariants: a child has the very values the master checked;
//! the token keys are in what the courier gets and nowhere else.

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
use crate::config::secret::{Fault, Fetched, Keeper};
use crate::run::os;

/// A configuration with its secrets.
#[derive(Serialize, Deserialize)]
pub struct Handed {
    path: Option<PathBuf>,
    text: String,
    secrets: Vec<(Keeper, String)>,
}

impl Handed {
    /// All of it; `config` is what `source` says.
    pub fn of(source: &Source, config: &Config) -> Handed {
        Handed::with(source, config.kept.iter().chain(&config.kept_apart))
    }

    /// Without the token keys.
    fn without_keys(source: &Source, config: &Config) -> Handed {
        Handed::with(source, config.kept.iter())
    }

    fn with<'a>(
        source: &Source,
        secrets: impl Iterator<Item = (&'a Keeper, &'a Secret)>,
    ) -> Handed {
        Handed {
            path: source.path.clone(),
            text: source.text.clone(),
            secrets: secrets
                .map(|(keeper, secret)| (keeper.clone(), secret.expose().to_string()))
                .collect(),
        }
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
            let secret = secrets.get(keeper).ok_or_else(Fault::withheld)?;
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
    /// The courier's, with the token keys; `None` if there are none.
    pub file_with_keys: Option<File>,
    /// What they do not get: the variables that hold a secret.
    pub variables: Vec<String>,
}

/// Packs `config`, which is what `source` says.
pub fn pack(source: &Source, config: &Config) -> io::Result<Packed> {
    let secrets = config.kept.keys().chain(config.kept_apart.keys());
    let variables = secrets.flat_map(Keeper::variables);
    let file = |handed: &Handed| os::memory_file(&serde_json::to_vec(handed)?);
    let has_keys = !config.kept_apart.is_empty();
    let whole = has_keys.then(|| file(&Handed::of(source, config)));
    Ok(Packed {
        file: file(&Handed::without_keys(source, config))?,
        file_with_keys: whole.transpose()?,
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
    use crate::base::dice::Dice;

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

    #[test]
    fn only_the_courier_reads_the_token_keys() {
        let source = Source {
            path: Some("/etc/lineman/a.toml".into()),
            text: "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n\
                   [push]\ntoken_key = { env = \"K\" }\n"
                .into(),
            program: Program::default(),
        };
        let key = data_encoding::BASE64.encode(b"thirty-two bytes that are a key.");
        let fetch = |_: &Keeper| {
            Ok(Fetched {
                secret: Secret::new(key.clone()),
                warning: None,
            })
        };
        let config = source.config(&fetch).unwrap();
        let packed = pack(&source, &config).unwrap();
        assert_eq!(packed.variables, ["K"]);
        let has_key = |file: File| {
            let mut text = String::new();
            let mut reader = FromStart { file: &file, at: 0 };
            reader.read_to_string(&mut text).unwrap();
            let config = unpack(file.into(), &Program::default()).unwrap();
            let push = config.push.expect("there is a gateway");
            let opens = push.vault(&mut Dice::new([1; 16])).is_some();
            assert_eq!(opens, text.contains(&key));
            opens
        };
        assert!(has_key(packed.file_with_keys.expect("there is a key")));
        assert!(!has_key(packed.file));
    }
}
