//! What a backend asks for, and what a client says of its device: it is read or refused. What is taken
//! of a notification is kept and read again as the same, and every provider has either a request for it
//! or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::base::dice::Dice;
use lineman::base::limits::Limits;
use lineman::base::now::Now;
use lineman::push::devices::registration::{DeviceBounds, Registration};
use lineman::push::notify::request::{Request, canonical, read_acknowledging_user};
use lineman::push::notify::spec::Spec;
use lineman::push::providers::address::Address;
use lineman::push::providers::apns::{Apns, ApnsAuth};
use lineman::push::providers::azure::Hub;
use lineman::push::providers::fcm::Fcm;
use lineman::push::providers::provider::{Pass, Provider};
use lineman::push::providers::webpush::WebPush;

const ID: &str = "8f14e45f-ceea-467f-9538-1f0a6f0b1c2d";
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn send(spec: &Spec, now: Now) {
    let note = spec.note_for(None, ID.to_string());
    let origin = "https://a.example".to_string();
    let apns = Apns {
        origin: origin.clone(),
        bundle: "org.example.app".to_string(),
        auth: ApnsAuth::Token,
    };
    let fcm = Fcm {
        origin: origin.clone(),
        project: "p".to_string(),
    };
    let hub = Hub {
        origin,
        name: "h".to_string(),
        bundle: None,
    };
    let iphone = Address::apns("00ff").expect("a token");
    let android = Address::fcm_token("token").expect("a token");
    let browser = Address::web_push("https://a.example/x", P256DH, AUTH).expect("a subscription");
    let web = WebPush { pad_to: 0 };
    let ways: [(&dyn Provider, &Address); 6] = [
        (&apns, &iphone),
        (&fcm, &android),
        (&web, &browser),
        (&hub, &iphone),
        (&hub, &android),
        (&hub, &browser),
    ];
    let pass = Pass {
        authorization: "bearer pass".to_string(),
        renew_at: i64::MAX,
        ends_at: i64::MAX,
    };
    for (provider, address) in ways {
        let dice = &mut Dice::new([7; 16]);
        if let Ok(request) = provider.request(&note, address, Some(&pass), now, dice) {
            assert!(request.body.len() <= 1 << 20);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let now = Now {
        unix_ms: 1_767_225_600_000,
        ..Now::default()
    };
    let _ = read_acknowledging_user(data);
    let _ = canonical(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Registration::read(text, &DeviceBounds::default(), now);
    }
    let Ok(request) = Request::read(data, None, &Limits::default(), now) else {
        return;
    };
    let kept = serde_json::to_string(&request.spec).expect("it can be kept");
    let again: Spec = serde_json::from_str(&kept).expect("what is kept is read");
    assert_eq!(again, request.spec);
    send(&request.spec, now);
});
