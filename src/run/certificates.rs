//! The certificates of the running server: the master reads them, and its workers get them in one
//! unnamed file, together with the secret of the session tickets. So a worker needs no right to
//! read a key, and one that replaces another gets what was good last, whatever lies on the disk.
//!
//! To read them anew without touching a connection: `Certificates::reload`, and when that is well,
//! `Link::read_certificates` on every link of every worker; each answers with
//! `Heard::certificates`. Invariant: the file always holds certificates that were checked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};

use crate::base::limits::Limits;
use crate::base::now::Moment;
use crate::base::tls_rules::TlsRules;
use crate::config::Config;
use crate::config::locate::Source;
use crate::net::clock::unix_seconds;
use crate::net::sockets::Tls;
use crate::net::tickets::TicketSecret;
use crate::net::tls::{Material, ServerTls};
use crate::run::certificate_files::{Certificates as Files, Expiry};
use crate::run::exit::{Exit, Failure};
use crate::run::log::timestamp;
use crate::run::os;
use crate::run::status::CertificateStatus;

/// The name of the file among the descriptors a worker gets.
pub const DESCRIPTOR: &str = "tls";

/// How often dates are looked at and the ticket secret forgets what is old.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);
/// A worker that reads while the master writes tries again.
const TRIES: usize = 50;
const TRY_AGAIN: Duration = Duration::from_millis(2);

/// What the file holds, after the hash of it.
#[derive(Serialize, Deserialize)]
struct Bundle {
    epoch: u64,
    secret: [u8; 32],
    /// By listener.
    materials: Vec<Option<Material>>,
}

/// The master's side.
pub struct Certificates {
    config: Config,
    source: Source,
    files: Files,
    secret: TicketSecret,
    bundle: File,
    look_at: Moment,
}

impl Certificates {
    /// Reads and checks every certificate; `None` when no listener speaks TLS.
    pub fn open(config: &Config, source: &Source) -> Result<Option<Certificates>, Failure> {
        Certificates::open_again(None, config, source)
    }

    /// The same for another configuration: those who were here before need not be asked who they
    /// are, so the secret of the tickets stays: `former`.
    pub fn open_again(
        former: Option<TicketSecret>,
        config: &Config,
        source: &Source,
    ) -> Result<Option<Certificates>, Failure> {
        if config.listen.iter().all(|listen| listen.tls.is_none()) {
            return Ok(None);
        }
        let files =
            Files::read(config, source).map_err(|error| Failure::new(Exit::BadConfig, error.0))?;
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Failure::new(Exit::Failed, "the system has no entropy"))?;
        let fail = |error: io::Error| Failure::io("cannot hold the certificates", &error);
        let certificates = Certificates {
            config: config.clone(),
            source: source.clone(),
            files,
            secret: former.unwrap_or_else(|| TicketSecret::new(bytes, unix_seconds())),
            bundle: os::memory_file(&[]).map_err(fail)?,
            // At the first turn, when the log stands.
            look_at: Moment::from_micros(0),
        };
        certificates.write().map_err(fail)?;
        Ok(Some(certificates))
    }

    /// The secret of the tickets, for those who go on with it.
    pub fn tickets(&self) -> TicketSecret {
        self.secret.clone()
    }

    /// For workers, and for nobody else.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.bundle.as_fd()
    }

    /// Reads all files again. When one of them is wrong, what there was stays.
    pub fn reload(&mut self) -> Result<(), String> {
        let files = Files::read(&self.config, &self.source).map_err(|error| error.0)?;
        self.files = files;
        self.secret.advance(unix_seconds());
        self.write().map_err(|error| error.to_string())?;
        self.warn();
        Ok(())
    }

    /// Looks at the dates when it is time.
    pub fn handle_elapsed(&mut self, now: Moment) {
        if self.look_at > now {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        self.warn();
        self.secret.advance(unix_seconds());
        if let Err(error) = self.write() {
            log::error!("cannot hold the certificates: {error}");
        }
    }

    /// When `handle_elapsed` is due.
    pub fn deadline(&self) -> Moment {
        self.look_at
    }

    /// The certificates of one listener.
    pub fn status(&self, listen: usize) -> Vec<CertificateStatus> {
        let expiries = self.files.expiries.get(listen);
        let now = unix_seconds();
        expiries
            .into_iter()
            .flatten()
            .map(|it| status(it, now))
            .collect()
    }

    fn warn(&self) {
        for warning in self.files.all_warnings(unix_seconds()) {
            log::warn!("{warning}");
        }
    }

    fn write(&self) -> io::Result<()> {
        let bundle = Bundle {
            epoch: self.secret.epoch,
            secret: self.secret.bytes,
            materials: self.files.materials.clone(),
        };
        let text = serde_json::to_vec(&bundle)?;
        let bytes = [digest(&SHA256, &text).as_ref(), &text].concat();
        self.bundle.write_all_at(&bytes, 0)?;
        self.bundle.set_len(bytes.len() as u64)
    }
}

