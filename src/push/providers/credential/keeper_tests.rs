//! When a pass is made, asked for, renewed and kept.

use serde_json::json;

use super::*;
use crate::push::providers::credential::tests::{all, parse, with};
use crate::push::providers::kit::{NOW, answer, pass as other_pass, shown};

const APNS: usize = 0;
const CERTIFICATE: usize = 1;
const FCM: usize = 2;
const WEBPUSH: usize = 3;
const CONNECTION: usize = 4;
const ENTRA: usize = 5;

/// A keeper, its credential, chance and a clock.
struct Stage {
    credential: Credential,
    keeper: PassKeeper,
    dice: Dice,
    now: Now,
}

impl Stage {
    fn new(kind: usize) -> Stage {
        let origin = (kind == WEBPUSH).then(|| "https://push.example".to_string());
        Stage {
            credential: parse(&all()[kind]).expect("a credential"),
            keeper: PassKeeper::new(origin),
            dice: Dice::new([1; 16]),
            now: Now {
                moment: Moment::from_micros(1_000_000),
                unix_ms: NOW as u64 * 1000,
            },
        }
    }

    fn later(&mut self, seconds: u64) {
        self.now.moment = self.now.moment + Duration::from_secs(seconds);
        self.now.unix_ms += seconds * 1000;
    }

    /// In a word; a rest with its seconds.
    fn step(&mut self) -> String {
        match self.keeper.step(&self.credential, self.now, &mut self.dice) {
            Step::Made => "made".to_string(),
            Step::Ask(_) => "ask".to_string(),
            Step::Rest(None) => "rest".to_string(),
            Step::Rest(Some(until)) => {
                format!("rest {}", until.since(self.now.moment).as_secs())
            }
        }
    }

    fn answer(&mut self, status: &str, fields: &[(&str, &str)], body: &str) -> String {
        let answer = answer(status, fields, body);
        let (keeper, credential) = (&mut self.keeper, &self.credential);
        match keeper.answer(credential, Ok(&answer), self.now, &mut self.dice) {
            Ok(()) => "ok".to_string(),
            Err(ruling) => shown(&ruling),
        }
    }

    fn lose(&mut self, how: Lost) -> String {
        let (keeper, credential) = (&mut self.keeper, &self.credential);
        let ruling = keeper.answer(credential, Err(how), self.now, &mut self.dice);
        shown(&ruling.expect_err("it was lost"))
    }

    fn pass(&self) -> Result<Option<Pass>, String> {
        let pass = self.keeper.pass(&self.credential, self.now);
        pass.map(|pass| pass.map(|pass| Pass::clone(pass)))
            .map_err(|none| none.fault.map_or_else(|| "none".to_string(), shown))
    }

    fn authorization(&self) -> String {
        let pass = self.pass().expect("none is missing");
        pass.expect("a pass").authorization
    }

    fn remedy(&mut self, remedy: Remedy, used: &Pass) {
        self.keeper.remedy(&self.credential, remedy, used, self.now);
    }

    /// As it is after a restart.
    fn restarted(mut self) -> Stage {
        let kept = self.keeper.keep(&self.credential, &mut self.dice);
        let origin = self.keeper.origin.clone();
        let kept = kept.expect("something to keep");
        self.keeper = PassKeeper::restore(&self.credential, origin, &kept, self.now);
        self
    }
}

const GRANTED: &str = r#"{"access_token":"ya29.x","expires_in":3600,"token_type":"Bearer"}"#;

#[test]
fn what_can_be_made_is_made_and_renewed_in_time() {
    for (kind, prefix, renewed_after) in [
        (APNS, "bearer ", 47 * 60 - 5),
        (WEBPUSH, "vapid t=", 6 * 3600),
        (CONNECTION, "SharedAccessSignature sr=", 50 * 60),
    ] {
        let mut stage = Stage::new(kind);
        assert_eq!(stage.pass(), Err("none".to_string()));
        assert_eq!(stage.step(), "made");
        let first = stage.authorization();
        assert!(first.starts_with(prefix), "{first}");
        assert_eq!(stage.step(), format!("rest {renewed_after}"));
        stage.later(renewed_after - 1);
        assert_eq!(
            (stage.step().as_str(), stage.authorization()),
            ("rest 1", first.clone())
        );
        stage.later(1);
        assert_eq!(stage.step(), "made");
        assert_ne!(stage.authorization(), first);
    }
}

