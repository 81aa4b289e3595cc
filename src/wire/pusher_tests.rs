//! What SDKs send is understood, and what we write is what they read.

use super::*;
use serde_json::{Value, json};

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("what we write is JSON")
}

#[test]
fn the_frames_of_known_sdks_are_understood() {
    let js = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"room"}}"#;
    let expected = Subscribe {
        channel: "room".into(),
        auth: Some(String::new()),
        channel_data: None,
        recover: None,
    };
    assert_eq!(parse(js), Ok(ClientMessage::Subscribe(expected)));
    assert_eq!(
        parse(r#"{"event": "pusher:ping"}"#),
        Ok(ClientMessage::Ping)
    );
    assert_eq!(
        parse(r#"{"event":"pusher:pong","data":{}}"#),
        Ok(ClientMessage::Pong)
    );
    let wrapped =
        r#"{"event":"pusher:subscribe","data":"{\"channel\":\"private-a\",\"auth\":\"k:s\"}"}"#;
    let Ok(ClientMessage::Subscribe(subscribe)) = parse(wrapped) else {
        panic!("a wrapped subscribe is understood");
    };
    assert_eq!(subscribe.channel, "private-a");
    assert_eq!(subscribe.auth.as_deref(), Some("k:s"));
}

#[test]
fn client_event_data_becomes_a_string_whatever_it_was() {
    let data = |text| match parse(text) {
        Ok(ClientMessage::Event(event)) => event.data.json.into_owned(),
        other => panic!("{other:?}"),
    };
    let object = r#"{"event":"client-x","channel":"private-a","data":{"hello":1}}"#;
    assert_eq!(data(object), r#""{\"hello\":1}""#);
    let string = r#"{"event":"client-x","channel":"private-a","data":"h\u00e9"}"#;
    assert_eq!(data(string), r#""h\u00e9""#);
    assert_eq!(
        data(r#"{"event":"client-x","channel":"private-a"}"#),
        r#""{}""#
    );
}

#[test]
fn what_is_not_understood_says_why() {
    let faults = [
        ("", Malformed::NotJson),
        ("[1]", Malformed::NotJson),
        (r#"["pusher:ping",null,null]"#, Malformed::NotJson),
        ("{\"event\":1}", Malformed::NotJson),
        ("{}", Malformed::Field("event is missing")),
        (r#"{"event":"pusher:nonsense"}"#, Malformed::UnknownEvent),
        (r#"{"event":"other"}"#, Malformed::UnknownEvent),
        (
            r#"{"event":"client-x","data":"\ud800","channel":"private-a"}"#,
            Malformed::NotJson,
        ),
    ];
    for (text, fault) in faults {
        assert_eq!(parse(text), Err(fault), "{text}");
    }
    let lists = r#"{"event":"pusher:subscribe","data":["room","",null]}"#;
    for text in [r#"{"event":"pusher:subscribe"}"#, lists] {
        assert!(matches!(parse(text), Err(Malformed::Field(_))), "{text}");
    }
    assert!(matches!(
        parse(r#"{"event":"client-x"}"#),
        Err(Malformed::Field(_))
    ));
}

#[test]
fn an_introduction_names_the_app() {
    let connect = |app_key: &str, protocol| {
        Ok(Connect {
            app_key: app_key.into(),
            protocol,
        })
    };
    let plain = r#"{"event":"pusher:connect","data":{"app_key":"k","protocol":7}}"#;
    assert_eq!(parse_connect(plain), connect("k", Some(7)));
    let wrapped = r#"{"event":"pusher:connect","data":"{\"app_key\":\"k\"}"}"#;
    assert_eq!(parse_connect(wrapped), connect("k", None));
    assert_eq!(parse_connect("GET / HTTP/1.1"), Err(Malformed::NotJson));
    for text in [
        "{}",
        r#"{"event":"pusher:connect"}"#,
        r#"{"event":"pusher:connect","data":{"app_key":1}}"#,
        r#"{"event":"pusher:ping","data":{"app_key":"k"}}"#,
    ] {
        assert!(
            matches!(parse_connect(text), Err(Malformed::Field(_))),
            "{text}"
        );
    }
}

#[test]
fn channel_data_takes_numbers_and_strings_as_user_id() {
    let read = |text| parse_channel_data(text).map(|data| (data.user_id, data.user_info));
    let own = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    assert_eq!(
        read(r#"{"user_id":10,"user_info":{"a":1}}"#),
        own("10", r#"{"a":1}"#)
    );
    assert_eq!(read(r#"{"user_id":"u"}"#), own("u", "null"));
    for bad in ["", "{}", r#"{"user_id":null}"#, r#"{"user_id":""}"#, "[]"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn user_data_names_a_user_by_text() {
    let read = |text| parse_user_data(text).map(|data| (data.id, data.watchlist.len()));
    assert_eq!(
        read(r#"{"id":"1","watchlist":["2","3"]}"#),
        Some(("1".into(), 2))
    );
    assert_eq!(
        read(r#"{"id":"1","user_info":{"a":1}}"#),
        Some(("1".into(), 0))
    );
    for bad in [
        "",
        "{}",
        r#"{"id":1}"#,
        r#"{"id":"1","watchlist":[2]}"#,
        r#"["1"]"#,
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn a_watchlist_event_leaves_out_what_is_empty() {
    let data = |text: String| value(value(&text)["data"].as_str().expect("a string"));
    assert_eq!(
        data(watchlist_events(&["1", "2"], &["3"])),
        json!({"events": [{"name": "online", "user_ids": ["1", "2"]},
            {"name": "offline", "user_ids": ["3"]}]})
    );
    assert_eq!(
        data(watchlist_events(&[], &["3"])),
        json!({"events": [{"name": "offline", "user_ids": ["3"]}]})
    );
    assert_eq!(
        data(subscription_count("a", 3)),
        json!({"subscription_count": 3})
    );
    assert_eq!(
        data(signin_success("{\"id\":\"1\"}")),
        json!({"user_data": "{\"id\":\"1\"}"})
    );
}

#[test]
fn data_is_a_string_everywhere_except_in_errors() {
    let id = SocketId::from_halves(123, 456);
    let hello = value(&connection_established(id, 120));
    let data = value(hello["data"].as_str().expect("a string"));
    assert_eq!(
        data,
        json!({"socket_id": "123.456", "activity_timeout": 120})
    );
    assert_eq!(
        value(&error(Some(4301), "a \"b\"")),
        json!({"event": "pusher:error", "data": {"code": 4301, "message": "a \"b\""}})
    );
    assert_eq!(value(&error(None, "x"))["data"]["code"], Value::Null);
    let members = [
        Member {
            user_id: "1",
            user_info: r#"{"n":"A"}"#,
        },
        Member {
            user_id: "2",
            user_info: "null",
        },
    ];
    let success = value(&presence_succeeded("presence-a", members.iter().copied()));
    assert_eq!(
        value(success["data"].as_str().expect("a string")),
        json!({"presence": {"ids": ["1", "2"], "hash": {"1": {"n": "A"}, "2": null}, "count": 2}})
    );
    let added = value(&member_added("presence-a", members[0]));
    assert_eq!(
        value(added["data"].as_str().expect("a string")),
        json!({"user_id": "1", "user_info": {"n": "A"}})
    );
    for text in subscription_errors("private-a", "AuthError", "no", 401) {
        let data = value(value(&text)["data"].as_str().expect("a string"));
        assert_eq!(
            data,
            json!({"type": "AuthError", "error": "no", "status": 401})
        );
    }
    let published = value(&event("a", "\"e\"", "\"d\"", Some("u\"1")));
    assert_eq!(
        published,
        json!({"event": "e", "channel": "a", "data": "d", "user_id": "u\"1"})
    );
}
