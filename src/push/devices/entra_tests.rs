//! Access tokens of Azure: what is asked, and every answer.

use super::*;

const VAULT: &str = "https://vault.azure.net";

fn now() -> Now {
    Now {
        unix_ms: 1_800_000_000_000,
        ..Now::default()
    }
}

fn machine() -> Identity {
    Identity::Machine {
        base: IMDS.into(),
        client_id: None,
    }
}

fn service() -> Identity {
    Identity::Service {
        endpoint: "http://169.254.130.2:8081/msi/token".into(),
        header: Hidden::new("tiger-header"),
        client_id: Some("c-1".into()),
    }
}

fn client() -> Identity {
    Identity::Client {
        authority: AUTHORITY.into(),
        tenant: "contoso.example".into(),
        client_id: "c-1".into(),
        secret: Hidden::new("tiger&+~ü"),
    }
}

fn fields(call: &Call) -> Vec<(&str, &str)> {
    call.fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

#[test]
fn each_identity_is_asked_for_in_its_own_way() {
    let call = machine().request(VAULT);
    let url = "http://169.254.169.254/metadata/identity/oauth2/token\
               ?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
    assert_eq!((call.method.word(), call.url.as_str()), ("GET", url));
    assert_eq!(fields(&call), [("metadata", "true")]);
    let one = Identity::Machine {
        base: "http://127.0.0.1:81/".into(),
        client_id: Some("c-1".into()),
    };
    let expected = url.replace("169.254.169.254", "127.0.0.1:81") + "&client_id=c-1";
    assert_eq!(one.request(VAULT).url, expected);

    let call = service().request(VAULT);
    let url = "http://169.254.130.2:8081/msi/token\
               ?api-version=2019-08-01&resource=https%3A%2F%2Fvault.azure.net&client_id=c-1";
    assert_eq!((call.method.word(), call.url.as_str()), ("GET", url));
    assert_eq!(fields(&call), [("x-identity-header", "tiger-header")]);

    let call = client().request(VAULT);
    let url = "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token";
    assert_eq!((call.method.word(), call.url.as_str()), ("POST", url));
    assert_eq!(
        fields(&call),
        [("content-type", "application/x-www-form-urlencoded")]
    );
    let body = "grant_type=client_credentials&client_id=c-1&client_secret=tiger%26%2B~%C3%BC\
                &scope=https%3A%2F%2Fvault.azure.net%2F.default";
    assert_eq!(std::str::from_utf8(&call.body), Ok(body));
}

#[test]
fn secrets_print_as_dots() {
    for identity in [service(), client()] {
        assert!(!format!("{identity:?}").contains("tiger"));
    }
    assert!(!format!("{:?}", service().request(VAULT)).contains("tiger"));
    assert!(!format!("{:?}", AccessToken::new("tiger", 1, now())).contains("tiger"));
}

#[test]
fn a_token_is_read_from_every_kind_of_answer() {
    // Until when it is good, after now.
    let table = [
        (
            machine(),
            r#"{"access_token":"t","client_id":"c","expires_in":"86399","expires_on":"1800086399","resource":"r","token_type":"Bearer"}"#,
            86_399,
        ),
        (
            service(),
            r#"{"access_token":"t","expires_on":"1800000600","token_type":"Bearer"}"#,
            600,
        ),
        (
            service(),
            r#"{"access_token":"t","expires_on":1800000600,"token_type":"bearer"}"#,
            600,
        ),
        (
            client(),
            r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"t"}"#,
            3_599,
        ),
    ];
    for (identity, body, seconds) in table {
        let TokenVerdict::Token(token) = identity.verdict(200, None, body.as_bytes(), 1, now())
        else {
            panic!("{body}");
        };
        assert_eq!(token, AccessToken::new("t", seconds, now()));
        assert_eq!(token.bearer().as_str(), "Bearer t");
        let at = |after: i64| Now {
            unix_ms: (now().unix_seconds() + after) as u64 * 1000,
            ..now()
        };
        assert!(!token.is_due(at(seconds - 301)) && token.is_due(at(seconds - 300)));
    }
}

#[test]
fn what_is_no_token_is_refused_without_repeating_it() {
    for body in [
        "tiger",
        "{}",
        r#"{"access_token":"tiger"}"#,
        r#"{"access_token":"","expires_in":60}"#,
        r#"{"access_token":"tiger\r\nX: y","expires_in":60}"#,
        r#"{"access_token":"tiger","expires_in":0}"#,
        r#"{"access_token":"tiger","expires_in":"soon"}"#,
        r#"{"access_token":"tiger","expires_in":60,"token_type":"mac"}"#,
        r#"{"access_token":"tiger","expires_on":1}"#,
    ] {
        let verdict = machine().verdict(200, None, body.as_bytes(), 1, now());
        let TokenVerdict::Refused(why) = verdict else {
            panic!("{body}");
        };
        assert!(!why.contains("tiger"));
    }
}

