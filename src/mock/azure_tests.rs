//! What Notification Hubs, Key Vault and the givers of tokens take and refuse.

use super::*;
use crate::mock::Mock;
use crate::mock::kit::{asked, at, caller, json_of, mock, reply};

/// Made by Microsoft's SDK for this key and this address.
const SIGNATURE: &str = "SharedAccessSignature sr=https%3A%2F%2Flocalhost%3A8443%2F&\
    sig=XL2ln2iWUc0Y6DiTXqsdP%2BX3SlZetz9EMDdrO%2BrUfWU%3D&se=1795370571&\
    skn=DefaultFullSharedAccessSignature";
/// When it is good: the kit's clock stands later.
const EARLIER: i64 = 1_795_370_000 - crate::mock::kit::NOW;

fn open(rules: &[&str]) -> Mock {
    let secrets = BTreeMap::from([("key".to_string(), "value".to_string())]);
    let options = AzureOptions {
        hub: Some("hub".to_string()),
        key_name: "DefaultFullSharedAccessSignature".to_string(),
        key: "YWJjZA==".to_string(),
        vault: VaultOptions {
            secrets,
            client: Some(("id".to_string(), "secret".to_string())),
        },
    };
    mock(Azure::new(options), rules)
}

fn call(mock: &mut Mock, method: &str, target: &str, more: &[(&str, &str)], body: &str) -> Reply {
    let mut fields = vec![("authorization", SIGNATURE)];
    if more.iter().any(|(name, _)| *name == "authorization") {
        fields.clear();
    }
    fields.extend(more);
    let mut asked = asked(method, target, &fields, body);
    asked.authority = "localhost:8443".to_string();
    match mock.hear(caller(1), &asked, at(EARLIER)).act {
        crate::mock::Act::Answer(reply, None) => reply,
        other => panic!("{other:?}"),
    }
}

const APPLE: (&str, &str) = ("servicebusnotification-format", "apple");
const HANDLE: (&str, &str) = ("servicebusnotification-devicehandle", "aa");
const DIRECT: &str = "/hub/messages/?api-version=2020-06&direct=true";

#[test]
fn a_signature_of_microsofts_sdk_is_good_until_it_ends() {
    let mut mock = open(&[]);
    let sent = call(&mut mock, "POST", DIRECT, &[APPLE, HANDLE], "{}");
    assert_eq!(sent.status, 201);
    let location = sent.value("location").expect("a location");
    assert!(
        location.starts_with("https://localhost:8443/hub/messages/"),
        "{location}"
    );
    let late = asked(
        "POST",
        DIRECT,
        &[("authorization", SIGNATURE), APPLE, HANDLE],
        "{}",
    );
    assert_eq!(reply(&mut mock, &late).status, 401);
    for (from, to) in [
        ("sig=XL2", "sig=XL3"),
        ("skn=Default", "skn=Other"),
        ("se=1795370571", "se=1795370572"),
        ("8443%2F", "8443%2Fother"),
        ("SharedAccessSignature ", "Bearer "),
    ] {
        let changed = SIGNATURE.replacen(from, to, 1);
        let fields = [("authorization", &*changed), APPLE, HANDLE];
        assert_eq!(
            call(&mut mock, "POST", DIRECT, &fields, "{}").status,
            401,
            "{to}"
        );
    }
}

