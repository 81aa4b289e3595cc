//! A device from its registration to its end.

use super::*;
use crate::push::devices::registration::DeviceBounds;
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::Binding;

const START: u64 = 1_800_000_000_000;

fn at(seconds: u64) -> Now {
    Now {
        unix_ms: START + seconds * 1000,
        ..Now::default()
    }
}

fn key(name: &str) -> TokenKey {
    let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
    TokenKey::parse(KeyId::parse(name).expect("an id"), &text).expect("a key")
}

fn vault(current: &str, older: &[&str]) -> TokenVault {
    let older = older.iter().map(|name| key(name)).collect();
    let dice = &mut Dice::new([7; 16]);
    TokenVault::new(key(current), older, Binding::Row, dice).expect("a vault")
}

struct Play {
    vault: TokenVault,
    dice: Dice,
}

impl Play {
    fn new() -> Play {
        Play {
            vault: vault("a", &[]),
            dice: Dice::new([8; 16]),
        }
    }

    fn registration(token: &str, rest: &str, now: Now) -> Registration {
        let json = format!(r#"{{"device_id":"d","platform":"android","token":"{token}"{rest}}}"#);
        Registration::read(&json, &DeviceBounds::default(), now).expect("a registration")
    }

    fn device(&mut self, rest: &str) -> Device {
        let registration = Play::registration("first-token", rest, at(0));
        Device::new("app", registration, &self.vault, &mut self.dice, at(0))
    }

    fn register(&mut self, device: &mut Device, token: &str, rest: &str, seconds: u64) {
        let registration = Play::registration(token, rest, at(seconds));
        let sealed = SealedRegistration::seal(
            "app",
            registration,
            &self.vault,
            &mut self.dice,
            at(seconds),
        );
        device.register(sealed, at(seconds));
    }

    fn update(&mut self, device: &mut Device, json: &str, seconds: u64) {
        let update = Update::read(json, device.service, &DeviceBounds::default(), at(seconds));
        let update = update.expect("an update");
        let sealed = SealedUpdate::seal(device, update, &self.vault, &mut self.dice);
        assert!(sealed.is_for(device));
        device.update(sealed, at(seconds));
    }

    fn token(&self, device: &Device) -> String {
        let opened = self
            .vault
            .open(&device.row(), &device.sealed)
            .expect("it opens");
        opened.expose().to_string()
    }
}

#[test]
fn a_device_is_told_without_its_token() {
    let mut play = Play::new();
    let rest = r#","user_id":"u","topics":["b","a"],"token_expires_at":1800000060,
        "location":{"latitude":52.5,"longitude":13.4},"metadata":{"model":"X"},"locale":"de""#;
    let device = play.device(rest);
    let told = device.json();
    let expected = format!(
        r#"{{"id":"{}","device_id":"d","platform":"android","service":"fcm","user_id":"u","topics":["a","b"],"is_active":true,"token_expires_at":1800000060,"location":{{"latitude":52.5,"longitude":13.4}},"metadata":{{"model":"X"}},"locale":"de","time_zone":null,"created_ms":{START},"updated_ms":{START}}}"#,
        device.id
    );
    assert_eq!(told, expected);
    let sealed = &device.sealed;
    for secret in [
        "first-token",
        &sealed.encrypted_token,
        &sealed.token_iv,
        &sealed.token_tag,
        &sealed.index,
    ] {
        assert!(!told.contains(secret) && !format!("{device:?}").contains(secret));
    }
    assert_eq!(play.token(&device), "first-token");
}

#[test]
fn a_device_that_comes_again_is_the_same_with_its_news() {
    let mut play = Play::new();
    let mut device = play.device(r#","user_id":"u","token_expires_at":1800000060"#);
    let before = device.clone();
    play.register(&mut device, "first-token", "", 5);
    let same = Device {
        updated_ms: START + 5000,
        token_set_ms: START + 5000,
        sealed: device.sealed.clone(),
        ..before.clone()
    };
    assert_eq!(device, same, "and its token counts anew");
    assert_eq!(play.token(&device), "first-token");
    play.register(&mut device, "second-token", r#","user_id":null"#, 6);
    assert_eq!(
        (device.id.as_str(), device.created_ms),
        (before.id.as_str(), START)
    );
    assert_eq!(play.token(&device), "second-token");
    assert_eq!(device.profile.user_id, None);
    assert_eq!(
        device.profile.token_expires_ms, None,
        "the end was that of the other token"
    );
}

#[test]
fn a_device_may_become_one_of_another_platform() {
    let mut play = Play::new();
    let mut device = play.device("");
    let json = r#"{"device_id":"d","platform":"ios","token":"c0ffee"}"#;
    let ios = Registration::read(json, &DeviceBounds::default(), at(1)).expect("a registration");
    let ios = SealedRegistration::seal("app", ios, &play.vault, &mut play.dice, at(1));
    device.register(ios, at(1));
    assert_eq!(
        (device.platform, device.service),
        (Platform::Ios, Service::Apns)
    );
    assert_eq!(play.token(&device), "c0ffee");
}

#[test]
fn an_update_changes_the_token_only_if_it_has_one() {
    let mut play = Play::new();
    let mut device = play.device("");
    let sealed = device.sealed.clone();
    play.update(
        &mut device,
        r#"{"topics":["x"],"time_zone":"Asia/Tokyo"}"#,
        1,
    );
    assert_eq!((&device.sealed, device.token_set_ms), (&sealed, START));
    assert_eq!(
        (device.profile.topics.len(), device.updated_ms),
        (1, START + 1000)
    );
    play.update(&mut device, r#"{"token":"second-token"}"#, 2);
    assert_eq!(
        (play.token(&device).as_str(), device.token_set_ms),
        ("second-token", START + 2000)
    );
}

#[test]
fn a_dead_token_ends_a_device_that_has_not_confirmed_it_since() {
    let mut play = Play::new();
    // (what the provider says, when it was asked, whether it ends), a token set at second 100.
    let table = [
        (Some(99_999), 500, false),
        (Some(100_000), 500, true),
        (Some(100_001), 500, true),
        (None, 99, false),
        (None, 100, true),
        (None, 101, true),
    ];
    for (dead_ms, asked, ends) in table {
        let mut device = play.device("");
        play.register(&mut device, "first-token", "", 100);
        let dead_ms = dead_ms.map(|ms| START + ms);
        let ended = device.token_dead(dead_ms, START + asked * 1000, at(600));
        assert_eq!(
            (ended, device.is_reachable(at(600))),
            (ends, !ends),
            "{dead_ms:?} {asked}"
        );
    }
    let mut device = play.device("");
    assert!(device.token_dead(None, START, at(1)));
    let gone = State::Inactive {
        why: Retired::Gone,
        since_ms: START + 1000,
    };
    assert_eq!(device.state, gone);
    assert!(
        device
            .json()
            .contains(r#""is_active":false,"inactive_reason":"gone""#)
    );
    device.retire(Retired::Expired, at(2));
    assert_eq!(device.state, gone, "the first reason stays");
    play.register(&mut device, "second-token", "", 3);
    assert!(device.is_reachable(at(3)), "a new token is a new start");
}

#[test]
fn a_suspect_token_ends_a_device_after_some_answers_in_a_row() {
    let mut device = Play::new().device("");
    assert!(!device.token_suspect(Some(2), at(1)));
    device.token_accepted(at(2));
    assert_eq!(
        (device.suspicions, device.accepted_ms),
        (0, Some(START + 2000))
    );
    assert!(!device.token_suspect(Some(2), at(3)));
    assert!(
        !device.token_suspect(None, at(4)),
        "not while the guard is up"
    );
    assert!(device.is_reachable(at(4)));
    assert!(device.token_suspect(Some(2), at(5)));
    assert!(!device.is_reachable(at(5)));
}

#[test]
fn upkeep_retires_what_expired_and_removes_what_was_inactive_for_long() {
    let mut device = Play::new().device(r#","token_expires_at":1800000060"#);
    let upkeep = |device: &Device, seconds| device.upkeep(10_000, at(seconds));
    assert_eq!(upkeep(&device, 59), Upkeep::Keep);
    assert!(device.is_reachable(at(59)) && !device.is_reachable(at(60)));
    assert_eq!(upkeep(&device, 60), Upkeep::Retire);
    device.retire(Retired::Expired, at(61));
    assert_eq!(upkeep(&device, 70), Upkeep::Keep);
    assert_eq!(upkeep(&device, 71), Upkeep::Remove);
}

#[test]
fn a_token_that_outlives_its_end_and_is_registered_again_has_none() {
    let mut play = Play::new();
    let mut device = play.device(r#","token_expires_at":1800000060"#);
    play.register(&mut device, "first-token", "", 59);
    assert!(!device.is_reachable(at(60)), "the end still holds");
    play.register(&mut device, "first-token", "", 61);
    assert!(device.is_reachable(at(1000)));
    let later = r#","token_expires_at":1800000100"#;
    play.register(&mut device, "first-token", later, 62);
    assert!(device.is_reachable(at(99)) && !device.is_reachable(at(100)));
}

#[test]
fn a_rotation_reseals_a_device_once() {
    let mut play = Play::new();
    let mut device = play.device("");
    let both = vault("b", &["a"]);
    assert_eq!(device.reseal(&both, &mut play.dice), Ok(true));
    assert_eq!(device.sealed.key_id.as_str(), "b");
    assert_eq!(device.reseal(&both, &mut play.dice), Ok(false));
    let sealed = device.sealed.clone();
    let stranger = vault("c", &[]);
    assert!(device.reseal(&stranger, &mut play.dice).is_err());
    assert_eq!(device.sealed, sealed, "what does not open is left as it is");
}

#[test]
fn a_reason_for_retirement_has_one_word() {
    for (word, why) in Retired::ALL {
        assert_eq!((Retired::from_word(word), why.word()), (Some(why), word));
    }
}
