//! What `verify` finds: each kind of damage in a file that was good before.

use std::path::PathBuf;

use super::*;
use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::devices::device::Device;
use crate::push::devices::registration::{DeviceBounds, Registration};
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::Binding;
use crate::store::devices::{put, put_key};
use crate::store::sqlite;

fn vault(name: &str) -> TokenVault {
    let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
    let key = TokenKey::parse(KeyId::parse("k").expect("an id"), &text).expect("a key");
    TokenVault::new(key, Vec::new(), Binding::Row, &mut Dice::new([7; 16])).expect("a vault")
}

struct Play {
    dir: tempfile::TempDir,
    vault: TokenVault,
}

impl Play {
    /// Three devices of one app.
    fn new() -> Play {
        let dir = tempfile::tempdir().expect("a directory");
        let play = Play {
            dir,
            vault: vault("a"),
        };
        let file = sqlite::open(&play.path()).expect("a file");
        for (id, print) in play.vault.keys() {
            put_key(&file, id, print, 1).expect("a key");
        }
        let mut dice = Dice::new([8; 16]);
        for n in 0..3 {
            let json =
                format!(r#"{{"device_id":"d{n}","platform":"android","token":"token-{n}"}}"#);
            let now = Now::default();
            let read = Registration::read(&json, &DeviceBounds::default(), now).expect("good");
            let device = Device::new("app", read, &play.vault, &mut dice, now);
            put(&file, &device).expect("it is put");
        }
        play
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.db")
    }

    fn alter(&self, sql: &str) {
        let file = Connection::open(self.path()).expect("the file");
        file.execute_batch("PRAGMA foreign_keys = OFF")
            .expect("a setting");
        file.execute_batch(sql).expect(sql);
    }

    fn verify(&self, keys: Keys<'_>) -> Report {
        verify(&self.path(), keys, |_| {}).expect("it is read")
    }

    fn own(&self) -> Report {
        self.verify(Keys::Here(Some(&self.vault)))
    }
}

/// With what is wrong with tokens, of three.
fn wrong(report: &Report) -> (u64, u64, u64, usize) {
    assert!(!report.is_good());
    let tokens = report.tokens.as_ref().expect("they were tried");
    let (readable, unreadable) = (tokens.readable, tokens.unreadable);
    (readable, unreadable, tokens.misindexed, tokens.wrong.len())
}

#[test]
fn a_good_file_is_good_with_its_keys_or_without_a_look_at_tokens() {
    let play = Play::new();
    let report = play.own();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.devices, report.schema), (3, VERSION));
    assert_eq!(report.tokens.expect("they were tried").readable, 3);
    let report = play.verify(Keys::Elsewhere);
    assert!(report.is_good() && report.tokens.is_none());
    let report = play.verify(Keys::Here(None));
    assert_eq!(wrong(&report), (0, 0, 0, 0), "nothing opens without keys");
}

#[test]
fn tokens_that_do_not_open_or_are_not_found_are_counted() {
    let play = Play::new();
    let report = play.verify(Keys::Here(Some(&vault("b"))));
    assert_eq!(wrong(&report), (0, 3, 0, 3));
    let why = report.tokens.expect("they were tried").keys;
    assert!(why.is_some_and(|why| why.contains("is not the one")));
    play.alter("UPDATE device_registrations SET token_tag = 'AAAAAAAAAAAAAAAAAAAAAA==' WHERE device_id = 'd1'");
    assert_eq!(wrong(&play.own()), (2, 1, 0, 1));
    play.alter("UPDATE device_registrations SET token_index = 'other' WHERE device_id = 'd2'");
    assert_eq!(wrong(&play.own()), (2, 1, 1, 2));
    // A token in another device's row does not open there.
    play.alter("UPDATE device_registrations SET device_id = 'd9' WHERE device_id = 'd0'");
    assert_eq!(wrong(&play.own()), (1, 2, 1, 3));
}

#[test]
fn a_credential_that_does_not_open_is_found() {
    let play = Play::new();
    let sealed = play
        .vault
        .seal_secret(("app", "main"), "tiger", &mut Dice::new([9; 16]));
    play.alter(&format!(
        "INSERT INTO credentials VALUES ('app', 'main', 'apns', 1, '{}', '{}', '{}', 'k', 1, 1, 1)",
        sealed.text, sealed.iv, sealed.tag
    ));
    let report = play.own();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.credentials, report.unreadable_credentials), (1, 0));
    play.alter("UPDATE credentials SET app_id = 'other'");
    let report = play.own();
    assert!(!report.is_good() && report.unreadable_credentials == 1);
    assert!(play.verify(Keys::Elsewhere).is_good(), "it was not tried");
}

#[test]
fn rows_without_a_parent_and_wrong_counts_are_found() {
    let play = Play::new();
    play.alter("INSERT INTO device_topics (device, app_id, topic) VALUES ('none', 'app', 't')");
    assert_eq!(play.own().orphans, 1);
    play.alter("DELETE FROM device_topics; UPDATE device_counts SET devices = 2");
    assert_eq!(play.own().miscounted_apps, 1);
    play.alter("UPDATE device_counts SET devices = 3; INSERT INTO device_counts VALUES ('b', 1)");
    assert_eq!(play.own().miscounted_apps, 1);
    play.alter("UPDATE device_counts SET devices = 0 WHERE app_id = 'b'");
    assert!(play.own().is_good(), "an app that had devices once");
}

#[test]
fn a_file_of_another_schema_or_of_somebody_else_or_with_a_broken_page_is_not_good() {
    let play = Play::new();
    play.alter("PRAGMA user_version = 99");
    assert!(!play.own().is_good());
    play.alter("PRAGMA user_version = 0");
    assert!(!play.own().is_good());
    play.alter("PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(play.own().is_good());
    let mut bytes = std::fs::read(play.path()).expect("the file");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    std::fs::write(play.path(), bytes).expect("the file");
    let found = verify(&play.path(), Keys::Elsewhere, |_| {});
    assert!(
        !found.is_ok_and(|report| report.is_good()),
        "a page is not what it was"
    );
    assert!(verify(&play.dir.path().join("none"), Keys::Elsewhere, |_| {}).is_err());
}
