//! Jobs of devices in every store.

use super::*;
use crate::base::dice::Dice;
use crate::push::devices::registration::{DeviceBounds, Registration, Update};
use crate::push::devices::token_key::TokenKey;
use crate::push::devices::vault::TokenVault;
use crate::push::jobs::{Job, Outcome};
use crate::store::kit::{Base, everywhere};

const LIMITS: DeviceLimits = DeviceLimits {
    per_app: 5,
    per_user: 2,
    topics: 2,
};

struct Play {
    file: Base,
    vault: TokenVault,
    dice: Dice,
    now: Now,
}

fn key(name: &str) -> TokenKey {
    let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
    TokenKey::parse(KeyId::parse(name).expect("an id"), &text).expect("a key")
}

fn outcome(of: Outcome) -> DeviceOutcome {
    match of {
        Outcome::Devices(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

impl Play {
    fn new(file: Base) -> Play {
        let mut dice = Dice::new([8; 16]);
        let vault = TokenVault::new(key("a"), Vec::new(), Binding::Row, &mut dice);
        let mut play = Play {
            file,
            vault: vault.expect("a vault"),
            dice,
            now: Now {
                unix_ms: 1_800_000_000_000,
                ..Now::default()
            },
        };
        play.put_keys();
        play
    }

    fn put_keys(&mut self) {
        let keys = self
            .vault
            .keys()
            .map(|(id, print)| (id.clone(), print.clone()));
        let (keys, now) = (keys.collect(), self.now);
        self.run(KeyJob::Put { keys, now });
    }

    fn run(&mut self, job: impl Into<DeviceJob>) -> DeviceOutcome {
        outcome(self.file.commit(&[Job::Devices(job.into())]).remove(0))
    }

    fn sealed(&mut self, device: &str, token: &str, rest: &str) -> SealedRegistration {
        let json =
            format!(r#"{{"device_id":"{device}","platform":"android","token":"{token}"{rest}}}"#);
        let read = Registration::read(&json, &DeviceBounds::default(), self.now);
        SealedRegistration::seal(
            "app",
            read.expect("right"),
            &self.vault,
            &mut self.dice,
            self.now,
        )
    }

    fn register(&mut self, device: &str, token: &str, rest: &str) -> Attempt {
        let registrations = vec![self.sealed(device, token, rest)];
        let (limits, now) = (LIMITS, self.now);
        let job = DeviceJob::Register {
            registrations,
            limits,
            now,
        };
        match self.run(job) {
            DeviceOutcome::Registered(mut done) => done.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn find(&mut self, device: &str) -> Option<Device> {
        devices::find(&self.file, "app", device).expect("a working file")
    }

    fn update(&mut self, device: &Device, json: &str) -> DeviceOutcome {
        let update = Update::read(json, device.service, &DeviceBounds::default(), self.now);
        let update = update.expect("an update");
        let update = SealedUpdate::seal(device, update, &self.vault, &mut self.dice);
        self.run(DeviceJob::Update {
            app_id: "app".into(),
            device_id: device.device_id.clone(),
            update: Box::new(update),
            limits: LIMITS,
            now: self.now,
        })
    }

    fn uses(&mut self) -> Vec<KeyUse> {
        match self.run(KeyJob::Count) {
            DeviceOutcome::Keys(uses) => uses,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_that_cannot_be_done_leaves_nothing_behind_and_the_transaction_as_it_was() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let good = play.sealed("good", "token-good", "");
        let mut bad = play.sealed("bad", "token-bad", "");
        bad.token.sealed.key_id = KeyId::parse("unknown").expect("an id");
        let (limits, now) = (LIMITS, play.now);
        let register = |registrations| DeviceJob::Register {
            registrations,
            limits,
            now,
        };
        let other = SealedRegistration {
            device_id: "other".into(),
            ..good.clone()
        };
        let both = [register(vec![good]), register(vec![other, bad])];
        let mut done = play.file.commit(&both.map(Job::Devices));
        let second = outcome(done.remove(1));
        let first = outcome(done.remove(0));
        assert!(matches!(first, DeviceOutcome::Registered(_)));
        assert!(matches!(second, DeviceOutcome::Impossible(_)), "{second:?}");
        assert!(play.find("good").is_some() && play.find("other").is_none());
        assert!(play.find("bad").is_none());
        // A row that somebody damaged is no reason to fail either.
        let damage = "UPDATE device_registrations \
                  SET inactive_reason = 'x', is_active = FALSE, inactive_since = 1";
        play.file.write(damage, &[]);
        let (app_id, device_id) = ("app".to_string(), "good".to_string());
        let found = play.run(DeviceJob::Find { app_id, device_id });
        assert!(matches!(found, DeviceOutcome::Impossible(_)), "{found:?}");
    });
}

#[test]
fn limits_count_what_is_there_and_whom_it_belongs_to() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let user = |name: &str| format!(r#","user_id":"{name}""#);
        assert!(
            play.register("d1", "token-1", &user("u"))
                .is_ok_and(|it| it.is_new)
        );
        assert!(play.register("d2", "token-2", &user("u")).is_ok());
        assert_eq!(play.register("d3", "token-3", &user("u")), Err(Full::User));
        // The one that loses its token makes room.
        let third = play
            .register("d3", "token-2", &user("u"))
            .expect("there is room");
        assert_eq!((third.replaced, third.is_new), (1, true));
        let second = play.find("d2").expect("it is there");
        assert!(matches!(
            second.state,
            State::Inactive {
                why: Retired::Replaced,
                ..
            }
        ));
        let back = play.update(&second, r#"{"token":"token-9"}"#);
        assert_eq!(
            back,
            DeviceOutcome::Full(Full::User),
            "it would be the third"
        );
        assert!(play.register("d4", "token-4", "").is_ok());
        assert!(play.register("d5", "token-5", "").is_ok());
        assert_eq!(play.register("d6", "token-6", ""), Err(Full::App));
        let (app_id, device_id) = ("app".to_string(), "d5".to_string());
        let removed = play.run(DeviceJob::Remove { app_id, device_id });
        assert!(matches!(removed, DeviceOutcome::Device(_)));
        assert!(play.register("d6", "token-6", "").is_ok());
    });
}

#[test]
fn a_device_has_so_many_topics() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.register("d6", "token-6", "").expect("registered");
        let topic = |topic: &str, wanted| DeviceJob::SetTopic {
            app_id: "app".into(),
            device_id: "d6".into(),
            topic: topic.into(),
            wanted,
            limits: LIMITS,
            now: Now::default(),
        };
        for name in ["x", "y", "y"] {
            assert!(matches!(
                play.run(topic(name, true)),
                DeviceOutcome::Device(_)
            ));
        }
        assert_eq!(
            play.run(topic("z", true)),
            DeviceOutcome::Full(Full::Topics)
        );
        assert!(matches!(
            play.run(topic("x", false)),
            DeviceOutcome::Device(_)
        ));
        assert!(matches!(
            play.run(topic("z", true)),
            DeviceOutcome::Device(_)
        ));
    });
}

#[test]
fn an_update_for_a_service_that_the_device_left_is_not_done() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let before = play
            .register("d", "token-1", "")
            .expect("registered")
            .device;
        play.register("d", "abcdefghijklmnopqrstuv", r#","service":"fcm-fid""#)
            .expect("registered");
        assert_eq!(
            play.update(&before, r#"{"token":"token-2"}"#),
            DeviceOutcome::Changed
        );
        let free = play.update(&before, r#"{"locale":"de"}"#);
        assert!(
            matches!(free, DeviceOutcome::Device(_)),
            "no token, no matter"
        );
    });
}

#[test]
fn a_rotation_takes_what_has_not_changed_meanwhile() {
    everywhere(|base| {
        let mut play = Play::new(base);
        for n in 0..3 {
            play.register(&format!("d{n}"), &format!("token-{n}"), "")
                .expect("registered");
        }
        assert_eq!(play.uses()[0].sealed, 3);
        let older = vec![key("a")];
        let vault = TokenVault::new(key("b"), older, Binding::Row, &mut play.dice);
        play.vault = vault.expect("a vault");
        play.put_keys();
        let outdated = |after: &str| KeyJob::Outdated {
            key: KeyId::parse("b").expect("an id"),
            binding: Binding::Row,
            after: after.into(),
            count: 2,
        };
        let DeviceOutcome::List(page, _) = play.run(outdated("")) else {
            panic!("no list");
        };
        assert_eq!(page.len(), 2);
        let changed = page[0].clone();
        assert!(matches!(
            play.update(&changed, r#"{"token":"token-new"}"#),
            DeviceOutcome::Device(_)
        ));
        let rows = page.iter().map(|device| {
            let mut again = device.clone();
            assert_eq!(again.reseal(&play.vault, &mut play.dice), Ok(true));
            Resealed {
                id: device.id.clone(),
                was: device.sealed.clone(),
                sealed: again.sealed,
            }
        });
        let rows = rows.collect();
        assert_eq!(play.run(KeyJob::Reseal(rows)), DeviceOutcome::Done(1));
        let now = play.find(&changed.device_id).expect("it is there");
        let token = play.vault.open(&now.row(), &now.sealed).expect("it opens");
        assert_eq!(token.expose(), "token-new");
        let DeviceOutcome::List(rest, _) = play.run(outdated(&page[1].id)) else {
            panic!("no list");
        };
        assert_eq!(rest.len(), 1);
        let key = KeyId::parse("b").expect("an id");
        play.run(KeyJob::Rotate {
            key: key.clone(),
            wanted: true,
        });
        let rotating = |uses: Vec<KeyUse>| uses.iter().filter(|it| it.is_rotating).count();
        assert_eq!(rotating(play.uses()), 1);
        play.run(KeyJob::Rotate { key, wanted: false });
        assert_eq!(rotating(play.uses()), 0);
    });
}

#[test]
fn a_name_of_a_key_that_nothing_needs_is_free() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let print = |play: &mut Play| -> String {
            let sql = "SELECT fingerprint FROM token_keys WHERE key_id = 'a'";
            play.file.lines(sql).remove(0)
        };
        let first = print(&mut play);
        let id = KeyId::parse("a").expect("an id");
        let (keys, now) = (vec![(id, "another".to_string())], play.now);
        let put = KeyJob::Put { keys, now };
        play.run(put.clone());
        assert_eq!(print(&mut play), "another");
        play.put_keys();
        assert_eq!(print(&mut play), first);
        play.register("d", "token-1", "").expect("registered");
        play.run(put);
        assert_eq!(print(&mut play), first, "a device needs it");
    });
}

