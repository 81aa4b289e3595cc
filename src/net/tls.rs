//! Who we are to TLS clients and what we ask of them: certificates by name, client certificates,
//! versions, tickets. Owns every choice made about the TLS library, together with `secured`, which
//! drives it; nobody else sees it. Invariant: a `ServerTls` that exists can serve; what is wrong
//! with its files was told when it was built.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::base::tls_rules::{ClientAuth, TlsRules};
use crate::net::tickets::{TicketSecret, Tickets};

/// One certificate with its key, as PEM text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The server names it is for. The first identity of a listener is for all others too.
    pub names: Vec<String>,
    pub certificate: String,
    pub key: String,
}

/// The text of all files of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    pub identities: Vec<Identity>,
    pub client_ca: Option<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, …)", self.names)
    }
}

/// Which of the files is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    ClientCa,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of the identity with this number; 0 for a fault of the client CA.
    pub identity: usize,
    pub part: Part,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// All that new connections of one listener need. Copies share it.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
}

impl ServerTls {
    pub fn new(
        material: &Material,
        rules: &TlsRules,
        secret: &TicketSecret,
    ) -> Result<ServerTls, Fault> {
        let provider = Arc::new(provider::default_provider());
        let library = |error: rustls::Error| Fault {
            identity: 0,
            part: Part::Certificate,
            message: error.to_string(),
        };
        let resolver = Resolver::new(&material.identities, &provider)?;
        let versions: &[&rustls::SupportedProtocolVersion] = match rules.only_tls13 {
            true => &[&rustls::version::TLS13],
            false => rustls::ALL_VERSIONS,
        };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(library)?;
        let client_ca = material.client_ca.as_deref();
        let client_ca = client_ca.filter(|_| rules.client_auth != ClientAuth::None);
        let mut shown = vec![rules.client_auth as u8];
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(text) => {
                let (roots, authorities) = client_roots(text)?;
                authorities
                    .iter()
                    .for_each(|der| shown.extend_from_slice(der));
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match rules.client_auth {
                    ClientAuth::Required => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build().map_err(|error| client_ca_fault(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols.clone_from(&rules.alpn);
        // What a worker remembers is of no use to the one that the client comes back to.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A client needs one ticket per connection, and gets a new one with each.
        config.send_tls13_tickets = 1;
        let mut context = [0; 32];
        context.copy_from_slice(digest::digest(&digest::SHA256, &shown).as_ref());
        if let Some(tickets) = Tickets::new(secret.clone(), context) {
            config.ticketer = Arc::new(tickets);
        }
        Ok(ServerTls {
            config: Arc::new(config),
        })
    }
}

/// The certificates of a PEM text in its order.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let all: Result<Vec<CertificateDer<'_>>, _> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| format!("this is not PEM: {error}"))?;
    if all.is_empty() {
        return Err("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_string());
    }
    Ok(all.into_iter().map(|der| der.to_vec()).collect())
}

/// Checks the two texts and that they belong together.
fn certified_key(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, (Part, String)> {
    let chain = certificates(&identity.certificate).map_err(|why| (Part::Certificate, why))?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| {
        let why = match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                "there is no private key in it (-----BEGIN PRIVATE KEY-----); a key with a \
                 passphrase cannot be read"
                    .to_string()
            }
            other => format!("this is not PEM: {other}"),
        };
        (Part::Key, why)
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => (
            Part::Key,
            "the key does not belong to the certificate".to_string(),
        ),
        rustls::Error::InvalidCertificate(error) => (
            Part::Certificate,
            format!("the certificate cannot be used: {error}"),
        ),
        // The library does not tell them apart; keys are what it is choosy about.
        other => (Part::Key, format!("the key cannot be used: {other}")),
    })
}

fn client_ca_fault(error: &dyn fmt::Display) -> Fault {
    Fault {
        identity: 0,
        part: Part::ClientCa,
        message: error.to_string(),
    }
}

fn client_roots(text: &str) -> Result<(RootCertStore, Vec<Vec<u8>>), Fault> {
    let authorities = certificates(text).map_err(|why| client_ca_fault(&why))?;
    let mut roots = RootCertStore::empty();
    for der in &authorities {
        roots
            .add(CertificateDer::from_slice(der).into_owned())
            .map_err(|error| client_ca_fault(&error))?;
    }
    Ok((roots, authorities))
}

/// Chooses a certificate by the name the client asks for.
#[derive(Debug)]
struct Resolver {
    first: Arc<CertifiedKey>,
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Resolver {
    fn new(identities: &[Identity], provider: &CryptoProvider) -> Result<Resolver, Fault> {
        let mut first = None;
        let mut by_name = BTreeMap::new();
        for (index, identity) in identities.iter().enumerate() {
            let key = certified_key(identity, provider).map_err(|(part, message)| Fault {
                identity: index,
                part,
                message,
            })?;
            let key = Arc::new(key);
            for name in &identity.names {
                by_name.insert(name.to_ascii_lowercase(), key.clone());
            }
            first.get_or_insert(key);
        }
        let none = || Fault {
            identity: 0,
            part: Part::Certificate,
            message: "there is no certificate".to_string(),
        };
        Ok(Resolver {
            first: first.ok_or_else(none)?,
            by_name,
        })
    }

    fn choose(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.by_name
            .get(&name)
            .or_else(|| self.by_name.get(&wildcard?))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = hello.server_name().and_then(|name| self.choose(name));
        Some(chosen.unwrap_or(&self.first).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: &[&str]) -> Identity {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        Identity {
            names: names.iter().map(|name| name.to_string()).collect(),
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn fault(material: &Material, rules: &TlsRules) -> Fault {
        let secret = TicketSecret::new([1; 32], 0);
        ServerTls::new(material, rules, &secret).err().unwrap()
    }

    #[test]
    fn a_name_finds_its_certificate_a_wildcard_one_level_and_the_rest_the_first() {
        let provider = provider::default_provider();
        let all = [
            identity(&[]),
            identity(&["a.example", "*.b.example"]),
            identity(&["x.b.example"]),
        ];
        let resolver = Resolver::new(&all, &provider).unwrap();
        let chosen = |name: &str| {
            let key = resolver.choose(name)?;
            all.iter().position(|identity| {
                certificates(&identity.certificate).unwrap()[0] == key.cert[0].to_vec()
            })
        };
        assert_eq!(chosen("A.example"), Some(1));
        assert_eq!(chosen("y.b.example"), Some(1));
        assert_eq!(chosen("x.b.example"), Some(2));
        assert_eq!(chosen("z.y.b.example"), None);
        assert_eq!(chosen("b.example"), None);
    }

    #[test]
    fn each_file_that_is_wrong_is_named() {
        let (one, two) = (identity(&[]), identity(&[]));
        let rules = TlsRules {
            client_auth: ClientAuth::Required,
            ..TlsRules::default()
        };
        let check = |second: Identity, client_ca: Option<&str>, part, words: &str| {
            let material = Material {
                identities: vec![one.clone(), second],
                client_ca: client_ca.map(str::to_string),
            };
            let fault = fault(&material, &rules);
            assert_eq!(fault.part, part, "{fault}");
            assert!(fault.message.contains(words), "{fault}");
        };
        let changed = |certificate: &str, key: &str| Identity {
            names: Vec::new(),
            certificate: certificate.to_string(),
            key: key.to_string(),
        };
        let mixed = changed(&one.certificate, &two.key);
        check(mixed, None, Part::Key, "does not belong");
        let swapped = changed(&one.key, &one.certificate);
        check(swapped, None, Part::Certificate, "no certificate");
        let no_key = changed(&one.certificate, "");
        check(no_key, None, Part::Key, "no private key");
        check(two.clone(), Some("x"), Part::ClientCa, "no certificate");
    }
}
