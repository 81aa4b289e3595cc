//! A browser that takes Web Push: a subscription's keys, and messages decrypted with them (RFC 8291,
//! RFC 8188). Owns the private halves. Knows no request.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use data_encoding::BASE64URL_NOPAD;

use crate::base::dice::Dice;

const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const HEAD_BYTES: usize = SALT_BYTES + 4 + 1;
/// Ends the text of the last record (RFC 8188 section 2).
const LAST: u8 = 2;

/// See the file's head.
pub struct Subscriber {
    key: PrivateKey,
    point: Vec<u8>,
    auth: [u8; 16],
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Option<[u8; N]> {
    let key = Salt::new(HKDF_SHA256, salt).extract(secret);
    let mut out = [0; N];
    key.expand(info, Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

impl Subscriber {
    pub fn draw(dice: &mut Dice) -> Subscriber {
        let auth = dice.next_u128().to_be_bytes();
        loop {
            let halves = [dice.next_u128(), dice.next_u128()].map(u128::to_be_bytes);
            // One of four thousand million numbers is no key of P-256.
            if let Some(subscriber) = Subscriber::new(&halves.concat(), auth) {
                return subscriber;
            }
        }
    }

    fn new(secret: &[u8], auth: [u8; 16]) -> Option<Subscriber> {
        let key = PrivateKey::from_private_key(&ECDH_P256, secret).ok()?;
        let point = key.compute_public_key().ok()?.as_ref().to_vec();
        Some(Subscriber { key, point, auth })
    }

    /// As `PushSubscription.toJSON` has it.
    pub fn p256dh(&self) -> String {
        BASE64URL_NOPAD.encode(&self.point)
    }

    pub fn auth(&self) -> String {
        BASE64URL_NOPAD.encode(&self.auth)
    }

    /// The text of a message of one record. What is wrong with it is told in words.
    pub fn open(&self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (head, rest) = body
            .split_at_checked(HEAD_BYTES)
            .ok_or("the message ends in its header")?;
        let (salt, size) = head.split_at(SALT_BYTES);
        let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let (sender, record) = rest
            .split_at_checked(usize::from(head[HEAD_BYTES - 1]))
            .ok_or("the message ends in its header")?;
        if sender.len() != POINT_BYTES {
            return Err("the key's id is no point of P-256");
        }
        if record.len() > size {
            return Err("there is more than one record");
        }
        let mut record = record.to_vec();
        let text = self.decrypt(salt, sender, &mut record);
        let text = text.ok_or("it was not encrypted for this subscription")?;
        let end = text.iter().rposition(|byte| *byte != 0);
        match end.map(|end| (end, text[end])) {
            Some((end, LAST)) => Ok(text[..end].to_vec()),
            _ => Err("the record does not end as the last one does"),
        }
    }

    fn decrypt<'a>(&self, salt: &[u8], sender: &[u8], record: &'a mut [u8]) -> Option<&'a [u8]> {
        let theirs = UnparsedPublicKey::new(&ECDH_P256, sender);
        let secret = agree(&self.key, theirs, (), |secret| Ok(secret.to_vec())).ok()?;
        let between = [b"WebPush: info\0", &self.point[..], sender];
        let secret: [u8; 32] = derive(&self.auth, &secret, &between)?;
        let key: [u8; 16] = derive(salt, &secret, &[b"Content-Encoding: aes128gcm\0"])?;
        let nonce: [u8; 12] = derive(salt, &secret, &[b"Content-Encoding: nonce\0"])?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = key.open_in_place(nonce, Aad::empty(), record).ok()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8291 appendix A.
    const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn bytes(text: &str) -> Vec<u8> {
        BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url")
    }

    fn subscriber() -> Subscriber {
        let auth = bytes(AUTH).try_into().expect("16 bytes");
        Subscriber::new(&bytes(PRIVATE), auth).expect("a key")
    }

    #[test]
    fn the_message_of_rfc_8291_is_read() {
        let text = subscriber().open(&bytes(BODY)).expect("for us");
        assert_eq!(text, b"When I grow up, I want to be a watermelon");
        assert_eq!(subscriber().auth(), AUTH);
    }

    #[test]
    fn what_is_not_for_us_or_no_message_is_told_apart() {
        let body = bytes(BODY);
        let strange = Subscriber::draw(&mut Dice::new([1; 16]));
        assert_eq!(
            strange.open(&body),
            Err("it was not encrypted for this subscription")
        );
        for end in 0..body.len() {
            assert!(subscriber().open(&body[..end]).is_err(), "cut at {end}");
        }
        let mut small = body.clone();
        small[18..20].copy_from_slice(&[0, 18]);
        assert_eq!(
            subscriber().open(&small),
            Err("there is more than one record")
        );
    }
}