#[test]
fn notifications_are_sent_in_four_ways() {
    let mut mock = open(&[]);
    let mut status = |target: &str, fields: &[(&str, &str)], body: &str| {
        call(&mut mock, "POST", target, fields, body).status
    };
    assert_eq!(status(DIRECT, &[APPLE], "{}"), 400);
    assert_eq!(status(DIRECT, &[HANDLE], "{}"), 400);
    assert_eq!(
        status(
            DIRECT,
            &[("servicebusnotification-format", "gcm"), HANDLE],
            "{}"
        ),
        400
    );
    assert_eq!(status(DIRECT, &[APPLE, HANDLE], &"x".repeat(65_537)), 413);
    let tags = ("servicebusnotification-tags", "a && b");
    assert_eq!(
        status("/hub/messages/?api-version=2020-06", &[APPLE, tags], "{}"),
        201
    );
    assert_eq!(status("/other/messages", &[APPLE, tags], "{}"), 404);
    let scheduled = "/hub/schedulednotifications/?api-version=2020-06";
    assert_eq!(status(scheduled, &[APPLE], "{}"), 400);
    let time = ("servicebusnotification-scheduletime", "2027-01-01T00:00:00");
    assert_eq!(status(scheduled, &[APPLE, time], "{}"), 201);
    let batch = |devices: &str| {
        format!(
            "--b\r\nContent-Disposition: inline; name=notification\r\n\r\n{{}}\r\n\
             --b\r\nContent-Disposition: inline; name=devices\r\n\r\n{devices}\r\n--b--"
        )
    };
    for media in [
        "multipart/mixed; boundary=b",
        "multipart/mixed; boundary = \"b\"",
    ] {
        let fields = [APPLE, ("content-type", media)];
        let mut send =
            |devices: &str| status("/hub/messages/$batch?direct=true", &fields, &batch(devices));
        assert_eq!(send(r#"["a","b"]"#), 201);
        assert_eq!(send("[]"), 400);
        assert_eq!(send(&json!(vec!["a"; 1001]).to_string()), 400);
        assert_eq!(send("no list"), 400);
    }
}

#[test]
fn installations_are_kept() {
    let mut mock = open(&[]);
    let path = "/hub/installations/i1?api-version=2020-06";
    let mut status = |method, body| call(&mut mock, method, path, &[], body).status;
    assert_eq!((status("GET", ""), status("PATCH", "[]")), (404, 404));
    assert_eq!(
        (status("PUT", "no object"), status("PUT", "{}")),
        (400, 200)
    );
    assert_eq!((status("GET", ""), status("PATCH", "[]")), (200, 200));
    assert_eq!((status("DELETE", ""), status("GET", "")), (204, 404));
    for number in 0..INSTALLATIONS {
        let path = format!("/hub/installations/{number}");
        assert_eq!(call(&mut mock, "PUT", &path, &[], "{}").status, 200);
    }
    assert_eq!(call(&mut mock, "PUT", path, &[], "{}").status, 403);
}

#[test]
fn a_secret_is_for_whoever_has_a_token() {
    let mut mock = open(&[]);
    let none = [("authorization", "")];
    let challenge = call(&mut mock, "GET", "/secrets/key?api-version=7.4", &none, "");
    assert_eq!(challenge.status, 401);
    let words = challenge.value("www-authenticate").expect("a challenge");
    assert!(
        words.contains(r#"resource="https://vault.azure.net""#),
        "{words}"
    );

    let form = |secret: &str| {
        let scope = "https%3A%2F%2Fvault.azure.net%2F.default";
        format!("grant_type=client_credentials&client_id=id&client_secret={secret}&scope={scope}")
    };
    let token = "/tenant/oauth2/v2.0/token";
    let refused = call(&mut mock, "POST", token, &none, &form("wrong"));
    assert_eq!(
        (refused.status, &json_of(&refused)["error"]),
        (401, &json!("invalid_client"))
    );
    let granted = call(&mut mock, "POST", token, &none, &form("secret"));
    let imds =
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";
    assert_eq!(call(&mut mock, "GET", imds, &none, "").status, 400);
    let managed = call(&mut mock, "GET", imds, &[none[0], ("metadata", "true")], "");
    assert_eq!(
        json_of(&managed)["expires_in"],
        "3599",
        "numbers are texts there"
    );

    for granted in [granted, managed] {
        let bearer = json_of(&granted)["access_token"]
            .as_str()
            .map(|it| format!("Bearer {it}"));
        let bearer = bearer.expect("a token");
        let fields = [("authorization", &*bearer)];
        let mut get = |path: &str| call(&mut mock, "GET", path, &fields, "");
        let secret = json_of(&get("/secrets/key?api-version=7.4"));
        assert_eq!(secret["value"], "value");
        let id = secret["id"].as_str().expect("an id");
        let path = id.strip_prefix("https://localhost:8443").expect("here");
        assert_eq!(get(path).status, 200);
        assert_eq!(get("/secrets/key/0").status, 404);
        assert_eq!(
            json_of(&get("/secrets/other"))["error"]["code"],
            "SecretNotFound"
        );
    }
    let strange = [("authorization", "Bearer x")];
    assert_eq!(
        call(&mut mock, "GET", "/secrets/key", &strange, "").status,
        401
    );
}

#[test]
fn what_leads_to_tokens_is_told() {
    let mut mock = open(&[]);
    let path = "/tenant/v2.0/.well-known/openid-configuration";
    let found = json_of(&call(&mut mock, "GET", path, &[], ""));
    assert_eq!(
        found["token_endpoint"],
        "https://localhost:8443/tenant/oauth2/v2.0/token"
    );
    let instances = "/common/discovery/instance?api-version=1.1";
    assert_eq!(call(&mut mock, "GET", instances, &[], "").status, 200);
}

#[test]
fn every_word_can_be_scripted_in_the_form_of_each_service() {
    for (word, status) in WORDS {
        let rules = [format!("path=* answer={word}")];
        let mut mock = open(&[&rules[0]]);
        let hub = call(&mut mock, "POST", DIRECT, &[], "");
        assert_eq!(hub.status, *status, "{word}");
        let secret = call(&mut mock, "GET", "/secrets/key", &[], "");
        assert_eq!(secret.status, *status, "{word}");
        if *status >= 400 {
            assert!(hub.body.starts_with(b"<Error>"), "{word}");
            let error = &json_of(&secret)["error"];
            assert!(error == word || error["code"] == *word, "{word}");
        }
    }
}
