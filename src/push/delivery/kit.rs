//! What tests of deliveries share: a vault, and devices with tokens in it.

use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::devices::device::{Device, SealedRegistration};
use crate::push::devices::registration::{DeviceBounds, Registration};
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::{Binding, TokenVault};

pub const NOW_MS: u64 = 1_700_000_000_000;

pub fn at(ms: u64) -> Now {
    Now {
        unix_ms: NOW_MS + ms,
        ..Now::default()
    }
}

pub fn vault() -> TokenVault {
    let text = data_encoding::BASE64.encode(b"0123456789abcdefghijklmnopqrstuv");
    let key = TokenKey::parse(KeyId::parse("k").expect("an id"), &text).expect("a key");
    let vault = TokenVault::new(key, Vec::new(), Binding::Row, &mut Dice::new([7; 16]));
    vault.expect("a vault")
}

/// An iPhone of app `a`; `id` is its row's too.
pub fn device(id: &str, token: &str) -> Device {
    let json = format!(r#"{{"device_id":"{id}","platform":"ios","token":"{token}"}}"#);
    let read = Registration::read(&json, &DeviceBounds::default(), at(0)).expect("right");
    let sealed = SealedRegistration::seal("a", read, &vault(), &mut Dice::new([8; 16]), at(0));
    let mut device = Device::begin(sealed, at(0));
    device.id = id.to_string();
    device
}
