//! What only the browser can read: one record of `aes128gcm` (RFC 8188) under a key agreed on with the
//! subscription (RFC 8291). Owns the arithmetic; which message and which padding is `webpush`'s.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hmac;

use crate::base::dice::Dice;
use crate::push::providers::address::Subscription;

/// Every service takes a body of so many bytes.
pub const BODY_BYTES: usize = 4096;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 16 + 4 + 1 + 65;
/// The longest text that fits: 3993 bytes.
pub const TEXT_BYTES: usize = BODY_BYTES - HEADER_BYTES - TAG_BYTES - 1;
/// Ends the text of the last record; zeros may follow.
const LAST: u8 = 2;

/// What must be another for each message.
pub struct Fresh {
    key: PrivateKey,
    salt: [u8; 16],
}

impl Fresh {
    pub fn draw(dice: &mut Dice) -> Fresh {
        let salt = dice.next_u128().to_be_bytes();
        loop {
            let halves = [
                dice.next_u128().to_be_bytes(),
                dice.next_u128().to_be_bytes(),
            ];
            // One of four thousand million numbers is no key of P-256.
            if let Some(fresh) = Fresh::new(&halves.concat(), salt) {
                return fresh;
            }
        }
    }

    fn new(private: &[u8], salt: [u8; 16]) -> Option<Fresh> {
        let key = PrivateKey::from_private_key(&ECDH_P256, private).ok()?;
        Some(Fresh { key, salt })
    }
}

/// A whole body. `None`: the subscription's point is not on the curve. `text` has `TEXT_BYTES` at
/// most; zeros fill it up to `length`.
pub fn encrypt(to: &Subscription, text: &[u8], length: usize, fresh: &Fresh) -> Option<Vec<u8>> {
    let public = fresh.key.compute_public_key().ok()?;
    let point = UnparsedPublicKey::new(&ECDH_P256, to.p256dh);
    let ecdh = agree(&fresh.key, point, (), |secret| Ok(secret.to_vec())).ok()?;
    let (key, nonce) = derive(to, public.as_ref(), &ecdh, &fresh.salt);

    let mut record = text.to_vec();
    record.push(LAST);
    record.resize(record.len().max(length + 1), 0);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record)
        .ok()?;

    let mut body = fresh.salt.to_vec();
    body.extend((BODY_BYTES as u32).to_be_bytes());
    body.push(to.p256dh.len() as u8);
    body.extend(public.as_ref());
    body.extend(record);
    Some(body)
}

/// The content encryption key and the nonce (RFC 8291 section 3.4).
fn derive(to: &Subscription, public: &[u8], ecdh: &[u8], salt: &[u8]) -> ([u8; 16], [u8; 12]) {
    let between = [b"WebPush: info\0", &to.p256dh[..], public].concat();
    let secret = expand(&extract(&to.auth, ecdh), &between);
    let key = extract(salt, &secret);
    (
        first(&expand(&key, b"Content-Encoding: aes128gcm\0")),
        first(&expand(&key, b"Content-Encoding: nonce\0")),
    )
}

/// HKDF-Extract (RFC 5869 section 2.2).
fn extract(salt: &[u8], secret: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    first(hmac::sign(&key, secret).as_ref())
}

/// The first block of HKDF-Expand (section 2.3).
fn expand(key: &[u8], info: &[u8]) -> [u8; 32] {
    extract(key, &[info, &[1]].concat())
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("a block is longer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::providers::address::{Address, bytes_of};

    /// RFC 8291 appendix A.
    const TEXT: &str = "V2hlbiBJIGdyb3cgdXAsIEkgd2FudCB0byBiZSBhIHdhdGVybWVsb24";
    const AS_PUBLIC: &str =
        "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    const AS_PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    const UA_PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const UA_PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn bytes(text: &str) -> Vec<u8> {
        bytes_of(text).expect("base64url")
    }

    fn subscription() -> Subscription {
        match Address::web_push("https://push.example/", UA_PUBLIC, AUTH) {
            Ok(Address::WebPush(subscription)) => *subscription,
            other => panic!("{other:?}"),
        }
    }

    fn fresh() -> Fresh {
        Fresh::new(&bytes(AS_PRIVATE), first(&bytes(SALT))).expect("a key")
    }

    #[test]
    fn the_vector_of_rfc_8291_holds() {
        let text = bytes(TEXT);
        assert_eq!(text, b"When I grow up, I want to be a watermelon");
        let body = encrypt(&subscription(), &text, 0, &fresh()).expect("a body");
        assert_eq!(body, bytes(BODY));
    }

    #[test]
    fn its_steps_hold_too() {
        let [ecdh, prk_key, ikm, prk, cek, nonce] = [
            "kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs",
            "Snr3JMxaHVDXHWJn5wdC52WjpCtd2EIEGBykDcZW32k",
            "S4lYMb_L0FxCeq0WhDx813KgSYqU26kOyzWUdsXYyrg",
            "09_eUZGrsvxChDCGRCdkLiDXrReGOEVeSCdCcPBSJSc",
            "oIhVW04MRdy2XN9CiKLxTg",
            "4h_95klXJ5E_qnoN",
        ]
        .map(bytes);
        assert_eq!(extract(&bytes(AUTH), &ecdh).to_vec(), prk_key);
        let info = [b"WebPush: info\0", &bytes(UA_PUBLIC)[..], &bytes(AS_PUBLIC)].concat();
        assert_eq!(expand(&prk_key, &info).to_vec(), ikm);
        assert_eq!(extract(&bytes(SALT), &ikm).to_vec(), prk);
        let made = derive(&subscription(), &bytes(AS_PUBLIC), &ecdh, &bytes(SALT));
        assert_eq!((made.0.to_vec(), made.1.to_vec()), (cek, nonce));
    }

    /// As the browser does it.
    fn decrypt(body: &[u8]) -> Vec<u8> {
        let own = PrivateKey::from_private_key(&ECDH_P256, &bytes(UA_PRIVATE)).expect("a key");
        let public = &body[21..86];
        let point = UnparsedPublicKey::new(&ECDH_P256, public);
        let ecdh = agree(&own, point, (), |secret| Ok(secret.to_vec())).expect("a secret");
        let (key, nonce) = derive(&subscription(), public, &ecdh, &body[..16]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("a key"));
        let mut record = body[86..].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = key.open_in_place(nonce, Aad::empty(), &mut record);
        text.expect("what was sealed").to_vec()
    }

    #[test]
    fn padding_hides_the_length_and_the_longest_text_fits() {
        let mut dice = Dice::new([3; 16]);
        let mut sealed = |text: &[u8], length| {
            encrypt(&subscription(), text, length, &Fresh::draw(&mut dice)).expect("a body")
        };
        let (short, long) = (sealed(b"a", 100), sealed(b"abc", 100));
        assert_eq!(short.len(), long.len());
        assert_ne!(short[..86], long[..86], "salt and key are fresh");
        let text = decrypt(&short);
        assert_eq!(text.len(), 101);
        assert_eq!(text[..3], *b"a\x02\0");
        let full = sealed(&[b'a'; TEXT_BYTES], 0);
        assert_eq!(full.len(), BODY_BYTES);
        assert_eq!(TEXT_BYTES, 3993);
    }

    #[test]
    fn a_point_beside_the_curve_is_refused() {
        let mut odd = subscription();
        odd.p256dh[64] ^= 1;
        assert_eq!(encrypt(&odd, b"a", 0, &fresh()), None);
    }
}
