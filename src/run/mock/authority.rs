//! An authority of a mock's own: its certificate, which clients are to trust, and one that it signs.
//! Neither key outlives the process.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// See the file's head.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Result<Authority, Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = &mut parameters.distinguished_name;
        name.push(DnType::CommonName, "lineman mock authority");
        let certificate = parameters.self_signed(&key)?;
        Ok(Authority {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// A certificate for hosts and addresses, and its key, as PEM.
    pub fn issue(&self, names: &[String]) -> Result<(String, String), Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.to_vec())?;
        let name = &mut parameters.distinguished_name;
        name.push(DnType::CommonName, "lineman mock");
        // Python's checks want to know who signed.
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
