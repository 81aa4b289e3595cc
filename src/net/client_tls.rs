//! Who we trust as a client of TLS, and what is said when we do not. Together with `tls` and
//! `secured` it owns every choice made about the TLS library. Invariant: a server's certificate is
//! verified against its name, always; there is no switch that turns this off.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use crate::wire::target::{ClientTls, Target};

/// A file of authorities is no longer. The largest in use, that of whole systems, have a quarter.
const CA_BYTES: u64 = 1024 * 1024;

/// How to secure a connection to `target`, or why it cannot be. Reads its file of authorities, if
/// it has one; those of the system are read once in the life of the process.
pub fn prepare(
    target: &Target,
    client: &ClientTls,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let name = ServerName::try_from(target.server_name().to_string())
        .map_err(|_| "the server name is none that a certificate can have".to_string())?;
    let roots = match target.ca_file() {
        Some(path) => Arc::new(read_roots(path).map_err(|why| format!("{path}: {why}"))?),
        None => system_roots(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match &client.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let shown = SingleCertAndKey::from(Arc::clone(certificate));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
    };
    if target.scheme().is_websocket() {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    if !client.protocols.is_empty() {
        let protocols = client.protocols.iter();
        config.alpn_protocols = protocols.map(|it| it.to_vec()).collect();
    }
    Ok((Arc::new(config), name))
}

fn read_roots(path: &str) -> Result<RootCertStore, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(CA_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > CA_BYTES {
        return Err(format!("it is larger than {CA_BYTES} bytes"));
    }
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(&text) {
        let der = der.map_err(|error| format!("this is not PEM: {error}"))?;
        roots
            .add(der)
            .map_err(|error| format!("an authority cannot be used: {error}"))?;
    }
    match roots.is_empty() {
        true => Err("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_string()),
        false => Ok(roots),
    }
}

/// Those the system trusts; Mozilla's where it has none, as in a bare container.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let (usable, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if usable == 0 {
            log::info!("the system has no root certificates; those built in are used");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(roots)
    });
    roots.clone()
}

/// Why a handshake failed, for people.
pub fn explain(error: &Error, target: &Target) -> String {
    use CertificateError as Certificate;
    let name = target.server_name();
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "the server's certificate has expired".to_string()
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet".to_string()
            }
            Certificate::UnknownIssuer => {
                "the server's certificate is from an unknown issuer".to_string()
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                format!("the server's certificate is not for the name {name}")
            }
            Certificate::Revoked => "the server's certificate was revoked".to_string(),
            other => format!("the server's certificate cannot be trusted: {other:?}"),
        },
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server does not speak the protocol that is wanted here".to_string()
        }
        Error::AlertReceived(alert) => format!("the server refused the TLS handshake: {alert:?}"),
        Error::InvalidMessage(_) => "the server does not speak TLS".to_string(),
        other => format!("the TLS handshake failed: {other}"),
    }
}