#[test]
fn a_certificate_needs_no_pass() {
    let mut stage = Stage::new(CERTIFICATE);
    assert_eq!((stage.step().as_str(), stage.pass()), ("rest", Ok(None)));
}

#[test]
fn what_is_granted_is_asked_for_once_and_renewed_in_time() {
    for (kind, authorization) in [(FCM, "Bearer ya29.x"), (ENTRA, "Bearer ya29.x")] {
        let mut stage = Stage::new(kind);
        assert_eq!(stage.step(), "ask");
        assert_eq!(stage.step(), "rest", "one at a time");
        assert_eq!(stage.pass(), Err("none".to_string()));
        assert_eq!(stage.answer("200", &[], GRANTED), "ok");
        assert_eq!(stage.authorization(), authorization);
        assert_eq!(stage.answer("500", &[], ""), "ok", "nobody asked");
        assert_eq!(stage.step(), "rest 3300");
        stage.later(3300);
        assert_eq!(stage.step(), "ask");
        assert_eq!(stage.authorization(), authorization, "the old one serves");
    }
}

#[test]
fn while_none_is_granted_the_old_one_serves_until_it_ends() {
    let mut stage = Stage::new(FCM);
    stage.step();
    stage.answer("200", &[], GRANTED);
    stage.later(3300);
    for wait in [1..=2, 2..=4, 4..=8, 8..=16] {
        assert_eq!(stage.step(), "ask");
        assert_eq!(stage.answer("503", &[], ""), "Retry");
        assert_eq!(stage.authorization(), "Bearer ya29.x");
        let rest = stage.step();
        let seconds: u64 = rest
            .strip_prefix("rest ")
            .expect("a rest")
            .parse()
            .expect("seconds");
        assert!(wait.contains(&seconds), "{seconds} in {wait:?}");
        stage.later(seconds + 1);
    }
    stage.later(300);
    assert_eq!(stage.pass(), Err("Retry".to_string()));
    assert_eq!(stage.step(), "ask");
    assert_eq!(stage.answer("200", &[], GRANTED), "ok");
    assert_eq!(stage.step(), "rest 3300");
    stage.later(3300);
    stage.step();
    stage.answer("503", &[], "");
    assert!(
        ["rest 1", "rest 2"].contains(&stage.step().as_str()),
        "from the start"
    );
}

#[test]
fn each_failure_has_its_wait() {
    let hint = [("retry-after", "90")];
    let mut stage = Stage::new(FCM);
    stage.step();
    let refused = r#"{"error":"invalid_grant"}"#;
    assert_eq!(stage.answer("400", &[], refused), "AuthBroken");
    assert_eq!(stage.pass(), Err("AuthBroken".to_string()));
    assert_eq!(stage.step(), "rest 60");
    stage.later(60);
    assert_eq!(stage.step(), "ask");
    assert_eq!(stage.answer("429", &hint, ""), "RetryAfter(90) for the app");
    assert_eq!(stage.step(), "rest 90");
    stage.later(90);
    assert_eq!(stage.step(), "ask");
    assert_eq!(stage.lose(Lost::NotConnected), "NeverSent, reconnect");
    stage.later(300);
    assert_eq!(stage.step(), "ask");
    assert_eq!(stage.lose(Lost::Silent), "Unknown");

    let mut stage = Stage::new(ENTRA);
    stage.step();
    assert_eq!(stage.answer("401", &[], ""), "AuthBroken");
    stage.later(60);
    stage.step();
    assert_eq!(stage.answer("503", &hint, ""), "RetryAfter(90) for the app");
}

