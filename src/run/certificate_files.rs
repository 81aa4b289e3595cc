//! The files that `tls` tables name: read, checked, and their dates noted. Knows no process.
//! Invariant: what `read` returns serves; every mistake was told with the line that names the file.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::Config;
use crate::config::locate::Source;
use crate::config::problem::Step::{self, Index, Key};
use crate::config::problem::{ConfigError, Problem, locate, render};
use crate::config::tls::{IdentityFiles, ListenTls};
use crate::net::tickets::TicketSecret;
use crate::net::tls::{Fault, Identity, Material, Part, ServerTls, certificates};
use crate::wire::x509;

const DAY_SECONDS: u64 = 86_400;
/// A certificate with fewer days left is warned about.
const DAYS_WARNED: i64 = 14;
/// More is no certificate file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// When one certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub file: PathBuf,
    /// None for the one that is shown for every other name.
    pub names: Vec<String>,
    pub from: u64,
    /// The earliest in the file: a chain is as good as its weakest link.
    pub until: u64,
}

impl Expiry {
    /// Whole days; negative once it has expired.
    pub fn days_left(&self, unix_seconds: u64) -> i64 {
        let left = self.until as i64 - unix_seconds as i64;
        left.div_euclid(DAY_SECONDS as i64)
    }

    /// What an operator should know.
    pub fn warning(&self, unix_seconds: u64) -> Option<String> {
        let file = self.file.display();
        if unix_seconds < self.from {
            return Some(format!("{file}: the certificate is not valid yet"));
        }
        match self.days_left(unix_seconds) {
            ..0 => Some(format!("{file}: the certificate has expired")),
            days @ 0..DAYS_WARNED => {
                Some(format!("{file}: the certificate expires in {days} days"))
            }
            _ => None,
        }
    }
}

/// All certificate files of a configuration, by listener.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    pub materials: Vec<Option<Material>>,
    pub expiries: Vec<Vec<Expiry>>,
    /// About the files; the dates are in `expiries`.
    pub warnings: Vec<String>,
}

impl Certificates {
    /// Reads and checks every file. `config` is what `source` says.
    pub fn read(config: &Config, source: &Source) -> Result<Certificates, ConfigError> {
        let mut found = Certificates::default();
        let mut mistakes = Vec::new();
        for (index, listen) in config.listen.iter().enumerate() {
            let mut expiries = Vec::new();
            let material = listen.tls.as_ref().and_then(|tls| {
                let read = read_listener(tls, &mut found.warnings, &mut expiries);
                read.map_err(|faults| mistakes.extend(faults.into_iter().map(|it| (index, it))))
                    .ok()
            });
            found.materials.push(material);
            found.expiries.push(expiries);
        }
        if mistakes.is_empty() {
            return Ok(found);
        }
        let document = DeTable::parse(&source.text).ok();
        let problems = mistakes.into_iter().map(|(index, fault)| Problem {
            span: document
                .as_ref()
                .and_then(|document| locate(document, &path(index, &fault))),
            message: fault.message,
            hint: None,
        });
        Err(render(&source.name(), &source.text, problems.collect()))
    }

    /// All that an operator should know.
    pub fn all_warnings(&self, unix_seconds: u64) -> Vec<String> {
        let dates = self.expiries.iter().flatten();
        let dates = dates.filter_map(|expiry| expiry.warning(unix_seconds));
        self.warnings.iter().cloned().chain(dates).collect()
    }
}

/// Where the file is named.
fn path(listen: usize, fault: &Fault) -> Vec<Step> {
    let mut path = vec![Key("listen"), Index(listen), Key("tls")];
    if fault.identity > 0 {
        path.extend([Key("sni"), Index(fault.identity - 1)]);
    }
    path.push(Key(match fault.part {
        Part::Certificate => "certificate",
        Part::Key => "key",
        Part::ClientCa => "client_ca",
    }));
    path
}

fn read_listener(
    tls: &ListenTls,
    warnings: &mut Vec<String>,
    expiries: &mut Vec<Expiry>,
) -> Result<Material, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut text = |identity, part, file: &Path| {
        read_text(file).unwrap_or_else(|message| {
            faults.push(Fault {
                identity,
                part,
                message,
            });
            String::new()
        })
    };
    let mut identities = Vec::new();
    for (index, files) in tls.identities.iter().enumerate() {
        identities.push(Identity {
            names: files.names.clone(),
            certificate: text(index, Part::Certificate, &files.certificate),
            key: text(index, Part::Key, &files.key),
        });
        warnings.extend(key_warning(&files.key));
    }
    let client_ca = tls.client_ca.as_deref();
    let material = Material {
        identities,
        client_ca: client_ca.map(|file| text(0, Part::ClientCa, file)),
    };
    if !faults.is_empty() {
        return Err(faults);
    }
    // Built as a worker will build it; only the tickets differ.
    ServerTls::new(&material, &tls.rules, &TicketSecret::new([0; 32], 0)).map_err(|fault| {
        let file = match (tls.identities.get(fault.identity), fault.part) {
            (Some(files), Part::Certificate) => Some(files.certificate.as_path()),
            (Some(files), Part::Key) => Some(files.key.as_path()),
            _ => client_ca,
        };
        let file = file.map_or(String::new(), |file| format!("{}: ", file.display()));
        vec![Fault {
            message: format!("{file}{}", fault.message),
            ..fault
        }]
    })?;
    let both = tls.identities.iter().zip(&material.identities);
    expiries.extend(both.filter_map(|(files, identity)| expiry(files, &identity.certificate)));
    Ok(material)
}

