//! The only place that turns tokens into what is kept and back: AES-256-GCM with a random 96-bit IV
//! for each token and its 128-bit tag apart (NIST SP 800-38D), in three base64 columns. One key is
//! current and seals; older ones open until everything was sealed anew. Draws from a `Dice`, keeps
//! nothing, counts nothing: whoever calls counts what failed.
//!
//! Invariants: a vault that exists has passed its self-test with each of its keys. What was sealed
//! for one row opens in no other, unless it has the binding that knows no rows. No fault holds
//! anything of a token or a key.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER};
use zeroize::Zeroizing;

use crate::base::dice::Dice;
use crate::push::devices::token::{ClearToken, Platform, Service};
use crate::push::devices::token_key::{Fingerprint, KeyId, TokenKey};

/// With random IVs a key is to seal no more tokens than this (NIST SP 800-38D section 8.3).
/// Whoever keeps the rows counts, and rotates well before.
pub const SEALS_MAX: u64 = 1 << 32;
/// Of one vault; older keys are to be dropped when nothing is sealed with them any more.
const KEYS_MAX: usize = 16;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// What the tag vouches for beside the token (the additional authenticated data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The text `push_token`: what other programs that keep tokens in these columns use. Who can
    /// write to the database can put one device's token in another's place.
    Context,
    /// `push_token:2:KEY:APP:PLATFORM:SERVICE:DEVICE`: such a token opens in its own row only.
    Row,
}

impl Binding {
    /// As in the column `token_binding`.
    pub fn number(self) -> u8 {
        match self {
            Binding::Context => 1,
            Binding::Row => 2,
        }
    }

    pub fn from_number(number: u8) -> Option<Binding> {
        [Binding::Context, Binding::Row]
            .into_iter()
            .find(|binding| binding.number() == number)
    }

    /// No key id, platform, service or device id holds a colon, so two rows never give one text.
    fn text(self, key: &KeyId, row: &Row<'_>) -> String {
        match self {
            Binding::Context => "push_token".to_string(),
            Binding::Row => format!(
                "push_token:2:{}:{}:{}:{}:{}",
                key.as_str(),
                row.app_id,
                row.platform.word(),
                row.service.word(),
                row.device_id
            ),
        }
    }
}

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub app_id: &'a str,
    /// As the client chose it; without a colon.
    pub device_id: &'a str,
    pub platform: Platform,
    pub service: Service,
}

/// A token as it is kept. Prints as dots, since what is sealed is nobody's business either.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedToken {
    /// Base64 with padding, and so are the next two.
    pub encrypted_token: String,
    pub token_iv: String,
    pub token_tag: String,
    pub key_id: KeyId,
    pub binding: Binding,
    /// HMAC-SHA256 of `APP NUL SERVICE NUL TOKEN` in hexadecimal digits, where the token of Web Push
    /// is its endpoint: the same for the same token under the same key, and of no use to whoever
    /// lacks the key. It is keyed by HKDF-SHA256 of the token key, without salt, for
    /// `lineman token index`.
    pub index: String,
}

impl fmt::Debug for SealedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "•••• by {}", self.key_id.as_str())
    }
}

/// The text of an app's credential as it is kept, bound to its app and name:
/// `credential:1:KEY:NAME:APP`. Prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Base64 with padding, and so are the next two.
    pub text: String,
    pub iv: String,
    pub tag: String,
    pub key_id: KeyId,
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "•••• by {}", self.key_id.as_str())
    }
}

/// Names hold no colon, so two credentials never give one text.
fn secret_binding(key: &KeyId, (app_id, name): (&str, &str)) -> String {
    format!("credential:1:{}:{name}:{app_id}", key.as_str())
}

/// Why a vault cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultFault {
    TooManyKeys,
    /// Two keys with one name, or the same key with two names.
    Twice(KeyId),
    /// Not the key that sealed what is kept under this name.
    Another(KeyId),
    /// Something is kept that was sealed with this key, and it is not there.
    Missing(KeyId),
    /// What was sealed did not open, or opened when it should not. `None`: AES itself computes
    /// something else than NIST's example.
    SelfTest(Option<KeyId>),
}

