//! An authority of a test's own, and the certificates that it signs.

// Each test file uses its own part of this module.
#![allow(dead_code)]

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::support::Place;

/// Who signs all certificates of a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Authority {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A certificate and its key as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new([name.to_string()]).expect("a name");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// `NAME.pem` and `NAME.key` beside the configuration.
    pub fn issue_into(&self, place: &Place, file: &str, name: &str) {
        let (certificate, key) = self.issue(name);
        let write = |suffix: &str, text: &str| {
            std::fs::write(place.path().join(format!("{file}.{suffix}")), text).expect("written");
        };
        write("pem", &certificate);
        write("key", &key);
    }

    /// A client that trusts it, with a certificate of its own if `identity` is one.
    pub fn client(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        identity: Option<(String, String)>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        roots.add(der).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(vec![certificate.expect("PEM")], key)
                    .expect("a pair")
            }
        }
    }

    /// A server that shows a certificate for this name.
    pub fn server(&self, name: &str) -> ServerConfig {
        let (certificate, key) = self.issue(name);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a pair")
    }
}
