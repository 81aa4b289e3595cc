//! The tables of devices in every store.

use super::*;
use crate::base::dice::Dice;
use crate::base::now::Now;
use crate::push::devices::geo::Area;
use crate::push::devices::registration::{DeviceBounds, Registration};
use crate::push::devices::token::ClearToken;
use crate::push::devices::token_key::TokenKey;
use crate::push::devices::vault::TokenVault;
use crate::store::kit::{Base, everywhere};

struct Play {
    file: Base,
    vault: TokenVault,
    dice: Dice,
    now: Now,
}

fn vault(name: &str) -> TokenVault {
    let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
    let key = TokenKey::parse(KeyId::parse(name).expect("an id"), &text).expect("a key");
    TokenVault::new(key, Vec::new(), Binding::Row, &mut Dice::new([7; 16])).expect("a vault")
}

impl Play {
    fn new(file: Base) -> Play {
        let now = Now {
            unix_ms: 1_800_000_000_000,
            ..Now::default()
        };
        let vault = vault("a");
        for (id, print) in vault.keys() {
            put_key(&file, id, print, now.unix_ms).expect("a key");
        }
        let dice = Dice::new([8; 16]);
        Play {
            file,
            vault,
            dice,
            now,
        }
    }

    fn device(&mut self, app: &str, device: &str, token: &str, rest: &str) -> Device {
        let json =
            format!(r#"{{"device_id":"{device}","platform":"android","token":"{token}"{rest}}}"#);
        let read = Registration::read(&json, &DeviceBounds::default(), self.now);
        let read = read.expect("a registration");
        Device::new(app, read, &self.vault, &mut self.dice, self.now)
    }

    fn put(&self, device: &Device) -> std::result::Result<(), String> {
        put(&self.file, device).map_err(|error| error.to_string())
    }

    fn find(&self, app: &str, device: &str) -> Option<Device> {
        find(&self.file, app, device).expect("a working file")
    }

    fn count(&self, sql: &str) -> i64 {
        self.file.number(sql) as i64
    }
}

const ALL: &str = r#","user_id":"u","topics":["b","a"],"token_expires_at":1800000060,
    "location":{"latitude":-52.123456789,"longitude":180},"metadata":{"ü":1},
    "locale":"de-AT","time_zone":"Europe/Vienna""#;

#[test]
fn a_device_is_read_back_as_it_was_put() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let plain = play.device("app", "d1", "token-1", "");
        let mut full = play.device("app", "d2", "token-2", ALL);
        full.token_accepted(play.now);
        for device in [&plain, &full] {
            play.put(device).expect("it is put");
            assert_eq!(play.find("app", &device.device_id).as_ref(), Some(device));
        }
        full.retire(Retired::Gone, play.now);
        full.profile.topics.remove("a");
        play.put(&full).expect("it is put again");
        assert_eq!(play.find("app", "d2"), Some(full));
        assert_eq!(play.find("app", "d1"), Some(plain));
        assert_eq!(play.find("other", "d1"), None);
    });
}

#[test]
fn the_safe_view_has_everything_but_what_the_token_became() {
    everywhere(|base| {
        let play = Play::new(base);
        let columns = |table: &str| {
            let sql = match play.file.is_shared() {
                true => format!(
                    "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_schema = 'lineman' AND table_name = '{table}' ORDER BY column_name"
                ),
                false => format!("SELECT name FROM pragma_table_info('{table}') ORDER BY name"),
            };
            play.file.lines(&sql)
        };
        let secret = ["encrypted_token", "token_iv", "token_tag", "token_index"];
        let mut all = columns("device_registrations");
        let safe = columns("device_registrations_safe");
        for name in secret {
            assert!(all.contains(&name.to_string()), "{name}");
            assert!(!safe.contains(&name.to_string()), "{name}");
        }
        all.retain(|name| !secret.contains(&name.as_str()));
        assert_eq!(safe, all);
        assert_eq!(all.len() + secret.len(), COLUMNS.len());
    });
}

#[test]
fn the_safe_view_shows_rows_and_takes_none() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let device = play.device("app", "d", "token-1", ALL);
        play.put(&device).expect("it is put");
        let seen = "SELECT count(*) FROM device_registrations_safe WHERE user_id = 'u'";
        assert_eq!(play.count(seen), 1);
        let written = play
            .file
            .execute("UPDATE device_registrations_safe SET user_id = 'v'", &[]);
        assert!(written.is_err());
    });
}