fn status(expiry: &Expiry, now: u64) -> CertificateStatus {
    CertificateStatus {
        names: expiry.names.clone(),
        file: expiry.file.display().to_string(),
        expires_at: timestamp(expiry.until * 1000),
        days_left: expiry.days_left(now),
    }
}

/// A worker's side: what one of its reactors secures listeners with. `file` is `None` when no
/// listener of the configuration speaks TLS.
pub fn reactor_tls(config: &Config, file: Option<&OwnedFd>) -> Result<Tls, String> {
    let handshake = Duration::from_secs(config.limits.tls_handshake_seconds);
    let Some(file) = file else {
        return Ok(no_tls(&config.limits));
    };
    let file = file.try_clone().map_err(|error| error.to_string())?;
    let file = File::from(file);
    let rules = config.listen.iter().map(|listen| listen.tls.as_ref());
    let rules: Vec<Option<TlsRules>> = rules.map(|tls| tls.map(|tls| tls.rules.clone())).collect();
    Ok(Tls {
        read: Some(Box::new(move || read(&file, &rules))),
        handshake,
    })
}

/// For a reactor that serves no client.
pub fn no_tls(limits: &Limits) -> Tls {
    Tls {
        read: None,
        handshake: Duration::from_secs(limits.tls_handshake_seconds),
    }
}

fn read(file: &File, rules: &[Option<TlsRules>]) -> Result<Vec<Option<ServerTls>>, String> {
    let bundle = read_bundle(file)?;
    let secret = TicketSecret {
        epoch: bundle.epoch,
        bytes: bundle.secret,
    };
    let mut materials = bundle.materials.into_iter();
    rules
        .iter()
        .map(|rules| {
            let material = materials.next().flatten();
            match (rules, material) {
                (None, _) => Ok(None),
                // Without its certificate a listener would speak in the clear.
                (Some(_), None) => Err("a listener has no certificate".to_string()),
                (Some(rules), Some(material)) => ServerTls::new(&material, rules, &secret)
                    .map(Some)
                    .map_err(|fault| fault.message),
            }
        })
        .collect()
}

fn read_bundle(file: &File) -> Result<Bundle, String> {
    let fail = |error: io::Error| format!("the certificates handed over: {error}");
    for _ in 0..TRIES {
        let length = file.metadata().map_err(fail)?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let whole = file.read_exact_at(&mut bytes, 0).is_ok();
        if let Some((hash, text)) = bytes.split_at_checked(SHA256_OUTPUT_LEN)
            && whole
            && digest(&SHA256, text).as_ref() == hash
        {
            return serde_json::from_slice(text).map_err(|error| fail(error.into()));
        }
        std::thread::sleep(TRY_AGAIN);
    }
    Err("the certificates handed over are broken".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_half_written_is_not_used() {
        let file = os::memory_file(b"").unwrap();
        assert!(read_bundle(&file).is_err());
        let text = br#"{"epoch":7,"secret":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,9],"materials":[null]}"#;
        let bytes = [digest(&SHA256, text).as_ref(), &text[..]].concat();
        file.write_all_at(&bytes, 0).unwrap();
        let bundle = read_bundle(&file).unwrap();
        assert_eq!((bundle.epoch, bundle.secret[31]), (7, 9));
        file.write_all_at(b"8", SHA256_OUTPUT_LEN as u64 + 9)
            .unwrap();
        assert!(read_bundle(&file).is_err());
    }

    #[test]
    fn a_listener_whose_certificate_is_missing_is_not_served_in_the_clear() {
        let file = os::memory_file(b"").unwrap();
        let bundle = Bundle {
            epoch: 1,
            secret: [1; 32],
            materials: vec![None],
        };
        let text = serde_json::to_vec(&bundle).unwrap();
        let bytes = [digest(&SHA256, &text).as_ref(), &text[..]].concat();
        file.write_all_at(&bytes, 0).unwrap();
        assert!(read(&file, &[Some(TlsRules::default())]).is_err());
        assert_eq!(read(&file, &[None]).map(|all| all.len()), Ok(1));
    }
}
