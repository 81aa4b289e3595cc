//! JSON Web Tokens as a provider reads them (RFC 7515 section 7.1): taken apart, and checked against
//! a public key. Owns the forms in which such keys come. Does not know which claims a provider wants.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use crate::wire::jwt::JwtKey;

/// A token's two objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    pub header: Value,
    pub claims: Value,
}

impl Jwt {
    /// `None`: it is no token of three parts with two objects.
    pub fn parse(token: &str) -> Option<Jwt> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let object = |part: &str| {
            let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
            let value: Value = serde_json::from_slice(&bytes).ok()?;
            value.is_object().then_some(value)
        };
        Some(Jwt {
            header: object(header)?,
            claims: object(claims)?,
        })
    }

    /// A number among the claims; some libraries write one with a fraction.
    pub fn seconds(&self, claim: &str) -> Option<i64> {
        let value = &self.claims[claim];
        value
            .as_i64()
            .or_else(|| value.as_f64().map(|it| it as i64))
    }
}

/// The half of a key that everybody may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// On P-256: the point, or a SubjectPublicKeyInfo in DER.
    P256(Vec<u8>),
    /// RSA: an RSAPublicKey or a SubjectPublicKeyInfo in DER.
    Rsa(Vec<u8>),
}

impl PublicKey {
    /// A PEM text with a public key, or with a private key, of which the public half is taken. `rsa`:
    /// which kind is wanted.
    pub fn from_pem(pem: &[u8], rsa: bool) -> Result<PublicKey, &'static str> {
        let bytes = match SubjectPublicKeyInfoDer::from_pem_slice(pem) {
            Ok(public) => public.to_vec(),
            Err(_) if rsa => JwtKey::rs256_pem(pem)?.public_key().to_vec(),
            Err(_) => JwtKey::es256_pem(pem)?.public_key().to_vec(),
        };
        Ok(match rsa {
            true => PublicKey::Rsa(bytes),
            false => PublicKey::P256(bytes),
        })
    }

    /// Whether the token was signed by this key. Of ES256 both forms in use are taken: the one of the
    /// standard and DER.
    pub fn verifies(&self, token: &str) -> bool {
        let Some((text, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let Ok(signature) = BASE64URL_NOPAD.decode(signature.as_bytes()) else {
            return false;
        };
        let text = text.as_bytes();
        match self {
            PublicKey::P256(key) => {
                let fixed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
                let der = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key);
                fixed.verify(text, &signature).is_ok() || der.verify(text, &signature).is_ok()
            }
            PublicKey::Rsa(key) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                .verify(text, &signature)
                .is_ok(),
        }
    }
}

/// What was found out about tokens: a sender shows the same one many times. Forgets all when full.
pub struct Known<T> {
    by_token: BTreeMap<String, T>,
}

/// Tokens that are remembered at a time.
const KNOWN: usize = 256;

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known {
            by_token: BTreeMap::new(),
        }
    }
}

impl<T: Clone> Known<T> {
    pub fn get(&mut self, token: &str, find_out: impl FnOnce() -> T) -> T {
        if let Some(known) = self.by_token.get(token) {
            return known.clone();
        }
        if self.by_token.len() == KNOWN {
            self.by_token.clear();
        }
        let found = find_out();
        self.by_token.insert(token.to_string(), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signed(key: &JwtKey) -> String {
        let header = json!({"alg": key.algorithm(), "kid": "k"});
        key.sign(&header, &json!({"iss": "t", "iat": 7.5}))
            .expect("a token")
    }

    #[test]
    fn a_token_is_taken_apart_and_checked_with_either_half_of_its_key() {
        for (kind, rsa) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, false),
            (&rcgen::PKCS_RSA_SHA256, true),
        ] {
            let made = rcgen::KeyPair::generate_for(kind).expect("a key");
            let other = rcgen::KeyPair::generate_for(kind).expect("a key");
            let pem = made.serialize_pem();
            let key = match rsa {
                true => JwtKey::rs256_pem(pem.as_bytes()),
                false => JwtKey::es256_pem(pem.as_bytes()),
            };
            let token = signed(&key.expect("a key"));
            let jwt = Jwt::parse(&token).expect("a token");
            assert_eq!(
                (&jwt.header["kid"], &jwt.claims["iss"]),
                (&json!("k"), &json!("t"))
            );
            assert_eq!((jwt.seconds("iat"), jwt.seconds("exp")), (Some(7), None));
            let public = |pem: &str| PublicKey::from_pem(pem.as_bytes(), rsa).expect("a key");
            assert!(public(&pem).verifies(&token));
            assert!(public(&made.public_key_pem()).verifies(&token));
            assert!(!public(&other.public_key_pem()).verifies(&token));
            assert!(!public(&pem).verifies(&token.replacen('.', "A.", 1)));
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for text in ["", "a.b", "a.b.c", "e30.e30", "e30.e30.!", "MQ.e30.AA"] {
            assert_eq!(Jwt::parse(text), None, "{text}");
        }
        assert!(Jwt::parse("e30.e30.AA").is_some());
        assert!(PublicKey::from_pem(b"", true).is_err());
    }

    #[test]
    fn what_is_known_has_a_bound() {
        let mut known = Known::default();
        for number in 0..1000 {
            known.get(&number.to_string(), || number);
            assert_eq!(known.get(&number.to_string(), || 0), number);
        }
        assert!(known.by_token.len() <= KNOWN);
    }
}