impl VaultFault {
    pub fn text(&self) -> String {
        match self {
            VaultFault::TooManyKeys => format!("there are more than {KEYS_MAX} token keys"),
            VaultFault::Twice(id) => format!(
                "the token key {} is there twice, or has the same bytes as another",
                id.as_str()
            ),
            VaultFault::Another(id) => format!(
                "the token key {} is not the one that encrypted the tokens kept under this name",
                id.as_str()
            ),
            VaultFault::Missing(id) => format!(
                "tokens are kept that need the token key {}, which is not configured",
                id.as_str()
            ),
            VaultFault::SelfTest(Some(id)) => {
                format!("the self-test of the token key {} failed", id.as_str())
            }
            VaultFault::SelfTest(None) => {
                "AES-256-GCM gives wrong results on this machine".to_string()
            }
        }
    }
}

/// Why a token does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenFault {
    UnknownKey(KeyId),
    /// The column holds no base64 of the right length.
    Column(&'static str),
    /// Key, row and what is kept do not belong together, or it was altered.
    Forged,
}

impl OpenFault {
    pub fn text(&self) -> String {
        match self {
            OpenFault::UnknownKey(id) => format!("there is no token key {}", id.as_str()),
            OpenFault::Column(name) => format!("{name} is damaged"),
            OpenFault::Forged => "it was altered, or belongs to somebody else".to_string(),
        }
    }
}

/// See the file's head.
pub struct TokenVault {
    /// The current one first.
    keys: Vec<Slot>,
    binding: Binding,
}

struct Slot {
    id: KeyId,
    cipher: Aes256Gcm,
    index: hmac::Key,
    fingerprint: Fingerprint,
}

impl TokenVault {
    /// `current` seals with `binding`; all keys open, whatever the binding. The dice have to be
    /// unpredictable, and no other vault of the same keys may have the same seed.
    pub fn new(
        current: TokenKey,
        older: Vec<TokenKey>,
        binding: Binding,
        dice: &mut Dice,
    ) -> Result<TokenVault, VaultFault> {
        if !computes_as_published() {
            return Err(VaultFault::SelfTest(None));
        }
        if older.len() >= KEYS_MAX {
            return Err(VaultFault::TooManyKeys);
        }
        let mut keys: Vec<Slot> = Vec::new();
        for key in std::iter::once(current).chain(older) {
            let slot = Slot::new(&key);
            let same = |other: &Slot| other.id == slot.id || other.fingerprint == slot.fingerprint;
            if keys.iter().any(same) {
                return Err(VaultFault::Twice(slot.id));
            }
            if !slot.works(dice) {
                return Err(VaultFault::SelfTest(Some(slot.id)));
            }
            keys.push(slot);
        }
        Ok(TokenVault { keys, binding })
    }

    /// Compares the keys with those that sealed what is kept: `known` has the name and fingerprint
    /// of each key that a row needs. To be asked before anything is sealed.
    pub fn check_known(&self, known: &[(KeyId, Fingerprint)]) -> Result<(), VaultFault> {
        for (id, fingerprint) in known {
            let slot = self.slot(id);
            let slot = slot.ok_or_else(|| VaultFault::Missing(id.clone()))?;
            if slot.fingerprint != *fingerprint {
                return Err(VaultFault::Another(id.clone()));
            }
        }
        Ok(())
    }

