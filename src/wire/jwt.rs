//! JSON Web Tokens in their compact form (RFC 7515 section 7.1), signed with ES256 or RS256 (RFC 7518
//! sections 3.3 and 3.4); and the keys for it, as the push providers hand them out. Signs only: whose
//! tokens we would have to believe is not known here. Invariant: no key is ever shown.
//!
//! An ES256 signature of the same text is another one each time: its nonce is drawn by the library.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// A key for signing tokens; its kind decides the algorithm.
pub enum JwtKey {
    /// P-256.
    Es256(EcdsaKeyPair),
    /// RSA, 2048 bits or more.
    Rs256(RsaKeyPair),
}

impl JwtKey {
    /// A PEM file with a P-256 key: Apple's `.p8` (PKCS#8), or one of OpenSSL (SEC 1).
    pub fn es256_pem(pem: &[u8]) -> Result<JwtKey, &'static str> {
        let key = read_pem(pem)?;
        let pair =
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der());
        pair.map(JwtKey::Es256)
            .map_err(|_| "the key is not on P-256")
    }

    /// The 32 bytes of a P-256 key, as VAPID keys are written.
    pub fn es256_raw(secret: &[u8]) -> Result<JwtKey, &'static str> {
        const WRONG: &str = "the key is not one of P-256";
        let key = PrivateKey::from_private_key(&ECDH_P256, secret).map_err(|_| WRONG)?;
        let public = key.compute_public_key().map_err(|_| WRONG)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            secret,
            public.as_ref(),
        );
        pair.map(JwtKey::Es256).map_err(|_| WRONG)
    }

    /// A PEM file with an RSA key, as it stands in a Google service account's JSON.
    pub fn rs256_pem(pem: &[u8]) -> Result<JwtKey, &'static str> {
        let key = read_pem(pem)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            other => RsaKeyPair::from_der(other.secret_der()),
        };
        let pair = pair.map_err(|_| "the key is not one of RSA")?;
        match pair.public_modulus_len() {
            256.. => Ok(JwtKey::Rs256(pair)),
            _ => Err("the key is shorter than 2048 bits"),
        }
    }

    /// `alg` in a token's header.
    pub fn algorithm(&self) -> &'static str {
        match self {
            JwtKey::Es256(_) => "ES256",
            JwtKey::Rs256(_) => "RS256",
        }
    }

    /// Of ES256 the point, uncompressed; of RS256 the RSAPublicKey of RFC 8017 in DER.
    pub fn public_key(&self) -> &[u8] {
        match self {
            JwtKey::Es256(pair) => pair.public_key().as_ref(),
            JwtKey::Rs256(pair) => pair.public_key().as_ref(),
        }
    }

    /// The whole token: both objects as they are, and the signature.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, &'static str> {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let mut token = format!("{}.{}", part(header), part(claims));
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(token)
    }

    fn signature(&self, text: &[u8]) -> Result<Vec<u8>, &'static str> {
        const FAILED: &str = "the key does not sign";
        // Neither algorithm asks it for anything.
        let unused = SystemRandom::new();
        match self {
            JwtKey::Es256(pair) => {
                let signature = pair.sign(&unused, text).map_err(|_| FAILED)?;
                Ok(signature.as_ref().to_vec())
            }
            JwtKey::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &unused, text, &mut signature);
                signed.map(|()| signature).map_err(|_| FAILED)
            }
        }
    }
}

fn read_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "this is no PEM file with a private key")
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({}, …)", self.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use serde_json::json;

    /// RFC 7515 appendix A.3.1: the private key and the coordinates of the public one.
    const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn bytes(text: &str) -> Vec<u8> {
        BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url")
    }

    fn verifies(algorithm: &'static dyn VerificationAlgorithm, key: &JwtKey, token: &str) -> bool {
        let (text, signature) = token.rsplit_once('.').expect("three parts");
        let public = UnparsedPublicKey::new(algorithm, key.public_key());
        public.verify(text.as_bytes(), &bytes(signature)).is_ok()
    }

    #[test]
    fn the_key_of_rfc_7515_a_3_signs_what_its_public_half_verifies() {
        let key = JwtKey::es256_raw(&bytes(D)).expect("a key");
        let point = [vec![4], bytes(X), bytes(Y)].concat();
        assert_eq!(key.public_key(), point);
        let claims = json!({"iss": "joe"});
        let token = key
            .sign(&json!({"alg": "ES256"}), &claims)
            .expect("a token");
        let parts: Vec<Vec<u8>> = token.split('.').map(bytes).collect();
        assert_eq!(parts[0], br#"{"alg":"ES256"}"#);
        assert_eq!(parts[1], br#"{"iss":"joe"}"#);
        assert_eq!(parts[2].len(), 64, "r and s, not DER");
        assert!(verifies(&ECDSA_P256_SHA256_FIXED, &key, &token));
        let other = token.replacen('.', "A.", 1);
        assert!(!verifies(&ECDSA_P256_SHA256_FIXED, &key, &other));
    }

    #[test]
    fn keys_are_read_from_pem() {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = JwtKey::es256_pem(made.serialize_pem().as_bytes()).expect("PKCS#8");
        assert_eq!(key.public_key(), rcgen::PublicKeyData::der_bytes(&made));
        let wrong = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        assert!(JwtKey::es256_pem(wrong.serialize_pem().as_bytes()).is_err());
        assert!(JwtKey::rs256_pem(made.serialize_pem().as_bytes()).is_err());
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(JwtKey::es256_pem(text.as_bytes()).is_err());
        }
        assert!(JwtKey::es256_raw(&[0; 32]).is_err());
        assert!(JwtKey::es256_raw(&[1; 31]).is_err());
    }

    #[test]
    fn rs256_is_rsa_with_sha256() {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        let key = JwtKey::rs256_pem(made.serialize_pem().as_bytes()).expect("PKCS#8");
        assert_eq!(key.algorithm(), "RS256");
        let sign = || key.sign(&json!({"alg": "RS256"}), &json!({"a": 1}));
        let token = sign().expect("a token");
        assert_eq!(sign(), Ok(token.clone()), "it has no nonce");
        assert!(verifies(&RSA_PKCS1_2048_8192_SHA256, &key, &token));
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = JwtKey::es256_raw(&bytes(D)).expect("a key");
        assert_eq!(format!("{key:?}"), "JwtKey(ES256, …)");
    }
}
