//! Which configuration file is meant, and its text. Owns the order of the places looked at. Does
//! not know what the text says, except for `run_dir`, which `stop` and `status` need even when the
//! rest of the file is broken.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::config::load::parse;
use crate::config::problem::ConfigError;
use crate::config::program::Program;
use crate::config::secret::Fetch;

/// Looked for in the working directory.
pub const LOCAL: &str = "config/lineman.toml";
/// Looked for when there is no local file.
pub const SYSTEM: &str = "/etc/lineman/lineman.toml";
/// What the program runs with when there is no file at all.
pub const BUILT_IN: &str = include_str!("../../config/lineman.toml");

/// A configuration text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Canonical; `None` for the built-in text.
    pub path: Option<PathBuf>,
    pub text: String,
    pub program: Program,
}

impl Source {
    /// Reads the file asked for, or the first of the usual places that has one.
    pub fn find(asked: Option<&Path>, program: &Program) -> Result<Source, ConfigError> {
        if let Some(path) = asked.or(program.config.as_deref()) {
            return Source::read(path, program);
        }
        if program.is_embedding() {
            return Ok(Source {
                path: None,
                text: program.without_file(),
                program: program.clone(),
            });
        }
        for place in [LOCAL, SYSTEM] {
            let path = Path::new(place);
            if path.exists() {
                return Source::read(path, program);
            }
        }
        Ok(Source {
            path: None,
            text: BUILT_IN.to_string(),
            program: program.clone(),
        })
    }

    fn read(path: &Path, program: &Program) -> Result<Source, ConfigError> {
        let read = || -> io::Result<Source> {
            Ok(Source {
                path: Some(path.canonicalize()?),
                text: program.complete(std::fs::read_to_string(path)?),
                program: program.clone(),
            })
        };
        read().map_err(|error| {
            ConfigError(format!(
                "{}: cannot read the configuration: {error}\n",
                path.display()
            ))
        })
    }

    /// For messages.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => match &self.program.name {
                Some(program) => format!("the settings in {program}"),
                None => "built-in configuration".to_string(),
            },
        }
    }

    /// Where relative paths in the text start: beside the file.
    fn base(&self) -> PathBuf {
        let beside = self.path.as_deref().and_then(Path::parent);
        beside.map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
    }

    /// The whole configuration, checked. `fetch` gets the secrets that are kept elsewhere.
    pub fn config(&self, fetch: &Fetch<'_>) -> Result<Config, ConfigError> {
        let mut config = parse(&self.text, &self.name(), &self.base(), &self.program, fetch)?;
        config.log.program = self
            .program
            .name
            .as_ref()
            .map(|name| name.replace('-', "_"));
        Ok(config)
    }

    /// `run_dir` alone, from a file that may be wrong elsewhere, even in its syntax: whoever broke
    /// the file of a running server must still be able to stop it.
    pub fn run_dir(&self) -> Option<PathBuf> {
        let line = || {
            let names_it = |line: &&str| line.trim_start().starts_with("run_dir");
            self.text.lines().find(names_it)?.parse().ok()
        };
        let table: toml::Table = self.text.parse().ok().or_else(line)?;
        let dir = table.get("run_dir")?.as_str()?;
        Some(self.base().join(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::no_secrets;

    #[test]
    fn run_dir_is_found_in_a_file_that_is_wrong_elsewhere() {
        let source = Source {
            path: Some(PathBuf::from("/etc/x/a.toml")),
            text: "run_dir = \"here\"\nwrokers = 7\n".into(),
            program: Program::default(),
        };
        assert!(source.config(&no_secrets).is_err());
        assert_eq!(source.run_dir(), Some(PathBuf::from("/etc/x/here")));
        let broken = Source {
            text: "workers = = 7\nrun_dir = \"here\"\n[".into(),
            ..source
        };
        assert_eq!(broken.run_dir(), Some(PathBuf::from("/etc/x/here")));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error =
            Source::find(Some(Path::new("/no/such/file.toml")), &Program::default()).unwrap_err();
        assert!(error.0.contains("/no/such/file.toml"), "{error}");
    }
}
