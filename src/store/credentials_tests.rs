//! Jobs of credentials in every store.

use super::*;
use crate::base::dice::Dice;
use crate::push::devices::token_key::{KeyId, TokenKey};
use crate::push::devices::vault::{Binding, TokenVault};
use crate::push::jobs::{Job, Outcome};
use crate::store::devices::{needed_keys, put_key};
use crate::store::kit::{Base, everywhere};

struct Play {
    base: Base,
    vault: TokenVault,
    dice: Dice,
}

fn key(name: &str) -> TokenKey {
    let text = data_encoding::BASE64.encode(format!("{name:>32}").as_bytes());
    TokenKey::parse(KeyId::parse(name).expect("an id"), &text).expect("a key")
}

fn vault(current: &str, older: &[&str]) -> TokenVault {
    let older = older.iter().map(|name| key(name)).collect();
    let dice = &mut Dice::new([8; 16]);
    TokenVault::new(key(current), older, Binding::Row, dice).expect("a vault")
}

impl Play {
    fn new(base: Base) -> Play {
        let mut play = Play {
            base,
            vault: vault("a", &[]),
            dice: Dice::new([9; 16]),
        };
        play.put_keys();
        play
    }

    fn put_keys(&mut self) {
        for (id, print) in self.vault.keys() {
            put_key(&self.base, id, print, 1).expect("a key");
        }
    }

    fn run(&mut self, job: CredentialJob) -> CredentialOutcome {
        match self.base.commit(&[Job::Credentials(job)]).remove(0) {
            Outcome::Credentials(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, app: &str, name: &str, family: &'static str) -> CredentialOutcome {
        let sealed = self.vault.seal_secret((app, name), "tiger", &mut self.dice);
        let credential = Box::new(NewCredential {
            app_id: app.into(),
            name: name.into(),
            family,
            is_operators: false,
            sealed,
        });
        let now_ms = 7;
        self.run(CredentialJob::Put { credential, now_ms })
    }

    fn all(&mut self) -> Kept {
        match self.run(CredentialJob::Look { since: None }) {
            CredentialOutcome::Kept(kept) => kept,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_change_is_seen_by_whoever_knows_the_revision_before() {
    everywhere(|base| {
        let mut play = Play::new(base);
        let before = play.all();
        assert!(before.all.is_empty());
        let put = play.put("app", "main", "apns");
        let CredentialOutcome::Put { is_new: true, kept } = put else {
            panic!("{put:?}");
        };
        assert_eq!((kept.all.len(), &play.all()), (1, &kept));
        let look = |since| CredentialJob::Look { since: Some(since) };
        assert_eq!(play.run(look(kept.revision)), CredentialOutcome::Same);
        assert_ne!(play.run(look(before.revision)), CredentialOutcome::Same);
        let again = play.put("app", "main", "fcm");
        let CredentialOutcome::Put {
            is_new: false,
            kept: again,
        } = again
        else {
            panic!("{again:?}");
        };
        assert!(again.revision > kept.revision);
        assert_eq!(again.all[0].revision, again.revision);
        let remove = || CredentialJob::Remove {
            app_id: "app".into(),
            name: "main".into(),
        };
        let removed = play.run(remove());
        assert!(matches!(removed, CredentialOutcome::Removed(kept) if kept.all.is_empty()));
        assert_eq!(play.run(remove()), CredentialOutcome::Unknown);
    });
}

#[test]
fn an_app_has_one_for_each_kind_of_device_and_not_too_many() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.put("app", "main", "apns");
        let conflict = CredentialOutcome::Conflict("main".into());
        assert_eq!(play.put("app", "other", "apns"), conflict);
        assert!(matches!(
            play.put("another", "other", "apns"),
            CredentialOutcome::Put { .. }
        ));
        for n in 1..APP_MAX {
            let family: &'static str = format!("family-{n}").leak();
            let put = play.put("app", &format!("name-{n}"), family);
            assert!(matches!(put, CredentialOutcome::Put { .. }), "{put:?}");
        }
        assert_eq!(play.put("app", "one-more", "fcm"), CredentialOutcome::Full);
        assert!(matches!(
            play.put("app", "main", "apns"),
            CredentialOutcome::Put { .. }
        ));
    });
}

#[test]
fn a_key_is_needed_until_they_are_sealed_with_another() {
    everywhere(|base| {
        let mut play = Play::new(base);
        play.put("app", "main", "apns");
        let needed = |play: &Play| needed_keys(&play.base).expect("a working store").len();
        assert_eq!(needed(&play), 1);
        play.vault = vault("b", &["a"]);
        play.put_keys();
        let kept = play.all();
        let whose = ("app", "main");
        let text = play
            .vault
            .open_secret(whose, &kept.all[0].sealed)
            .expect("it opens");
        let resealed = |play: &mut Play| ResealedSecret {
            app_id: "app".into(),
            name: "main".into(),
            was: kept.all[0].sealed.clone(),
            sealed: play.vault.seal_secret(whose, &text, &mut play.dice),
        };
        let rows = vec![resealed(&mut play)];
        assert_eq!(
            play.run(CredentialJob::Reseal(rows)),
            CredentialOutcome::Resealed(1)
        );
        assert_eq!(
            play.all().revision,
            kept.revision,
            "it is the same credential"
        );
        let rows = vec![resealed(&mut play)];
        assert_eq!(
            play.run(CredentialJob::Reseal(rows)),
            CredentialOutcome::Resealed(0)
        );
        let keys = needed_keys(&play.base).expect("a working store");
        assert_eq!(keys[0].0.as_str(), "b");
    });
}