fn read_text(file: &Path) -> Result<String, String> {
    let read = || {
        // Looked at first, because reading a pipe or a device may never end.
        let about = std::fs::metadata(file)?;
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("this is no certificate file"));
        }
        std::fs::read_to_string(file)
    };
    read().map_err(|error| format!("{}: {error}", file.display()))
}

/// `None`: the library takes a certificate whose dates we cannot read.
fn expiry(files: &IdentityFiles, text: &str) -> Option<Expiry> {
    let chain = certificates(text).ok()?;
    let dates: Vec<x509::Validity> = chain.iter().filter_map(|der| x509::validity(der)).collect();
    Some(Expiry {
        file: files.certificate.clone(),
        names: files.names.clone(),
        from: dates.iter().map(|validity| validity.from).max()?,
        until: dates.iter().map(|validity| validity.until).min()?,
    })
}

fn key_warning(file: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        let file = file.display();
        format!("{file}: everybody on this machine can read the key; chmod 640 {file}")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::secret::no_secrets;

    const NOW: u64 = 1_800_000_000;

    struct Place(tempfile::TempDir);

    impl Place {
        /// A certificate in `NAME.pem`, valid for `days` from a hundred days before `NOW`, its key
        /// in `NAME.key`.
        fn issue(&self, name: &str, days: u64) {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut parameters =
                rcgen::CertificateParams::new([format!("{name}.example")]).unwrap();
            let at = |seconds: u64| {
                let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                at.into()
            };
            parameters.not_before = at(NOW - 100 * DAY_SECONDS);
            parameters.not_after = at(NOW + days * DAY_SECONDS + 60);
            let certificate = parameters.self_signed(&key).unwrap();
            self.write(&format!("{name}.pem"), &certificate.pem(), 0o644);
            self.write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self, tls: &str) -> Result<Certificates, ConfigError> {
            let listen =
                "[[listen]]\nurl = \"http://127.0.0.1:0\"\nhandler = \"echo\"\n[listen.tls]\n";
            let source = Source {
                path: Some(self.0.path().join("f")),
                text: format!("{listen}{tls}"),
                program: Default::default(),
            };
            Certificates::read(&source.config(&no_secrets).unwrap(), &source)
        }

        fn check(&self, tls: &str, expected: &[&str]) {
            let error = self.read(tls).expect_err("a mistake").0;
            for part in expected {
                assert!(error.contains(part), "no {part:?} in:\n{error}");
            }
        }
    }

    fn place() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.issue("a", 90);
        place.issue("b", 10);
        place
    }

    #[test]
    fn good_files_are_taken_and_their_dates_noted() {
        let tls = "certificate = \"a.pem\"\nkey = \"a.key\"\n[[listen.tls.sni]]\n\
                   names = [\"b.example\"]\ncertificate = \"b.pem\"\nkey = \"b.key\"\n";
        let found = place().read(tls).unwrap();
        let days: Vec<i64> = found.expiries[0].iter().map(|e| e.days_left(NOW)).collect();
        assert_eq!(days, [90, 10]);
        let warnings = found.all_warnings(NOW);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("b.pem: the certificate expires in 10 days"));
        let later = found.all_warnings(NOW + 11 * DAY_SECONDS);
        assert!(later[0].contains("has expired"), "{later:?}");
        let earlier = found.all_warnings(NOW - 101 * DAY_SECONDS);
        assert!(earlier[0].contains("not valid yet"), "{earlier:?}");
    }

    #[test]
    fn every_mistake_is_told_with_the_line_that_names_the_file() {
        let place = place();
        place.check(
            "certificate = \"no.pem\"\nkey = \"no.key\"\n",
            &[
                "f:5:",
                "no.pem: No such file",
                "f:6:",
                "no.key: No such file",
            ],
        );
        place.check(
            "certificate = \"a.pem\"\nkey = \"b.key\"\n",
            &["f:6:", "b.key: the key does not belong to the certificate"],
        );
        place.check(
            "certificate = \"a.key\"\nkey = \"a.key\"\n",
            &["f:5:", "a.key: there is no certificate"],
        );
        place.check(
            "certificate = \"a.pem\"\nkey = \"a.key\"\nclient_ca = \"a.key\"\n",
            &["f:7:", "there is no certificate"],
        );
        place.check(
            "certificate = \"a.pem\"\nkey = \"a.key\"\n[[listen.tls.sni]]\nnames = [\"x\"]\n\
             certificate = \"a.pem\"\nkey = \"a.pem\"\n",
            &["f:10:", "there is no private key"],
        );
        place.check(
            "certificate = \"/\"\nkey = \"a.key\"\n",
            &["f:5:", "no certificate file"],
        );
    }

    #[test]
    fn a_key_that_everybody_can_read_is_warned_about() {
        let place = place();
        let tls = "certificate = \"a.pem\"\nkey = \"a.key\"\n";
        assert!(place.read(tls).unwrap().warnings.is_empty());
        let key = place.0.path().join("a.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let warnings = place.read(tls).unwrap().warnings;
        assert!(warnings[0].contains("everybody"), "{warnings:?}");
    }
}