#[test]
fn a_token_is_of_one_active_device_of_an_app() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let mut first = play.device("app", "d1", "token-1", "");
        let second = play.device("app", "d2", "token-1", "");
        let elsewhere = play.device("other", "d1", "token-1", "");
        play.put(&first).expect("it is put");
        play.put(&elsewhere).expect("another app is another matter");
        let twice = play.put(&second).expect_err("its token is taken");
        assert!(twice.to_lowercase().contains("unique"), "{twice}");
        assert_eq!(
            play.find("app", "d1"),
            Some(first.clone()),
            "and nobody was pushed away"
        );

        let token = ClearToken::parse(Service::Fcm, "token-1").expect("a token");
        let indexes = play.vault.indexes("app", &token);
        let found = holders(&play.file, "app", &indexes).expect("a working file");
        assert_eq!(found, [first.clone()]);
        first.retire(Retired::Replaced, play.now);
        play.put(&first).expect("it is put");
        play.put(&second).expect("and so is its follower");
        let found = holders(&play.file, "app", &indexes).expect("a working file");
        assert_eq!(found, [second]);
    });
}

#[test]
fn a_device_id_is_taken_once_in_an_app() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let first = play.device("app", "d", "token-1", "");
        let second = play.device("app", "d", "token-2", "");
        play.put(&first).expect("it is put");
        assert!(
            play.put(&second)
                .expect_err("taken")
                .to_lowercase()
                .contains("unique")
        );
        assert_eq!(play.find("app", "d"), Some(first));
    });
}

#[test]
fn what_is_removed_leaves_no_topics() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let device = play.device("app", "d", "token-1", ALL);
        play.put(&device).expect("it is put");
        assert_eq!(play.count("SELECT count(*) FROM device_topics"), 2);
        assert!(remove(&play.file, "app", "d").expect("a working file"));
        assert!(!remove(&play.file, "app", "d").expect("a working file"));
        assert_eq!(play.count("SELECT count(*) FROM device_topics"), 0);
    });
}

#[test]
fn a_rotation_finds_what_is_left_to_do() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let tokens = ["token-1", "token-2", "token-3"];
        for (at, token) in tokens.iter().enumerate() {
            let device = play.device("app", &format!("d{at}"), token, "");
            play.put(&device).expect("it is put");
        }
        let outdated = |play: &Play, key: &str, after: &str, count| {
            let key = KeyId::parse(key).expect("an id");
            outdated(&play.file, (&key, Binding::Row), after, count).expect("a working file")
        };
        assert_eq!(outdated(&play, "a", "", 10), []);
        let batch = outdated(&play, "b", "", 2);
        assert_eq!(batch.len(), 2);
        let rest = outdated(&play, "b", &batch[1].id, 2);
        assert_eq!(rest.len(), 1);
        assert!(rest[0].id > batch[1].id && batch[1].id > batch[0].id);
    });
}

#[test]
fn keys_are_known_as_long_as_a_device_needs_them() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let needed = |play: &Play| needed_keys(&play.file).expect("a working file");
        assert_eq!(needed(&play), []);
        let device = play.device("app", "d", "token-1", "");
        play.put(&device).expect("it is put");
        assert_eq!(play.vault.check_known(&needed(&play)), Ok(()));
        let id = needed(&play)[0].0.clone();
        put_key(&play.file, &id, &"0".repeat(16), 0).expect("a key");
        assert_eq!(
            play.vault.check_known(&needed(&play)),
            Ok(()),
            "the first one stays"
        );
        assert!(vault("b").check_known(&needed(&play)).is_err());

        play.vault = vault("b");
        let other = play.device("app", "d2", "token-2", "");
        let unknown = play.put(&other).expect_err("its key was not noted");
        assert!(unknown.to_lowercase().contains("foreign key"), "{unknown}");
    });
}

