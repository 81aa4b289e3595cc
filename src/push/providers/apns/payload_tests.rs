//! What a device gets, note by note.

use super::*;
use crate::push::providers::kit::{NOW, note, now};

fn made(json: &str) -> Result<Value, Unfit> {
    let note = note(json);
    let push_type = PushType::of(&note)?;
    let bytes = payload(&note, push_type, now(), 4096)?;
    Ok(serde_json::from_slice(&bytes).expect("JSON"))
}

fn read(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn every_field_has_its_place() {
    let table = [
        (
            r#"{"title":"t","subtitle":"s","body":"b"}"#,
            r#"{"aps":{"alert":{"title":"t","subtitle":"s","body":"b"}}}"#,
        ),
        (r#"{"badge":0}"#, r#"{"aps":{"badge":0}}"#),
        (
            r#"{"sound":"default","thread":"x","category":"y"}"#,
            r#"{"aps":{"sound":"default","thread-id":"x","category":"y"}}"#,
        ),
        (
            r#"{"body":"b","image":"https://a/b.png","link":"https://a/"}"#,
            r#"{"aps":{"alert":{"body":"b"},"mutable-content":1},
                "image":"https://a/b.png","link":"https://a/"}"#,
        ),
        (
            r#"{"body":"b","data":{"a":{"b":[1,null]}}}"#,
            r#"{"aps":{"alert":{"body":"b"}},"a":{"b":[1,null]}}"#,
        ),
        (
            r#"{"silent":true,"data":{"a":1}}"#,
            r#"{"aps":{"content-available":1},"a":1}"#,
        ),
        (
            r#"{"data":{"a":1}}"#,
            r#"{"aps":{"content-available":1},"a":1}"#,
        ),
        (
            r#"{"body":"b","apns":{"interruption_level":"time-sensitive","relevance_score":0.5,
                "mutable_content":true}}"#,
            r#"{"aps":{"alert":{"body":"b"},"mutable-content":1,
                "interruption-level":"time-sensitive","relevance-score":0.5}}"#,
        ),
        (
            r#"{"body":"b","apns":{"payload":{"aps":{"sound":{"critical":1,"name":"a","volume":1.0},
                "alert":{"loc-key":"K","loc-args":["x"],"body":null},"filter-criteria":"f",
                "target-content-id":"t"},"x":1}}}"#,
            r#"{"aps":{"sound":{"critical":1,"name":"a","volume":1.0},"filter-criteria":"f",
                "target-content-id":"t","alert":{"loc-key":"K","loc-args":["x"]}},"x":1}"#,
        ),
        (
            r#"{"apns":{"push_type":"mdm","payload":{"mdm":"magic"}}}"#,
            r#"{"mdm":"magic"}"#,
        ),
    ];
    for (note, expected) in table {
        assert_eq!(made(note), Ok(read(expected)), "{note}");
    }
}

#[test]
fn a_live_activity_starts_goes_on_and_ends() {
    let start = made(
        r#"{"title":"t","apns":{"live_activity":{"event":"start","content_state":{"score":1},
            "attributes_type":"Game","attributes":{"home":"a"},"stale_date":1700000100,
            "input_push_token":true}}}"#,
    );
    let expected = json!({"aps": {
        "alert": {"title": "t"}, "timestamp": NOW, "event": "start", "content-state": {"score": 1},
        "attributes-type": "Game", "attributes": {"home": "a"}, "stale-date": 1_700_000_100,
        "input-push-token": 1,
    }});
    assert_eq!(start, Ok(expected));
    let end = made(
        r#"{"apns":{"relevance_score":75.0,"live_activity":{"event":"end","content_state":{},
            "dismissal_date":1700000200}}}"#,
    );
    let expected = json!({"aps": {
        "timestamp": NOW, "event": "end", "content-state": {}, "dismissal-date": 1_700_000_200,
        "relevance-score": 75.0,
    }});
    assert_eq!(end, Ok(expected));
    let listens = made(
        r#"{"title":"t","apns":{"live_activity":{"event":"start","content_state":{},
            "attributes_type":"Game","attributes":{},"input_push_channel":"dHN0"}}}"#,
    );
    assert_eq!(listens.expect("JSON")["aps"]["input-push-channel"], "dHN0");
}

#[test]
fn what_apple_would_drop_is_refused() {
    let table = [
        (
            r#"{"body":"b","data":{"aps":{}}}"#,
            "data has a key aps, which is Apple's",
        ),
        (
            r#"{"body":"b","apns":{"push_type":"background"}}"#,
            "a background push has neither title, body, badge nor sound",
        ),
        (
            r#"{"body":"b","apns":{"interruption_level":"loud"}}"#,
            "apns.interruption_level is none of passive, active, time-sensitive, critical",
        ),
        (
            r#"{"apns":{"live_activity":{"event":"start","content_state":{}}}}"#,
            "a Live Activity starts with a title or body, attributes_type and attributes",
        ),
        (
            r#"{"apns":{"live_activity":{"event":"update","content_state":{},"input_push_token":true}}}"#,
            "input_push_token and input_push_channel belong to the start of a Live Activity",
        ),
        (
            r#"{"apns":{"live_activity":{"event":"end","content_state":{},"input_push_channel":"a"}}}"#,
            "input_push_token and input_push_channel belong to the start of a Live Activity",
        ),
        (
            r#"{"title":"t","apns":{"live_activity":{"event":"start","content_state":{},
                "attributes_type":"A","attributes":{},"input_push_token":true,
                "input_push_channel":"a"}}}"#,
            "a Live Activity has a token of its own or listens to a channel, not both",
        ),
    ];
    for (note, why) in table {
        assert_eq!(made(note), Err(Unfit::Note(why.to_string())), "{note}");
    }
}

#[test]
fn the_bytes_that_are_sent_are_counted() {
    let fits = note(r#"{"body":"ä\"a"}"#);
    let count = |limit| payload(&fits, PushType::Alert, now(), limit).map(|bytes| bytes.len());
    let bytes = r#"{"aps":{"alert":{"body":"ä\"a"}}}"#.len();
    assert_eq!(count(bytes), Ok(bytes));
    let limit = bytes - 1;
    assert_eq!(count(limit), Err(Unfit::TooLarge { bytes, limit }));
}