#[test]
fn a_pass_that_was_refused_is_replaced_once_however_many_say_so() {
    let mut stage = Stage::new(FCM);
    stage.step();
    stage.answer("200", &[], GRANTED);
    let used = stage.pass().expect("there").expect("a pass");
    stage.later(100);
    stage.remedy(Remedy::RenewPass, &used);
    assert_eq!(stage.pass(), Err("none".to_string()));
    assert_eq!(stage.step(), "ask");
    let newer = GRANTED.replace("ya29.x", "ya29.y");
    assert_eq!(stage.answer("200", &[], &newer), "ok");
    stage.remedy(Remedy::RenewPass, &used);
    stage.remedy(Remedy::Alert, &other_pass());
    assert_eq!(stage.authorization(), "Bearer ya29.y");
    let newest = stage.pass().expect("there").expect("a pass");
    stage.remedy(Remedy::RenewPass, &newest);
    assert_eq!(
        stage.step(),
        "rest 10",
        "a service that refuses all is not flooded"
    );
}

#[test]
fn apple_gets_no_two_passes_within_twenty_minutes() {
    let mut stage = Stage::new(APNS);
    stage.step();
    let used = stage.pass().expect("there").expect("a pass");
    stage.later(60);
    stage.remedy(Remedy::RenewPassAndReconnect, &used);
    assert_eq!(stage.step(), "rest 1140");
    stage.later(1140);
    assert_eq!(stage.step(), "made");
}

#[test]
fn in_quarantine_the_pass_stays_and_none_is_made_across_a_restart_too() {
    let mut stage = Stage::new(APNS);
    stage.step();
    let used = stage.pass().expect("there").expect("a pass");
    stage.later(46 * 60);
    stage.remedy(Remedy::KeepPass, &used);
    assert_eq!(stage.step(), "rest 1200");
    let mut stage = stage.restarted();
    assert_eq!(stage.authorization(), used.authorization);
    stage.later(1000);
    assert_eq!(stage.pass(), Err("none".to_string()), "it has ended");
    assert_eq!(stage.step(), "rest 200");
    let mut stage = stage.restarted();
    assert_eq!(stage.step(), "rest 200");
    stage.later(200);
    assert_eq!(stage.step(), "made");
}

#[test]
fn a_restart_makes_no_new_pass_while_the_old_one_is_good() {
    for kind in [APNS, WEBPUSH, CONNECTION] {
        let mut stage = Stage::new(kind);
        stage.step();
        stage.later(600);
        let first = stage.authorization();
        let rest = stage.step();
        let mut stage = stage.restarted();
        assert_eq!((stage.authorization(), stage.step()), (first, rest));
    }
}

#[test]
fn what_was_kept_shows_nothing_and_serves_nobody_else() {
    let mut stage = Stage::new(APNS);
    stage.step();
    let (keeper, dice) = (&stage.keeper, &mut stage.dice);
    let kept = keeper.keep(&stage.credential, dice).expect("text");
    let token = stage.authorization();
    assert!(!kept.contains(&token) && !format!("{:?}", stage.keeper).contains(&token));
    let inside = data_encoding::BASE64
        .decode(kept.as_bytes())
        .expect("base64");
    assert!(!String::from_utf8_lossy(&inside).contains("bearer"));

    let restored = |credential: &Credential, kept: &str, now: Now| {
        let keeper = PassKeeper::restore(credential, None, kept, now);
        keeper.pass(credential, now).is_ok()
    };
    assert!(restored(&stage.credential, &kept, stage.now));
    assert!(!restored(&stage.credential, "tiger", stage.now));
    let other = with(all().swap_remove(APNS), json!({"team_id": "DEF123GHIK"}));
    let other = parse(&other).expect("a credential");
    assert!(!restored(&other, &kept, stage.now));
    let before = Now {
        unix_ms: stage.now.unix_ms - 301_000,
        ..stage.now
    };
    assert!(
        !restored(&stage.credential, &kept, before),
        "another clock's"
    );
    let about = Some("https://push.example".to_string());
    let elsewhere = PassKeeper::restore(&stage.credential, about, &kept, stage.now);
    assert!(elsewhere.pass(&stage.credential, stage.now).is_err());
}
