//! What is made of a provider's answer: a ruling that can be shown and kept, whatever stands in it. Two
//! bytes of status, then fields, one a line, an empty line, and the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::base::now::Now;
use lineman::push::providers::apns::channels::{ChannelCall, Channels};
use lineman::push::providers::apns::{Apns, ApnsAuth};
use lineman::push::providers::azure::Hub;
use lineman::push::providers::fcm::{Fcm, account, topics};
use lineman::push::providers::provider::{Answer, Provider, for_all};
use lineman::push::providers::verdict::{Ruling, Verdict, WAIT_MAX};
use lineman::push::providers::webpush::WebPush;

const REASON_BYTES: usize = 60;
const ID_BYTES: usize = 200;

fn check(ruling: &Ruling) {
    let reason = &ruling.reason;
    let is_shown = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    assert!(reason.len() <= REASON_BYTES && reason.bytes().all(is_shown), "{reason:?}");
    match &ruling.verdict {
        Verdict::Accepted { id: Some(id) } => {
            assert!(id.len() <= ID_BYTES && id.bytes().all(|it| it.is_ascii_graphic()), "{id:?}");
        }
        Verdict::RetryAfter { wait, .. } => assert!(*wait <= WAIT_MAX, "{wait:?}"),
        _ => {}
    }
    assert_eq!(ruling.clone().repeated().repeated(), ruling.clone().repeated());
}

fn check_all(answer: &Answer<'_>, now: Now) {
    let (origin, bundle) = ("https://a.example".to_string(), "org.example.app".to_string());
    let auth = ApnsAuth::Token;
    let apns = Apns {
        origin: origin.clone(),
        bundle: bundle.clone(),
        auth,
    };
    let fcm = Fcm {
        origin: origin.clone(),
        project: "p".to_string(),
    };
    let hub = Hub {
        origin: origin.clone(),
        name: "h".to_string(),
        bundle: None,
    };
    let providers: [&dyn Provider; 4] = [&apns, &fcm, &WebPush { pad_to: 0 }, &hub];
    for provider in providers {
        let ruling = provider.ruling(answer, now);
        check(&ruling);
        let is_success = (200..300).contains(&answer.status);
        let is_accepted = matches!(ruling.verdict, Verdict::Accepted { .. });
        assert!(is_success || !is_accepted, "{} is no success", answer.status);
        assert_eq!(for_all(ruling.clone(), 1), Some(ruling.clone()));
        assert!(for_all(ruling.clone(), 9).is_none_or(|it| it == ruling));
    }
    let channels = Channels {
        origin,
        bundle,
        auth,
    };
    let calls = [
        ChannelCall::Create { stores: true },
        ChannelCall::Read("c".to_string()),
        ChannelCall::Delete("c".to_string()),
        ChannelCall::List,
    ];
    for call in &calls {
        let _ = channels.done(call, answer, now).map_err(|it| check(&it));
    }
    match topics::done(answer, 2, now) {
        Ok(rulings) => {
            assert_eq!(rulings.len(), 2);
            rulings.iter().for_each(check);
        }
        Err(ruling) => check(&ruling),
    }
    match account::granted(answer, now) {
        Ok(pass) => {
            assert!(now.unix_seconds() <= pass.renew_at && pass.renew_at <= pass.ends_at);
            assert!(pass.authorization.bytes().all(|it| it == b' ' || it.is_ascii_graphic()));
        }
        Err(ruling) => check(&ruling),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((status, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let status = 100 + u16::from_le_bytes(*status) % 500;
    let end = rest.windows(2).position(|two| two == b"\n\n");
    let (head, body) = rest.split_at(end.unwrap_or(rest.len()));
    let head = std::str::from_utf8(head).unwrap_or_default();
    let fields: Vec<(&str, &str)> = head.lines().filter_map(|it| it.split_once(": ")).collect();
    let answer = Answer {
        status,
        fields: &fields,
        body: body.get(2..).unwrap_or_default(),
    };
    let now = Now {
        unix_ms: 1_767_225_600_000,
        ..Now::default()
    };
    check_all(&answer, now);
});