    /// All keys with their fingerprints, the current one first.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyId, &Fingerprint)> {
        self.keys.iter().map(|slot| (&slot.id, &slot.fingerprint))
    }

    /// Encrypts with the current key. The service of `row` is the token's.
    pub fn seal(&self, row: &Row<'_>, token: &ClearToken, dice: &mut Dice) -> SealedToken {
        debug_assert_eq!(row.service, token.service());
        let slot = &self.keys[0];
        let bound = self.binding.text(&slot.id, row);
        let (text, iv, tag) = slot.encrypt(draw_iv(dice), bound.as_bytes(), token.expose());
        SealedToken {
            encrypted_token: BASE64.encode(&text),
            token_iv: BASE64.encode(&iv),
            token_tag: BASE64.encode(&tag),
            key_id: slot.id.clone(),
            binding: self.binding,
            index: slot.index_of(row.app_id, token),
        }
    }

    /// Decrypts with whichever key it was sealed with.
    pub fn open(&self, row: &Row<'_>, sealed: &SealedToken) -> Result<ClearToken, OpenFault> {
        let slot = self.slot(&sealed.key_id);
        let slot = slot.ok_or_else(|| OpenFault::UnknownKey(sealed.key_id.clone()))?;
        let (iv, tag) = (
            read_array::<IV_BYTES>("token_iv", &sealed.token_iv)?,
            read_array::<TAG_BYTES>("token_tag", &sealed.token_tag)?,
        );
        let bytes = BASE64.decode(sealed.encrypted_token.as_bytes());
        let bytes = bytes.map_err(|_| OpenFault::Column("encrypted_token"))?;
        let bound = sealed.binding.text(&sealed.key_id, row);
        let text = slot.decrypt(iv, bound.as_bytes(), bytes, tag);
        let text = text.ok_or(OpenFault::Forged)?;
        Ok(ClearToken::kept(row.service, text))
    }

    /// Encrypts what an app proves itself with, under the name it has there.
    pub fn seal_secret(&self, whose: (&str, &str), text: &str, dice: &mut Dice) -> SealedSecret {
        let slot = &self.keys[0];
        let bound = secret_binding(&slot.id, whose);
        let (text, iv, tag) = slot.encrypt(draw_iv(dice), bound.as_bytes(), text);
        SealedSecret {
            text: BASE64.encode(&text),
            iv: BASE64.encode(&iv),
            tag: BASE64.encode(&tag),
            key_id: slot.id.clone(),
        }
    }

    /// Decrypts it with whichever key it was sealed with.
    pub fn open_secret(
        &self,
        whose: (&str, &str),
        sealed: &SealedSecret,
    ) -> Result<Zeroizing<String>, OpenFault> {
        let slot = self.slot(&sealed.key_id);
        let slot = slot.ok_or_else(|| OpenFault::UnknownKey(sealed.key_id.clone()))?;
        let iv = read_array::<IV_BYTES>("iv", &sealed.iv)?;
        let tag = read_array::<TAG_BYTES>("tag", &sealed.tag)?;
        let bytes = BASE64.decode(sealed.text.as_bytes());
        let bytes = bytes.map_err(|_| OpenFault::Column("sealed"))?;
        let bound = secret_binding(&sealed.key_id, whose);
        let text = slot.decrypt(iv, bound.as_bytes(), bytes, tag);
        text.ok_or(OpenFault::Forged)
    }

    /// Whether it was sealed with the current key.
    pub fn is_current_secret(&self, sealed: &SealedSecret) -> bool {
        sealed.key_id == self.keys[0].id
    }

    /// Whether it was sealed with the current key and binding.
    pub fn is_current(&self, sealed: &SealedToken) -> bool {
        sealed.key_id == self.keys[0].id && sealed.binding == self.binding
    }

    /// The same token, sealed with the current key and binding; `None` when it is already. A
    /// rotation is this for every row, in any order and however often it is interrupted.
    pub fn reseal(
        &self,
        row: &Row<'_>,
        sealed: &SealedToken,
        dice: &mut Dice,
    ) -> Result<Option<SealedToken>, OpenFault> {
        if self.is_current(sealed) {
            return Ok(None);
        }
        let token = self.open(row, sealed)?;
        Ok(Some(self.seal(row, &token, dice)))
    }

    /// What `SealedToken::index` may be for this token of the app, one for each key, the current
    /// one first. A row that has any of them holds this token.
    pub fn indexes(&self, app_id: &str, token: &ClearToken) -> Vec<String> {
        let slots = self.keys.iter();
        slots.map(|slot| slot.index_of(app_id, token)).collect()
    }

    fn slot(&self, id: &KeyId) -> Option<&Slot> {
        self.keys.iter().find(|slot| slot.id == *id)
    }
}

impl Slot {
    fn new(key: &TokenKey) -> Slot {
        Slot {
            id: key.id().clone(),
            cipher: Aes256Gcm::new(key.bytes().into()),
            index: hmac::Key::new(hmac::HMAC_SHA256, &*key.index_key()),
            fingerprint: key.fingerprint(),
        }
    }

