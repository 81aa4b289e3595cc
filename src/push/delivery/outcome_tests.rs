//! One row for each outcome of the model, and its bounds.

use super::*;
use crate::push::delivery::jobs::{DeliveryTarget, LaneName, Way};
use crate::push::delivery::kit::{self, NOW_MS};
use crate::push::devices::token::Service;

fn delivery() -> Delivery {
    let device = kit::device("d", "00ab");
    Delivery {
        id: 7,
        lane: LaneName {
            app_id: "a".into(),
            way: Way::Device(Service::Apns),
        },
        notification: "n".into(),
        target: DeliveryTarget::Device(Some(Box::new(device))),
        priority: 1,
        attempts: 2,
        uncertain: 1,
        tried_ms: Some(NOW_MS - 5_000),
    }
}

fn case(delivery: &Delivery) -> Case<'_> {
    Case {
        delivery,
        on_unknown: OnUnknown::Retry,
        expires_ms: None,
        patience: Patience {
            answer: Duration::from_secs(20),
            first_retry: Duration::from_secs(10),
            give_up: Duration::from_secs(3600),
        },
        asked_ms: NOW_MS - 100,
        retires: true,
    }
}

/// A report in a line: attempts, uncertain, what became of it, what is said of the token.
fn shown(next: &Next) -> String {
    let Next::Report(report) = next else {
        return "at once".to_string();
    };
    let end = match &report.end {
        DeliveryEnd::Settled {
            state,
            reason,
            provider_id,
        } => {
            let words = [reason.as_deref(), provider_id.as_deref()];
            let words: Vec<&str> = words.into_iter().flatten().collect();
            format!("{} {}", state.word(), words.join(" "))
        }
        DeliveryEnd::Again { due_ms, .. } => match due_ms - NOW_MS {
            0 => "again now".to_string(),
            40_000..=60_000 => "again soon".to_string(),
            100_000..=126_000 => "again when told".to_string(),
            127_000..=240_000 => "again later".to_string(),
            other => format!("again {other}"),
        },
    };
    let news = report.news.as_ref().map(|news| match news.kind {
        TokenNewsKind::Accepted => "good".to_string(),
        TokenNewsKind::Dead { since_ms } => format!("dead {since_ms:?}"),
        TokenNewsKind::Suspect { limit } => format!("suspect {limit:?}"),
        TokenNewsKind::Unreadable => "unreadable".to_string(),
    });
    let (attempts, uncertain) = (report.attempts, report.uncertain);
    format!(
        "{attempts} {uncertain} {} {}",
        end.trim(),
        news.unwrap_or("-".into())
    )
}

fn row(case: &Case<'_>, verdict: Verdict) -> String {
    let ruling = Ruling::new(verdict, "why");
    shown(&after(case, &ruling, &mut Dice::new([3; 16]), kit::at(0)))
}

#[test]
fn each_outcome_is_followed_as_the_model_says() {
    let (app, wait) = (Scope::App, Duration::from_secs(100));
    let of = |scope| Verdict::RetryAfter { wait, scope };
    let id = Some("x".to_string());
    #[rustfmt::skip]
    let table = [
        // outcome                                      | attempts, uncertain, end, token
        (Verdict::Accepted { id },                        "3 1 accepted x good"),
        (Verdict::TokenDead { since_unix_ms: Some(5) },   "3 1 failed why dead Some(5)"),
        (Verdict::TokenDead { since_unix_ms: None },      "3 1 failed why dead None"),
        (Verdict::TokenSuspect,                           "3 1 failed why suspect Some(3)"),
        (Verdict::BadRequest,                             "3 1 failed why -"),
        (Verdict::AuthBroken { scope: app },              "2 1 again now -"),
        (Verdict::AuthBroken { scope: Scope::Leg },       "2 1 again later -"),
        (of(Scope::Token),                                "3 1 again when told -"),
        (of(app),                                         "3 1 again when told -"),
        (Verdict::Retry,                                  "3 1 again soon -"),
        (Verdict::NeverSent,                              "at once"),
        (Verdict::Unknown,                                "3 2 again soon -"),
    ];
    let delivery = delivery();
    let (verdicts, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    let rows = verdicts.iter().map(|it| row(&case(&delivery), it.clone()));
    assert_eq!(rows.collect::<Vec<_>>(), expected, "{verdicts:?}");
}

#[test]
fn what_must_not_come_twice_fails_when_nobody_knows() {
    let delivery = delivery();
    let case = Case {
        on_unknown: OnUnknown::Fail,
        ..case(&delivery)
    };
    let expected = format!("3 2 failed {UNCERTAIN} -");
    assert_eq!(row(&case, Verdict::Unknown), expected);
    assert_eq!(row(&case, Verdict::Retry), "3 1 again soon -");
}

#[test]
fn no_token_is_ended_for_being_suspect_while_the_guard_stops_that() {
    let delivery = delivery();
    let case = Case {
        retires: false,
        ..case(&delivery)
    };
    let dead = |since_unix_ms| Verdict::TokenDead { since_unix_ms };
    assert_eq!(
        row(&case, Verdict::TokenSuspect),
        "3 1 failed why suspect None"
    );
    assert_eq!(row(&case, dead(None)), "3 1 failed why -");
    assert_eq!(row(&case, dead(Some(5))), "3 1 failed why dead Some(5)");
}

#[test]
fn nothing_is_tried_for_longer_than_it_lives_or_its_provider_is_borne() {
    let mut delivery = delivery();
    let expiring = Case {
        expires_ms: Some(NOW_MS + 30_000),
        ..case(&delivery)
    };
    assert_eq!(row(&expiring, Verdict::Retry), "3 1 expired why -");
    delivery.attempts = ATTEMPTS_MAX - 1;
    assert_eq!(row(&case(&delivery), Verdict::Retry), "25 1 failed why -");
    delivery.attempts = 2;
    delivery.tried_ms = Some(NOW_MS - 3_590_000);
    assert_eq!(row(&case(&delivery), Verdict::Retry), "3 1 failed why -");
    delivery.tried_ms = None;
    assert_eq!(row(&case(&delivery), Verdict::Retry), "3 1 again soon -");
}

#[test]
fn what_no_request_can_be_made_of_is_settled() {
    let delivery = delivery();
    let end = |why| unfit(&delivery, &why).end;
    let expired = DeliveryEnd::Settled {
        state: Settlement::Expired,
        reason: Some("it has expired".to_string()),
        provider_id: None,
    };
    assert_eq!(end(Unfit::Expired), expired);
    assert!(matches!(
        end(Unfit::NoDryRun),
        DeliveryEnd::Settled {
            state: Settlement::Failed,
            ..
        }
    ));
}