#[test]
fn rows_that_make_no_sense_are_refused_or_told() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let device = play.device("app", "d", "token-1", ALL);
        play.put(&device).expect("it is put");
        for change in [
            "platform = 'macos'",
            "service = 'gcm'",
            "token_binding = 3",
            "token_iv = 'AAAA'",
            "token_tag = ''",
            "is_active = FALSE",
            "inactive_reason = 'gone'",
            "last_known_latitude = 91",
            "last_known_longitude = NULL",
            "encrypted_token = NULL",
            "created_at = 'today'",
        ] {
            let sql = format!("UPDATE device_registrations SET {change}");
            assert!(play.file.execute(&sql, &[]).is_err(), "{change}");
        }
        let odd = "UPDATE device_registrations SET is_active = FALSE, inactive_reason = '?', inactive_since = 1";
        play.file.write(odd, &[]);
        let told = find(&play.file, "app", "d")
            .expect_err("an odd reason")
            .to_string();
        assert!(told.contains("inactive_reason"), "{told}");
    });
}

#[test]
fn lists_use_their_indexes() {
    let play = Play::new(Base::file());
    let plan = |sql: &str| {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = play.file.sqlite().prepare(&sql).expect("a query");
        let lines = statement
            .query_map([], |row| row.get::<_, String>(3))
            .expect("a plan");
        lines
            .map(|line| line.expect("a line"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let table = [
        (
            "app_id = 'a' AND device_id = 'd'",
            "(app_id=? AND device_id=?)",
        ),
        ("app_id = 'a' AND user_id = 'u'", "device_by_user"),
        (
            "app_id = 'a' AND platform = 'ios' AND id > 'x'",
            "device_by_platform",
        ),
        (
            "is_active AND token_expires_at IS NOT NULL AND token_expires_at < 5",
            "device_by_expiry",
        ),
        ("NOT is_active AND inactive_since < 5", "device_by_end"),
        (
            "app_id = 'a' AND last_known_latitude BETWEEN 1 AND 2 AND last_known_longitude BETWEEN 3 AND 4",
            "device_by_place",
        ),
    ];
    for (condition, index) in table {
        for table in ["device_registrations", "device_registrations_safe"] {
            let plan = plan(&format!("SELECT * FROM {table} WHERE {condition}"));
            let found = plan.contains("SEARCH") && plan.contains(index);
            assert!(found, "{condition}: {plan}");
        }
    }
    let token = plan(
        "SELECT * FROM device_registrations \
         WHERE app_id = 'a' AND token_index IN ('x', 'y') AND is_active",
    );
    assert!(
        token.contains("INDEX device_by_token (app_id=? AND token_index=?)"),
        "{token}"
    );
    let topic = plan("SELECT device FROM device_topics WHERE app_id = 'a' AND topic = 't'");
    assert!(
        topic.contains("COVERING INDEX device_topics_by_topic"),
        "{topic}"
    );
}

#[test]
fn an_area_is_asked_for_by_its_boxes() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let places = [
            ("in", -17.8, 179.9),
            ("over", -17.8, -179.9),
            ("out", -17.8, 0.0),
            ("corner", -16.5, 179.0),
        ];
        for (name, latitude, longitude) in places {
            let rest = format!(r#","location":{{"latitude":{latitude},"longitude":{longitude}}}"#);
            let device = play.device("app", name, &format!("token-{name}"), &rest);
            play.put(&device).expect("it is put");
        }
        let middle = Point::new(-17.7, 180.0).expect("a place");
        let area = Area::circle(middle, 150_000.0).expect("a circle");
        let sql = "SELECT * FROM device_registrations WHERE app_id = 'app' \
               AND last_known_latitude BETWEEN ? AND ? AND last_known_longitude BETWEEN ? AND ?";
        let mut candidates = Vec::new();
        for bounds in area.boxes() {
            let values = values![bounds.south, bounds.north, bounds.west, bounds.east];
            let found = play.file.query(sql, &values).expect("rows");
            candidates.extend(found.iter().map(|row| read(row).expect("a device")));
        }
        let names = |devices: &[Device]| {
            let mut names: Vec<String> = devices.iter().map(|it| it.device_id.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&candidates), ["corner", "in", "over"]);
        candidates.retain(|it| {
            it.profile
                .location
                .is_some_and(|place| area.contains(&place))
        });
        assert_eq!(names(&candidates), ["in", "over"]);
    });
}
