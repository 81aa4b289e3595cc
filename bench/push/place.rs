//! What all senders of a run are given: a sink with a certificate, the authority that signed it, a
//! signing key as Apple gives them out, and the tokens of devices. Files lie in a temporary directory.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::Fallible;
use crate::authority::Authority;
use crate::sink::{self, Manner, Tally};

pub const KEY_ID: &str = "ABCDE12345";
pub const TEAM_ID: &str = "TEAM123456";
pub const TOPIC: &str = "org.example.app";

pub struct Place {
    pub dir: TempDir,
    pub port: u16,
    pub tally: Arc<Tally>,
}

impl Place {
    pub fn new(manner: Manner) -> Fallible<Place> {
        let dir = TempDir::new()?;
        let authority = Authority::new()?;
        let (certificate, key) = authority.issue(&["localhost".to_string()])?;
        fs::write(dir.path().join("ca.pem"), &authority.pem)?;
        let signing = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        fs::write(dir.path().join("key.p8"), signing.serialize_pem())?;
        let (port, tally) = sink::start(manner, &certificate, &key)?;
        Ok(Place { dir, port, tally })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Hexadecimal digits of a device's own.
pub fn token(nth: usize) -> String {
    format!("{nth:064x}")
}
