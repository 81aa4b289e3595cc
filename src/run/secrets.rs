//! Fetching secrets from where the configuration says they are kept: the environment, files, the
//! service manager, Azure Key Vault. Does not know what they are for. Invariants: only the master and the commands
//! of the command line fetch; a message repeats neither a secret nor what stands in its place.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::app::apps::Secret;
use crate::config::Config;
use crate::config::locate::Source;
use crate::config::secret::{Fault, Fetched, Keeper};
use crate::run::exit::{Exit, Failure};
use crate::run::key_vault::KeyVaults;

/// More is no secret but another file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Where systemd puts credentials (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The configuration with all its secrets; waits for a key vault, a few seconds at most. One that
/// does not answer is no mistake in the configuration, and the exit code is another.
pub fn config(source: &Source) -> Result<Config, Failure> {
    let vaults = RefCell::new(KeyVaults::default());
    let config = source.config(&|keeper| match keeper {
        Keeper::KeyVault(keeper) => vaults.borrow_mut().fetch(keeper, &fetch),
        near => fetch(near),
    });
    config.map_err(|error| match vaults.borrow().is_unavailable() {
        true => Failure::new(Exit::Failed, error.0),
        false => Failure::new(Exit::BadConfig, error.0),
    })
}

/// Gets a secret from where it is kept, with the rights and the environment of this process. What is
/// in a vault is withheld.
pub fn fetch(keeper: &Keeper) -> Result<Fetched, Fault> {
    match keeper {
        Keeper::Env(name) => from_environment(name),
        Keeper::File(path) => from_file(path),
        Keeper::Credential(name) => {
            let directory = std::env::var_os(CREDENTIALS).map(PathBuf::from);
            from_credential(name, directory.as_deref())
        }
        Keeper::KeyVault(_) => Err(Fault::withheld()),
    }
}

fn fault(message: impl Into<String>, hint: &'static str) -> Fault {
    Fault {
        hint: Some(hint),
        ..Fault::new(message)
    }
}

fn from_environment(name: &str) -> Result<Fetched, Fault> {
    // The library panics at such names.
    let possible = !name.is_empty() && !name.contains(['=', '\0']);
    let value = possible.then(|| std::env::var_os(name)).flatten();
    let value = value.ok_or_else(|| {
        fault(
            "the variable named here is not set",
            "it must be set for the command that reads this, `start` or `check`",
        )
    })?;
    let text = value
        .into_string()
        .map_err(|_| fault("the variable named here is not UTF-8", "write it as text"))?;
    Ok(Fetched {
        secret: Secret::new(text),
        warning: None,
    })
}

fn from_file(path: &Path) -> Result<Fetched, Fault> {
    let secret = read(path).map_err(|error| {
        let hint = "the user who starts the server must be able to read it; a relative path starts \
                    beside the configuration";
        fault(format!("the file named here cannot be read: {error}"), hint)
    })?;
    let mode = std::fs::metadata(path).map_or(0, |it| it.permissions().mode());
    let path = path.display();
    let warn =
        || format!("{path}: everybody on this machine can read the secret; chmod 640 {path}");
    Ok(Fetched {
        secret,
        warning: (mode & 0o004 != 0).then(warn),
    })
}

fn from_credential(name: &str, directory: Option<&Path>) -> Result<Fetched, Fault> {
    let hint = "the unit needs LoadCredential=NAME:/path/of/the/file, and systemd gives credentials \
                to the unit's own processes only";
    let Some(directory) = directory else {
        let message = format!("there are no credentials: {CREDENTIALS} is not set");
        return Err(fault(message, hint));
    };
    if name.is_empty() || name.contains(['/', '\0']) || [".", ".."].contains(&name) {
        let hint = "a credential is named without a path";
        return Err(fault("this is no name of a credential", hint));
    }
    // Who may read it is the service manager's business.
    let secret = read(&directory.join(name))
        .map_err(|error| fault(format!("this credential cannot be read: {error}"), hint))?;
    Ok(Fetched {
        secret,
        warning: None,
    })
}

/// The text of a file without the newline that editors and `echo` put at its end.
fn read(path: &Path) -> io::Result<Secret> {
    // A pipe without a writer would be waited for.
    let flags = libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::other("it is too long for a secret"));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place() -> tempfile::TempDir {
        tempfile::TempDir::new().unwrap()
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_not_a_part_of_the_secret() {
        let dir = place();
        let path = dir.path().join("s");
        for (text, expected) in [("a b", "a b"), ("ab\n", "ab"), ("ab\n\n", "ab\n"), ("", "")] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().expose(), expected);
        }
    }

    #[test]
    fn what_is_no_file_or_too_long_or_no_text_is_refused() {
        let dir = place();
        let told = |path: &Path| from_file(path).err().unwrap().message;
        assert!(told(dir.path()).contains("no file"));
        assert!(told(&dir.path().join("missing")).contains("No such file"));
        let path = dir.path().join("s");
        fs::write(&path, vec![b'a'; SECRET_BYTES_MAX as usize + 1]).unwrap();
        assert!(told(&path).contains("too long"));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(told(&path).contains("UTF-8"));
    }

    #[test]
    fn a_file_that_everybody_may_read_is_warned_about() {
        let dir = place();
        let path = dir.path().join("s");
        fs::write(&path, "tiger").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let warning = from_file(&path).unwrap().warning;
            assert_eq!(warning.is_some(), warned, "{mode:o}");
            assert!(!warning.unwrap_or_default().contains("tiger"));
        }
    }

    #[test]
    fn a_credential_has_a_name_and_no_path() {
        let dir = place();
        fs::write(dir.path().join("app"), "tiger\n").unwrap();
        let get = |name| from_credential(name, Some(dir.path()));
        assert_eq!(get("app").unwrap().secret.expose(), "tiger");
        for name in ["", "..", "../app", "/etc/hostname", "other"] {
            assert!(get(name).is_err(), "{name}");
        }
        let message = from_credential("app", None).err().unwrap().message;
        assert!(message.contains("CREDENTIALS_DIRECTORY"));
    }

    #[test]
    fn a_name_that_no_variable_can_have_is_not_set() {
        for name in ["", "A=B", "A\0", "LINEMAN_NO_SUCH_VARIABLE"] {
            let message = from_environment(name).err().unwrap().message;
            assert!(message.contains("not set"), "{message}");
        }
    }
}