#[test]
fn upkeep_takes_a_part_at_a_time() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let soon = r#","token_expires_at":1800000001"#;
        for n in 0..3 {
            play.register(&format!("d{n}"), &format!("token-{n}"), soon)
                .expect("registered");
        }
        play.register("stays", "token-9", "").expect("registered");
        play.now.unix_ms += 2_000;
        let upkeep = |play: &mut Play, keep_ms| {
            let (count, now) = (2, play.now);
            match play.run(DeviceJob::Upkeep {
                keep_ms,
                count,
                now,
            }) {
                DeviceOutcome::Upkept {
                    expired,
                    removed,
                    more,
                } => (expired, removed, more),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(upkeep(&mut play, 1_000), (2, 0, true));
        assert_eq!(upkeep(&mut play, 1_000), (1, 0, false));
        let gone = play.find("d0").expect("it is kept");
        assert!(matches!(
            gone.state,
            State::Inactive {
                why: Retired::Expired,
                ..
            }
        ));
        play.now.unix_ms += 1_000;
        assert_eq!(upkeep(&mut play, 1_000), (0, 2, true));
        assert_eq!(upkeep(&mut play, 1_000), (0, 1, false));
        assert!(play.find("d0").is_none() && play.find("stays").is_some());
    });
}

#[test]
fn devices_are_counted_page_by_page() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let soon = r#","token_expires_at":1800000001"#;
        let later = r#","token_expires_at":1800600000"#;
        let vienna = r#","location":{"latitude":48.2,"longitude":16.4}"#;
        for (device, rest) in [("a", soon), ("b", later), ("c", vienna), ("d", "")] {
            play.register(device, &format!("token-{device}"), rest)
                .expect("registered");
        }
        play.register("e", "token-d", "").expect("instead of d");
        play.now.unix_ms += 2_000;
        let (mut sum, mut after, mut pages) = (Census::default(), String::new(), 0);
        loop {
            let (count, now) = (2, play.now);
            let DeviceOutcome::Counted(page, next) =
                play.run(DeviceJob::Count { after, count, now })
            else {
                panic!("no page");
            };
            sum.add(&page);
            pages += 1;
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        let mut expected = Census {
            active: 4,
            inactive: 1,
            expiring: 1,
            overdue: 1,
            ..Census::default()
        };
        expected.located[crate::push::devices::region::Region::Europe as usize] = 1;
        assert_eq!((sum, pages), (expected, 3));
    });
}
