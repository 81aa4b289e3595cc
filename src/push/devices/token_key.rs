//! The keys that tokens are encrypted with: where one comes from, how its text is read and what is
//! made of it. Fetches nothing. Invariants: key material is overwritten when it is dropped, prints as
//! dots, and is part of no error.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

/// Of AES-256.
pub const KEY_BYTES: usize = 32;
const KEY_ID_BYTES_MAX: usize = 64;

/// The name of a key, kept beside everything that was encrypted with it: letters, digits, `_`, `-`
/// and `.`, 64 at most. A key that changes gets another name; for a secret of Key Vault that is its
/// version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    pub fn parse(text: &str) -> Result<KeyId, KeyFault> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let fits = (1..=KEY_ID_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(KeyId(Arc::from(text)))
        } else {
            Err(KeyFault::Id)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    Id,
    Empty,
    NotBase64,
    Hexadecimal,
    /// So many bytes.
    Length(usize),
    /// All bytes are the same: a placeholder.
    Constant,
}

impl KeyFault {
    pub fn text(self) -> String {
        match self {
            KeyFault::Id => format!(
                "the name of a key is 1 to {KEY_ID_BYTES_MAX} letters, digits, \"_\", \"-\" and \".\""
            ),
            KeyFault::Empty => "the key is empty".to_string(),
            KeyFault::NotBase64 => "the key is not base64".to_string(),
            KeyFault::Hexadecimal => {
                "the key is hexadecimal; it has to be base64 (`openssl rand -base64 32`)"
                    .to_string()
            }
            KeyFault::Length(bytes) => format!(
                "the key has {bytes} bytes and not {KEY_BYTES} (`openssl rand -base64 32` makes one)"
            ),
            KeyFault::Constant => "the key is a placeholder, all bytes are the same".to_string(),
        }
    }
}

/// See the file's head.
pub struct TokenKey {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// Tells whether two keys are the same and nothing else about them; 16 hexadecimal digits. Kept
/// beside what a key encrypted, so that another key under the same name is found at the start.
pub type Fingerprint = String;

impl TokenKey {
    /// Reads base64, in either alphabet, padded or not, with blanks around it.
    pub fn parse(id: KeyId, text: &str) -> Result<TokenKey, KeyFault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyFault::Empty);
        }
        if text.len() == 2 * KEY_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(KeyFault::Hexadecimal);
        }
        let standard = text.trim_end_matches('=').chars().map(|it| match it {
            '-' => '+',
            '_' => '/',
            other => other,
        });
        let mut digits = Zeroizing::new(String::with_capacity(text.len()));
        digits.extend(standard);
        let length = BASE64_NOPAD.decode_len(digits.len());
        let length = length.map_err(|_| KeyFault::NotBase64)?;
        let mut bytes = Zeroizing::new(vec![0; length]);
        let read = BASE64_NOPAD.decode_mut(digits.as_bytes(), &mut bytes);
        read.map_err(|_| KeyFault::NotBase64)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if length != KEY_BYTES {
            return Err(KeyFault::Length(length));
        }
        key.copy_from_slice(&bytes);
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(KeyFault::Constant);
        }
        Ok(TokenKey { id, bytes: key })
    }

    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// In base64, as `parse` reads it; for whoever hands it on.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(&*self.bytes))
    }

    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = [0; 8];
        self.derive(b"lineman token key fingerprint", &mut bytes);
        HEXLOWER.encode(&bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// The key of the blind index that goes with this key.
    pub(super) fn index_key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.derive(b"lineman token index", &mut *bytes);
        bytes
    }

    /// HKDF-SHA256 without a salt (RFC 5869), so that no derived value tells anything of another.
    fn derive(&self, purpose: &[u8], bytes: &mut [u8]) {
        let secret = Salt::new(HKDF_SHA256, &[]).extract(&*self.bytes);
        let purposes = [purpose];
        let derived = secret.expand(&purposes, Length(bytes.len()));
        let filled = derived.and_then(|derived| derived.fill(bytes));
        filled.expect("HKDF gives up to 255 times its hash");
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ••••", self.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).expect("an id")
    }

    fn parse(text: &str) -> Result<TokenKey, KeyFault> {
        TokenKey::parse(id("k"), text)
    }

    #[test]
    fn a_key_is_32_bytes_in_any_base64() {
        let bytes: Vec<u8> = (0..32).map(|n| 255 - n * 3).collect();
        let padded = BASE64.encode(&bytes);
        assert!(
            padded.contains(['+', '/']),
            "both alphabets differ: {padded}"
        );
        let url = padded.replace('+', "-").replace('/', "_");
        let bare = padded.trim_end_matches('=').to_string();
        for text in [format!(" {padded}\n"), url, bare, padded] {
            let key = parse(&text).expect(&text);
            assert_eq!(key.bytes()[..], bytes);
            assert_eq!(*key.text(), BASE64.encode(&bytes));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_helps() {
        let base64 = |bytes: &[u8]| BASE64.encode(bytes);
        let mixed = |len: u8| (0..len).collect::<Vec<u8>>();
        let table = [
            (" \n".to_string(), KeyFault::Empty),
            ("not base64!".to_string(), KeyFault::NotBase64),
            ("A".to_string(), KeyFault::NotBase64),
            (HEXLOWER.encode(&mixed(32)), KeyFault::Hexadecimal),
            (base64(&mixed(31)), KeyFault::Length(31)),
            (base64(&mixed(33)), KeyFault::Length(33)),
            (base64(&mixed(16)), KeyFault::Length(16)),
            (base64(&[0; 32]), KeyFault::Constant),
            (
                base64(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                KeyFault::Constant,
            ),
        ];
        for (text, fault) in table {
            assert_eq!(parse(&text).err(), Some(fault), "{text}");
            assert!(!fault.text().is_empty());
        }
    }

    #[test]
    fn the_name_of_a_key_keeps_to_its_alphabet() {
        assert_eq!(id("2026-11.a_B").as_str(), "2026-11.a_B");
        for bad in ["", "a:b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(KeyId::parse(bad), Err(KeyFault::Id), "{bad}");
        }
    }

    #[test]
    fn a_fingerprint_is_of_the_key_and_not_of_its_name() {
        let key = |name: &str, first: u8| {
            let bytes: Vec<u8> = (first..first + 32).collect();
            TokenKey::parse(id(name), &BASE64.encode(&bytes)).expect("a key")
        };
        assert_eq!(key("a", 1).fingerprint(), key("b", 1).fingerprint());
        assert_ne!(key("a", 1).fingerprint(), key("a", 2).fingerprint());
        assert_eq!(key("a", 1).fingerprint().len(), 16);
        assert_eq!(format!("{:?}", key("a", 1)), "a ••••");
    }
}