    fn encrypt(
        &self,
        iv: [u8; IV_BYTES],
        bound: &[u8],
        text: &str,
    ) -> (Vec<u8>, [u8; IV_BYTES], [u8; TAG_BYTES]) {
        let mut bytes = text.as_bytes().to_vec();
        let buffer = InOutBuf::from(bytes.as_mut_slice());
        let tag = self
            .cipher
            .encrypt_inout_detached(&iv.into(), bound, buffer)
            .expect("a token is shorter than 64 GiB");
        (bytes, iv, tag.into())
    }

    /// `None`: the tag does not vouch for it.
    fn decrypt(
        &self,
        iv: [u8; IV_BYTES],
        bound: &[u8],
        bytes: Vec<u8>,
        tag: [u8; TAG_BYTES],
    ) -> Option<Zeroizing<String>> {
        let mut bytes = Zeroizing::new(bytes);
        let buffer = InOutBuf::from(bytes.as_mut_slice());
        self.cipher
            .decrypt_inout_detached(&iv.into(), bound, buffer, &tag.into())
            .ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        Some(Zeroizing::new(text.to_string()))
    }

    fn index_of(&self, app_id: &str, token: &ClearToken) -> String {
        let mut context = hmac::Context::with_key(&self.index);
        for part in [app_id, token.service().word()] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        context.update(token.identity().as_bytes());
        HEXLOWER.encode(context.sign().as_ref())
    }

    /// Seals and opens a sample, alters every part of it, and compares two IVs.
    fn works(&self, dice: &mut Dice) -> bool {
        const SAMPLE: &str = "a token to try the key with";
        let (first, second) = (draw_iv(dice), draw_iv(dice));
        let (bytes, iv, tag) = self.encrypt(first, b"self-test", SAMPLE);
        let opens = |iv, bound: &[u8], bytes: &[u8], tag| {
            let opened = self.decrypt(iv, bound, bytes.to_vec(), tag);
            opened.is_some_and(|text| *text == SAMPLE)
        };
        let mut altered = (bytes.clone(), iv, tag);
        altered.0[0] ^= 1;
        altered.1[0] ^= 1;
        altered.2[0] ^= 1;
        first != second
            && bytes != SAMPLE.as_bytes()
            && opens(iv, b"self-test", &bytes, tag)
            && !opens(iv, b"another", &bytes, tag)
            && !opens(iv, b"self-test", &altered.0, tag)
            && !opens(altered.1, b"self-test", &bytes, tag)
            && !opens(iv, b"self-test", &bytes, altered.2)
    }
}

fn draw_iv(dice: &mut Dice) -> [u8; IV_BYTES] {
    let mut iv = [0; IV_BYTES];
    iv.copy_from_slice(&dice.next_u128().to_le_bytes()[..IV_BYTES]);
    iv
}

fn read_array<const N: usize>(column: &'static str, text: &str) -> Result<[u8; N], OpenFault> {
    let bytes = BASE64.decode(text.as_bytes()).ok();
    let array = bytes.and_then(|bytes| bytes.try_into().ok());
    array.ok_or(OpenFault::Column(column))
}

/// Test case 16 of "The Galois/Counter Mode of Operation", McGrew and Viega, which NIST took over:
/// key, IV, bound text, plain text, cipher text, tag.
const PUBLISHED: [&str; 6] = [
    "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    "cafebabefacedbaddecaf888",
    "feedfacedeadbeeffeedfacedeadbeefabaddad2",
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
     1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
    "76fc6ece0f4e1768cddf8853bb2d551b",
];

fn computes_as_published() -> bool {
    let [key, iv, bound, mut text, cipher_text, tag] =
        PUBLISHED.map(|hex| HEXLOWER.decode(hex.as_bytes()).unwrap_or_default());
    let (Ok(cipher), Ok(iv)) = (Aes256Gcm::new_from_slice(&key), <[u8; 12]>::try_from(iv)) else {
        return false;
    };
    let buffer = InOutBuf::from(text.as_mut_slice());
    let made = cipher.encrypt_inout_detached(&iv.into(), &bound, buffer);
    made.is_ok_and(|made| made.as_slice() == tag) && text == cipher_text
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
