//! Device tokens as they stand in the file, against a reader of somebody else: a Python program that
//! knows the columns and uses another implementation of AES-GCM (`tests/clients/vault.py`). It opens
//! what the vault sealed, and the vault opens what it sealed. Keys are made anew for every run.

mod support;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::{BASE64, HEXUPPER};
use rusqlite::Connection;

use support::{DEMO, Server, requests};

use lineman::base::dice::Dice;
use lineman::base::now::Now;
use lineman::push::devices::device::Device;
use lineman::push::devices::registration::{DeviceBounds, Registration};
use lineman::push::devices::token_key::{KeyId, TokenKey};
use lineman::push::devices::vault::{Binding, OpenFault, TokenVault};
use lineman::store::{credentials, devices};

/// The receiver's keys of RFC 8291 appendix A.
const POINT: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn chance() -> Dice {
    let draw = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&draw());
    seed[8..].copy_from_slice(&draw());
    Dice::new(seed)
}

/// A database with the tables, and two keys.
struct Place {
    dir: tempfile::TempDir,
    file: Connection,
    dice: Dice,
    /// Names and base64, the newer one first.
    keys: [(&'static str, String); 2],
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        let file = Connection::open(dir.path().join("devices.db")).expect("a file");
        for schema in [devices::SCHEMA, credentials::SCHEMA] {
            file.execute_batch(schema).expect("the schema");
        }
        let mut dice = chance();
        let mut key = || {
            let halves = [
                dice.next_u128().to_le_bytes(),
                dice.next_u128().to_le_bytes(),
            ];
            BASE64.encode(&halves.concat())
        };
        let keys = [("2026-12", key()), ("2026-11", key())];
        Place {
            dir,
            file,
            dice,
            keys,
        }
    }

    /// The vault before a rotation (the older key alone), and during one (both).
    fn vaults(&mut self) -> (TokenVault, TokenVault) {
        let key = |(name, text): &(&str, String)| {
            TokenKey::parse(KeyId::parse(name).expect("an id"), text).expect("a key")
        };
        let [newer, older] = &self.keys;
        let before = TokenVault::new(key(older), Vec::new(), Binding::Context, &mut self.dice);
        let during = TokenVault::new(key(newer), vec![key(older)], Binding::Row, &mut self.dice);
        let (before, during) = (before.expect("a vault"), during.expect("a vault"));
        for (id, print) in during.keys() {
            devices::put_key(&self.file, id, print, 1).expect("a key");
        }
        (before, during)
    }

    fn register(&mut self, vault: &TokenVault, json: &str) -> Device {
        let now = Now {
            unix_ms: 1_800_000_000_000,
            ..Now::default()
        };
        let read = Registration::read(json, &DeviceBounds::default(), now);
        let read = read.expect("a registration");
        let device = Device::new("app", read, vault, &mut self.dice, now);
        devices::put(&self.file, &device).expect("it is put");
        device
    }

    /// Runs the other program; what it printed.
    fn other_program(&self, task: &str) -> Result<String, String> {
        self.other_program_on(task, "devices.db")
    }

    fn other_program_on(&self, task: &str, file: &str) -> Result<String, String> {
        let clients: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let python = clients.join(".venv/bin/python");
        assert!(python.exists(), "run tests/setup once");
        let keys = self
            .keys
            .each_ref()
            .map(|(name, text)| format!("{name}={text}"));
        let output = Command::new(python)
            .arg(clients.join("vault.py"))
            .args([task, file])
            .current_dir(self.dir.path())
            .env("TOKEN_KEYS", keys.join(" "))
            .output()
            .expect("python runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    fn found(&self, device: &Device) -> Device {
        let found = devices::find(&self.file, "app", &device.device_id);
        found.expect("a working file").expect("the device")
    }
}

/// What a client says, and what is kept of it; no two devices have one token.
fn tokens(name: &str) -> [(&'static str, &'static str, String, String); 5] {
    let hex = |text: &str| HEXUPPER.encode(format!("{text} {name}").as_bytes());
    let quoted = |text: &str| format!("\"{text}\"");
    let fcm = format!("{name}:APA91b_-");
    let said = format!(
        r#"{{"endpoint":"https://{name}.example/%C3%BC","expirationTime":null,"keys":{{"p256dh":"{POINT}=","auth":"{AUTH}=="}}}}"#
    );
    let kept = format!(
        r#"{{"endpoint":"https://{name}.example/%C3%BC","keys":{{"auth":"{AUTH}","p256dh":"{POINT}"}}}}"#
    );
    let (apns, sandbox) = (hex("production"), hex("sandbox"));
    [
        ("ios", "apns", quoted(&apns), apns.to_lowercase()),
        (
            "ios",
            "apns-sandbox",
            quoted(&sandbox),
            sandbox.to_lowercase(),
        ),
        ("android", "fcm", quoted(&fcm), fcm),
        ("android", "fcm-fid", quoted(name), name.to_string()),
        ("web", "webpush", said, kept),
    ]
}

/// Devices of every service, half of them sealed before a rotation and half during it; with the
/// token of each.
fn play() -> (Place, TokenVault, BTreeMap<String, String>) {
    let mut place = Place::new();
    let (before, during) = place.vaults();
    let mut expected = BTreeMap::new();
    for (name, vault) in [("before", &before), ("during", &during)] {
        for (platform, service, said, kept) in tokens(name) {
            let id = format!("{name}-{service}");
            let json = format!(
                r#"{{"device_id":"{id}","platform":"{platform}","service":"{service}","token":{said}}}"#
            );
            place.register(vault, &json);
            expected.insert(id, kept);
        }
    }
    (place, during, expected)
}

#[test]
fn another_program_opens_what_the_vault_sealed() {
    let (place, _, expected) = play();
    let printed = place.other_program("open").expect("it opens all of them");
    let found: BTreeMap<String, String> = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(found, expected);
    assert_eq!(found.len(), 10);
}

#[test]
fn the_vault_opens_what_another_program_sealed_and_takes_it_over() {
    let (mut place, vault, expected) = play();
    place.other_program("seal").expect("it seals");
    let current = vault.keys().next().expect("a key").0.clone();
    let goal = (&current, Binding::Row);
    let mut left = devices::outdated(&place.file, goal, "", 100).expect("rows");
    assert_eq!(left.len(), 10, "all of them are bound to nothing now");
    for device in &mut left {
        assert_eq!(device.sealed.binding, Binding::Context);
        let opened = vault.open(&device.row(), &device.sealed).expect("it opens");
        assert_eq!(opened.expose(), expected[&device.device_id]);
        assert_eq!(vault.indexes("app", &opened)[0], device.sealed.index);
        assert_eq!(device.reseal(&vault, &mut place.dice), Ok(true));
        devices::put(&place.file, device).expect("it is put");
    }
    assert_eq!(
        devices::outdated(&place.file, goal, "", 100).expect("rows"),
        []
    );
    let printed = place.other_program("open").expect("it opens all of them");
    let found: BTreeMap<String, String> = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(found, expected);
}

#[test]
fn whoever_can_write_to_the_file_cannot_move_a_token_that_is_bound_to_its_row() {
    let (mut place, vault, _) = play();
    let none = KeyId::parse("none").expect("an id");
    let all = devices::outdated(&place.file, (&none, Binding::Row), "", 100).expect("rows");
    for mut device in all.clone() {
        device.reseal(&vault, &mut place.dice).expect("it opens");
        devices::put(&place.file, &device).expect("it is put");
    }
    let open = |device: &Device| {
        let device = place.found(device);
        vault.open(&device.row(), &device.sealed).map(|_| ())
    };
    assert!(all.iter().all(|device| open(device) == Ok(())));
    place.other_program("forge").expect("it forges");
    assert_eq!(all.len(), 10);
    for device in &all {
        assert_eq!(open(device), Err(OpenFault::Forged));
    }
    assert!(
        place
            .other_program("open")
            .expect_err("nor there")
            .contains("InvalidTag")
    );
}

#[test]
fn another_program_opens_what_a_server_was_told_over_http() {
    let place = Place::new();
    let (name, text) = &place.keys[0];
    std::fs::write(place.dir.path().join("a.key"), text).expect("a key");
    let server = Server::start(&format!(
        "{DEMO}[store]\ndir = {dir:?}\n[push]\ntoken_key = {{ file = {key:?} }}\n\
         token_key_id = \"{name}\"\n",
        dir = place.dir.path().join("store"),
        key = place.dir.path().join("a.key"),
    ));
    let mut expected = BTreeMap::new();
    for (platform, service, said, kept) in tokens("http") {
        let id = format!("http-{service}");
        let json = format!(
            r#"{{"device_id":"{id}","platform":"{platform}","service":"{service}","token":{said}}}"#
        );
        let bearer = "Authorization: Bearer demo-secret\r\n";
        let path = "/apps/demo/devices";
        let (status, answer) = requests::answer(&server.address(0), "POST", path, bearer, &json);
        assert_eq!(status, 201, "{answer}");
        expected.insert(id, kept);
    }
    let printed = place.other_program_on("open", "store/lineman.db");
    let printed = printed.expect("it opens all of them");
    let found: BTreeMap<String, String> = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(found, expected);
}

#[test]
fn no_token_stands_in_the_file() {
    let (place, _, expected) = play();
    place.file.execute_batch("VACUUM").expect("a whole file");
    let bytes = std::fs::read(place.dir.path().join("devices.db")).expect("the file");
    let holds = |text: &str| {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(holds("before-webpush"), "the search finds what is there");
    for (id, token) in expected.iter().filter(|(_, token)| token.len() > 8) {
        assert!(!holds(token), "{id}");
    }
    for (name, key) in &place.keys {
        assert!(!holds(key), "{name}");
    }
}
