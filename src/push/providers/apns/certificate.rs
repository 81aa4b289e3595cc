//! A client certificate of Apple's with its key, which stands for a pass in the TLS handshake (Apple,
//! "Establishing a certificate-based connection to APNs"). Whether it is trusted is Apple's to say.
//! Invariant: the key is never shown.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::base::now::Now;
use crate::wire::x509::{Validity, validity};

/// See the file's head.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The chain and its key, as a TLS client shows them.
    pub certified: Arc<CertifiedKey>,
    pub validity: Validity,
}

impl ClientCertificate {
    /// Both as PEM; they may be one text. Checks that they belong together.
    pub fn parse(certificate: &str, key: &str) -> Result<ClientCertificate, String> {
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let chain = chain.map_err(|_| "certificate: this is not PEM".to_string())?;
        let first = chain.first().ok_or(
            "certificate: there is none in it; of a .p12 file openssl pkcs12 -legacy makes PEM",
        )?;
        let validity = validity(first).ok_or("certificate: this is no certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| "key: this is no PEM file with a private key without passphrase")?;
        let key = any_supported_type(&key).map_err(|_| "key: this kind of key is not known")?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| "key: it is not the certificate's")?;
        Ok(ClientCertificate {
            certified: Arc::new(certified),
            validity,
        })
    }

    /// Seconds until it ends; negative afterwards.
    pub fn seconds_left(&self, now: Now) -> i64 {
        let until = i64::try_from(self.validity.until).unwrap_or(i64::MAX);
        until - now.unix_seconds()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificate(…, until {})", self.validity.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::kit::now;

    #[test]
    fn a_certificate_and_its_own_key_are_taken() {
        let made = rcgen::generate_simple_self_signed(["push".to_string()]).expect("made");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let read = ClientCertificate::parse(&pem, &key).expect("a certificate");
        assert!(read.seconds_left(now()) > 0);
        let both = format!("{pem}{key}");
        assert!(ClientCertificate::parse(&both, &both).is_ok());
        let shown = format!("{read:?}");
        assert!(shown.starts_with("ClientCertificate(…"), "{shown}");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let made = rcgen::generate_simple_self_signed(["push".to_string()]).expect("made");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        for (certificate, key, why) in [
            ("", key.as_str(), "certificate: there is none"),
            (key.as_str(), key.as_str(), "certificate: there is none"),
            (pem.as_str(), "tiger", "key: this is no PEM"),
            (pem.as_str(), pem.as_str(), "key: this is no PEM"),
            (pem.as_str(), other.as_str(), "key: it is not the"),
        ] {
            let error = ClientCertificate::parse(certificate, key).expect_err(why);
            assert!(error.starts_with(why), "{error}");
        }
    }
}