#[test]
fn every_answer_has_its_meaning() {
    // Milliseconds to wait, or words of the refusal.
    let table: [(Identity, u16, u32, Result<u64, &str>); 21] = [
        (machine(), 404, 1, Ok(1_600)),
        (machine(), 404, 2, Ok(3_200)),
        (machine(), 429, 3, Ok(6_400)),
        (machine(), 500, 4, Ok(12_800)),
        (machine(), 503, 5, Err("503")),
        (machine(), 410, 1, Ok(20_000)),
        (machine(), 410, 4, Ok(20_000)),
        (machine(), 410, 5, Err("410")),
        (machine(), 400, 1, Err("no such identity")),
        (machine(), 403, 1, Err("403")),
        (machine(), 302, 1, Err("302")),
        (service(), 400, 1, Err("no such identity")),
        (service(), 500, 1, Ok(1_600)),
        (service(), 401, 1, Err("401")),
        (client(), 400, 1, Err("do not belong together")),
        (client(), 401, 1, Err("do not belong together")),
        (client(), 404, 1, Err("no such tenant")),
        (client(), 429, 1, Ok(1_600)),
        (client(), 503, 2, Ok(3_200)),
        (client(), 503, 99, Err("503")),
        (client(), 204, 1, Err("204")),
    ];
    for (identity, status, tries, expected) in table {
        let verdict = identity.verdict(status, None, b"tiger", tries, now());
        match (&verdict, expected) {
            (TokenVerdict::Again(wait), Ok(ms)) => assert_eq!(wait.as_millis(), ms.into()),
            (TokenVerdict::Refused(why), Err(words)) => {
                assert!(why.contains(words) && !why.contains("tiger"), "{why}");
            }
            _ => panic!("{status} {tries}: {verdict:?}"),
        }
    }
    let said = machine().verdict(429, Some("9"), b"", 1, now());
    assert!(matches!(said, TokenVerdict::Again(wait) if wait == Duration::from_secs(9)));
}

#[test]
fn the_waits_outlast_an_update_of_the_metadata_service() {
    let waits = (1..).map_while(
        |tries| match machine().verdict(410, None, b"", tries, now()) {
            TokenVerdict::Again(wait) => Some(wait),
            _ => None,
        },
    );
    assert!(waits.sum::<Duration>() >= Duration::from_secs(70));
}

#[test]
fn what_cannot_be_asked_for_is_found_beforehand() {
    for identity in [machine(), service(), client()] {
        assert_eq!(identity.check(), Ok(()));
    }
    let near = |authority: &str| Identity::Client {
        authority: authority.into(),
        tenant: "t".into(),
        client_id: "c".into(),
        secret: Hidden::new("s"),
    };
    assert_eq!(near("http://127.0.0.1:81").check(), Ok(()));
    let with = |tenant: &str, client_id: &str, secret: &str| Identity::Client {
        authority: AUTHORITY.into(),
        tenant: tenant.into(),
        client_id: client_id.into(),
        secret: Hidden::new(secret),
    };
    let bad = [
        near("http://login.example"),
        near("login.example"),
        with("a/b", "c", "s"),
        with("", "c", "s"),
        with("t", "c&d", "s"),
        with("t", "c", ""),
        Identity::Machine {
            base: IMDS.into(),
            client_id: Some(String::new()),
        },
        Identity::Service {
            endpoint: "http://169.254.130.2/".into(),
            header: Hidden::new("a\r\nb"),
            client_id: None,
        },
    ];
    for identity in bad {
        assert!(identity.check().is_err(), "{identity:?}");
    }
}

#[test]
fn a_call_becomes_a_request_whose_secrets_are_marked() {
    let request = service().request(VAULT).into_request().expect("a URL");
    assert_eq!(request.method, Method::Get);
    assert_eq!(request.origin, "http://169.254.130.2:8081");
    assert!(
        request
            .path
            .starts_with("/msi/token?api-version=2019-08-01&")
    );
    assert_eq!(request.value("x-identity-header"), Some("tiger-header"));
    assert!(request.fields.iter().all(|field| field.secret));
    let request = client().request(VAULT).into_request().expect("a URL");
    assert_eq!(request.body, client().request(VAULT).body.to_vec());
    assert!(!format!("{request:?}").contains("tiger"));
}

#[test]
fn a_pass_is_renewed_five_minutes_before_it_ends_or_halfway() {
    for (seconds, before) in [(3600, 300), (400, 200), (1, 0)] {
        let pass = AccessToken::new("tiger", seconds, now()).pass(now());
        let ends_at = now().unix_seconds() + seconds;
        assert_eq!((pass.renew_at, pass.ends_at), (ends_at - before, ends_at));
        assert_eq!(pass.authorization, "Bearer tiger");
    }
}
