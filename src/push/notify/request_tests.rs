//! What backends send, taken and refused.

use super::*;

const NOW_MS: u64 = 1_800_000_000_500;

fn read(body: &str) -> Result<Request, Fault> {
    let now = Now {
        unix_ms: NOW_MS,
        ..Now::default()
    };
    Request::read(body.as_bytes(), None, &Limits::default(), now)
}

fn with(rest: &str) -> Result<Request, Fault> {
    read(&format!(
        r#"{{"to":{{"users":["u"]}},"note":{{"title":"t"}}{rest}}}"#
    ))
}

fn to(to: &str) -> Result<Request, Fault> {
    read(&format!(r#"{{"to":{to},"note":{{"title":"t"}}}}"#))
}

#[test]
fn little_has_to_be_said() {
    let request = with("").expect("a request");
    assert_eq!(request.spec.deliver, Deliver::Reach);
    assert_eq!(request.spec.ack_ms, 10_000);
    assert_eq!(request.send_at_ms, NOW_MS);
    assert_eq!((request.expires_ms, request.idempotency_key), (None, None));
}

#[test]
fn all_that_can_be_said_is_understood() {
    let request = with(
        r#","event":{"name":"n","data":{"a":1}},"locales":{"de_AT":{"title":"T"}},
        "deliver":"both","ack_timeout":2.5,"delay":60,"expires":1800000100,
        "quiet":{"from":"22:00","to":"07:00"},"priority":"low","collapse":"c",
        "on_unknown":"fail","idempotency_key":"k""#,
    );
    let request = request.expect("a request");
    let spec = &request.spec;
    assert_eq!((spec.deliver, spec.ack_ms), (Deliver::Both, 2_500));
    assert_eq!(request.send_at_ms, NOW_MS + 60_000);
    assert_eq!(request.expires_ms, Some(1_800_000_100_000));
    assert_eq!(spec.note.expires, Some(1_800_000_100));
    assert_eq!(spec.note.priority, Priority::Low);
    assert_eq!(spec.note.collapse.as_deref(), Some("c"));
    assert_eq!(spec.on_unknown, OnUnknown::Fail);
    assert!(spec.locales.contains_key("de-at"));
    assert_eq!(request.idempotency_key.as_deref(), Some("k"));
}

#[test]
fn everybody_who_can_be_named_is() {
    let all = r#"{"users":["u","u","v"],"devices":["d"],"topics":["t"],"channels":["c"],
        "platform":"ios","area":{"type":"Circle","latitude":1,"longitude":2,"radius_metres":9},
        "fcm_topic":"f","fcm_condition":"'a' in topics","apns_channel":"YQ=="}"#;
    let spec = to(all).expect("a request").spec;
    assert_eq!(spec.to.users, ["u", "v"]);
    assert_eq!(spec.to.steps().len(), 2, "platform and area narrow them");
    assert_eq!(spec.to.addresses()[0], r#"{"fcm_topic":"f"}"#);
    let spec = to(r#"{"platform":"web"}"#).expect("a request").spec;
    assert_eq!(spec.to.steps(), [crate::push::notify::spec::Step::All]);
}

#[test]
fn a_dry_run_is_seen_by_nobody() {
    let spec = with(r#","dry_run":true"#).expect("a request").spec;
    assert!(spec.note.dry_run && !spec.deliver.is_live());
}

#[test]
fn an_event_alone_needs_no_note() {
    let body = r#"{"to":{"channels":["c"]},"event":{"name":"n"},"deliver":"live"}"#;
    assert!(read(body).is_ok());
    assert!(read(&body.replace("live", "reach")).is_err());
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let long = format!(
        r#","event":{{"name":"n","data":{{"a":"{}"}}}}"#,
        "x".repeat(11_000)
    );
    let rests = [
        (r#","too":1"#, "unknown field `too`"),
        (r#","deliver":"fax""#, "deliver: unknown variant `fax`"),
        (r#","ack_timeout":0.5"#, "ack_timeout is not between"),
        (r#","ack_timeout":"a""#, "ack_timeout: invalid type"),
        (r#","send_at":1,"delay":1"#, "delay: send_at says"),
        (r#","send_at":1800000000000"#, "send_at is more than"),
        (r#","delay":99999999"#, "delay is more than"),
        (r#","expires":1800000000"#, "expires is over"),
        (r#","delay":60,"expires":1800000060"#, "expires is over"),
        (
            r#","quiet":{"from":"25:00","to":"07:00"}"#,
            "quiet: a time of day",
        ),
        (r#","quiet":{"from":"22:00"}"#, "quiet: missing field `to`"),
        (r#","priority":"very""#, "priority: unknown variant"),
        (r#","collapse":"a b""#, "note: collapse"),
        (r#","on_unknown":"cry""#, "on_unknown: unknown"),
        (r#","locales":{"":{}}"#, "locales: \"\" is no language tag"),
        (
            r#","locales":{"de":{"titel":""}}"#,
            "locales: unknown field `titel`",
        ),
        (
            r#","template":true,"locales":{"de":{"body":"{{x}}"}}"#,
            "locales: {{x}} is not",
        ),
        (r#","event":{"name":"pusher:x"}"#, "event.name"),
        (r#","event":{"data":{}}"#, "event: missing field `name`"),
        (r#","event":{"name":"n","data":[]}"#, "event: invalid type"),
        (
            r#","event":{"name":"n"},"deliver":"push""#,
            "event: nobody is",
        ),
        (r#","idempotency_key":"a b""#, "idempotency_key is not"),
        (&long, "event: its data is longer than 10240"),
    ];
    for (rest, expected) in rests {
        let why = with(rest).expect_err(rest);
        assert!(why.starts_with(expected), "{rest}: {why}");
    }
}

#[test]
fn whom_it_cannot_be_for_is_told_with_its_field() {
    let users = format!(r#"{{"users":{:?}}}"#, vec!["u"; 1_001]);
    let whom = [
        ("{}", "to names nobody"),
        (r#"{"users":[]}"#, "to names nobody"),
        (&*users, "to.users has more than 1000"),
        (r#"{"users":["a b"]}"#, "to.users: \"a b\" cannot"),
        (r#"{"users":"u"}"#, "to: invalid type"),
        (r#"{"platform":"palm"}"#, "to.platform: is none of"),
        (r#"{"area":{"type":"Circle"}}"#, "to.area: this is no area"),
        (r#"{"fcm_topic":"a/b"}"#, "to.fcm_topic: a topic is made"),
        (r#"{"group":"g"}"#, "to: unknown field `group`"),
    ];
    for (whom, expected) in whom {
        let why = to(whom).expect_err(whom);
        assert!(why.starts_with(expected), "{whom}: {why}");
    }
}

#[test]
fn what_does_not_fit_together_is_told() {
    for (body, expected) in [
        (r#"{"note":{"title":"t"}}"#, "to is missing"),
        (r#"{"to":{"users":["u"]}}"#, "note: the note says nothing"),
        (
            r#"{"to":{"users":["u"]},"note":{"titel":"t"}}"#,
            "note: unknown field `titel`",
        ),
        (
            r#"{"to":{"topics":["t"]},"note":{"title":"t"},"deliver":"live"}"#,
            "deliver: devices",
        ),
        (
            r#"{"to":{"channels":["t"]},"note":{"title":"t"},"deliver":"push"}"#,
            "deliver: channels",
        ),
        ("[]", "a JSON object is expected"),
    ] {
        let why = read(body).expect_err(body);
        assert!(why.starts_with(expected), "{body}: {why}");
    }
}

#[test]
fn the_same_request_is_recognised_whatever_its_blanks() {
    assert_eq!(canonical(b"{\"a\": 1}"), canonical(b" {\"a\":1}\n"));
    assert_ne!(canonical(b"{\"a\":1}"), canonical(b"{\"a\":2}"));
}
