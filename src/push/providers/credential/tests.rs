//! Credentials of every kind out of their texts, and what is said of wrong ones.

use serde_json::json;

use super::*;
use crate::push::providers::kit::{NOW, now};

pub(super) fn p256() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
    key.expect("a key").serialize_pem()
}

pub(super) fn rsa() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256);
    key.expect("a key").serialize_pem()
}

pub(super) fn account() -> Value {
    json!({
        "type": "service_account", "client_email": "a@p.iam.gserviceaccount.com",
        "private_key": rsa(), "private_key_id": "k1", "project_id": "p",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

pub(super) fn parse(value: &Value) -> Result<Credential, String> {
    Credential::parse(value.as_object().expect("an object"))
}

/// A whole one of each kind.
pub(super) fn all() -> Vec<Value> {
    let made = rcgen::generate_simple_self_signed(["push".to_string()]).expect("made");
    let raw = data_encoding::BASE64URL_NOPAD.encode(&[7; 32]);
    let connection = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=n;\
                      SharedAccessKey=tiger";
    let namespace = "sb://ns.servicebus.windows.net/";
    vec![
        json!({"kind": "apns-token", "key": p256(), "key_id": "ABC123DEFG",
            "team_id": "DEF123GHIJ", "bundle": "com.example.app"}),
        json!({"kind": "apns-certificate", "certificate": made.cert.pem(),
            "key": made.signing_key.serialize_pem(), "bundle": "com.example.app"}),
        json!({"kind": "fcm", "account": account()}),
        json!({"kind": "webpush", "key": raw, "contact": "mailto:a@example.com"}),
        json!({"kind": "azure-connection", "connection_string": connection, "hub": "hub"}),
        json!({"kind": "azure-entra", "namespace": namespace, "hub": "hub",
            "tenant": "contoso.example", "client_id": "c-1", "client_secret": "tiger"}),
    ]
}

pub(super) fn with(mut value: Value, more: Value) -> Value {
    let fields = value.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    value
}

#[test]
fn every_kind_is_read_and_shows_no_secret() {
    for value in all() {
        let credential = parse(&value).unwrap_or_else(|why| panic!("{value}: {why}"));
        assert_eq!(credential.kind(), value["kind"]);
        assert_eq!(credential.is_per_origin(), credential.kind() == "webpush");
        assert_eq!(credential.ca_file, None);
        let shown = format!("{credential:?}");
        assert!(!shown.contains("tiger"), "{shown}");
        for name in ["key", "account", "private_key"] {
            let secret = value[name].as_str().or(value["account"][name].as_str());
            assert!(
                secret.is_none_or(|secret| !shown.contains(secret)),
                "{shown}"
            );
        }
    }
    let whole = account().to_string();
    assert!(
        parse(&json!({"kind": "fcm", "account": whole})).is_ok(),
        "as a text"
    );
    let pem = json!({"kind": "webpush", "key": p256(), "contact": "https://example.com/"});
    assert!(parse(&pem).is_ok());
}

#[test]
fn every_place_can_be_another() {
    let near = |name: &str| json!({name: "http://127.0.0.1:81", "ca_file": "/ca.pem"});
    for value in all() {
        if value["kind"] == "webpush" {
            continue;
        }
        let read = parse(&with(value, near("base_url"))).expect("a credential");
        let origin = match &read.proof {
            Proof::ApnsToken { app, .. } | Proof::ApnsCertificate { app, .. } => &app.origin,
            Proof::FcmAccount { app, .. } => &app.origin,
            Proof::AzureConnection { hub, .. } | Proof::AzureEntra { hub, .. } => &hub.origin,
            Proof::Vapid { .. } => panic!("no such place"),
        };
        assert_eq!(origin, "http://127.0.0.1:81");
        assert_eq!(read.ca_file.as_deref(), Some("/ca.pem"));
    }
    let [apns, _, fcm, _, _, entra] = &all()[..] else {
        panic!("six kinds");
    };
    let read = parse(&with(apns.clone(), near("channels_url"))).expect("a credential");
    assert!(format!("{read:?}").contains(r#"Channels { origin: "http://127.0.0.1:81""#));
    let sandbox = parse(&with(apns.clone(), json!({"environment": "development"})));
    let shown = format!("{:?}", sandbox.expect("a credential"));
    assert!(shown.contains("api.sandbox.push.apple.com\""));
    assert!(shown.contains("api-manage-broadcast.sandbox.push.apple.com:2195"));
    for (value, path) in [(fcm, "/"), (entra, "/contoso.example/oauth2/v2.0/token")] {
        let read = parse(&with(value.clone(), near("token_url"))).expect("a credential");
        let Ok(Making::Ask(request)) = read.make(None, now()) else {
            panic!("it is asked for");
        };
        assert_eq!(
            (request.origin.as_str(), request.path.as_str()),
            ("http://127.0.0.1:81", path)
        );
    }
}

#[test]
fn a_credential_serves_the_tokens_of_its_own_service() {
    let sandbox = with(all().swap_remove(0), json!({"environment": "development"}));
    let hub = "apns, apns-sandbox, fcm, webpush";
    let expected = [
        "apns",
        "apns",
        "fcm, fcm-fid",
        "webpush",
        hub,
        hub,
        "apns-sandbox",
    ];
    for (value, expected) in all().iter().chain([&sandbox]).zip(expected) {
        let credential = parse(value).expect("a credential");
        let services = Service::ALL.iter();
        let served: Vec<&str> = services
            .filter(|(_, service)| credential.serves(*service))
            .map(|(word, _)| *word)
            .collect();
        assert_eq!(served.join(", "), expected);
    }
}

#[test]
fn an_azure_identity_is_a_clients_a_machines_or_a_services() {
    let base = json!({"kind": "azure-entra", "namespace": "ns.example", "hub": "hub"});
    let base = with(base, json!({"namespace": "https://ns.example"}));
    let resource = "resource=https%3A%2F%2Fnotificationhubs.azure.net";
    let machine = parse(&base).expect("a credential").make(None, now());
    let Ok(Making::Ask(request)) = machine else {
        panic!("{machine:?}");
    };
    assert_eq!(request.origin, "http://169.254.169.254");
    assert!(request.path.ends_with(resource), "{}", request.path);
    let service = json!({"identity_header": "tiger", "token_url": "http://127.0.0.1:4/msi"});
    let service = parse(&with(base.clone(), service)).expect("a credential");
    let Ok(Making::Ask(request)) = service.make(None, now()) else {
        panic!("it is asked for");
    };
    assert_eq!(request.value("x-identity-header"), Some("tiger"));
    for (more, why) in [
        (json!({"identity_header": "a"}), "token_url: it is missing"),
        (json!({"tenant": "a"}), "client_secret: a tenant is named"),
        (json!({"client_secret": "a"}), "tenant: it is missing"),
        (
            json!({"client_secret": "a", "identity_header": "b"}),
            "identity_header: it is",
        ),
        (
            json!({"client_secret": "a", "tenant": "a/b", "client_id": "c"}),
            "client_secret: this is no tenant",
        ),
        (json!({"resource": "x"}), "resource: the URL begins"),
    ] {
        let error = parse(&with(base.clone(), more)).expect_err(why);
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn what_is_wrong_is_said_by_its_name_and_not_quoted() {
    let [apns, certificate, fcm, webpush, connection, entra] = &all()[..] else {
        panic!("six kinds");
    };
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let p384 = other.serialize_pem();
    let short = with(account(), json!({"token_uri": "http://evil.example/"}));
    #[rustfmt::skip]
    let table = [
        (apns, json!({"kind": "tiger"}), "kind: it is none of apns-token, "),
        (apns, json!({"kind": null}), "kind: it is missing"),
        (apns, json!({"key": "tiger"}), "key: this is no PEM file with a private key"),
        (apns, json!({"key": p384}), "key: the key is not on P-256"),
        (apns, json!({"key": rsa()}), "key: the key is not on P-256"),
        (apns, json!({"key": 5}), "key: it is not a text"),
        (apns, json!({"key": null}), "key: it is missing"),
        (apns, json!({"key_id": "tiger"}), "key_id: it has ten letters and digits"),
        (apns, json!({"team_id": " "}), "team_id: it is empty"),
        (apns, json!({"bundle": "a/tiger"}), "bundle: it looks like com.example.app"),
        (apns, json!({"environment": "tiger"}), "environment: it is neither"),
        (apns, json!({"contact": "tiger"}), "\"contact\" is nothing of apns-token, which has key, "),
        (apns, json!({"base_url": "https://a.example/b"}), "base_url: it ends behind host and port"),
        (apns, json!({"base_url": "http://a.example"}), "base_url: it does not begin with https://"),
        (apns, json!({"base_url": "http://127.evil.example"}), "base_url: it does not begin with"),
        (apns, json!({"base_url": "tiger"}), "base_url: the URL begins with neither"),
        (certificate, json!({"key": p256()}), "key: it is not the certificate's"),
        (certificate, json!({"certificate": "tiger"}), "certificate: there is none in it"),
        (fcm, json!({"account": "tiger"}), "account: this is no service account's JSON"),
        (fcm, json!({"account": [1]}), "account: it is not a text"),
        (fcm, json!({"account": with(account(), json!({"private_key": p256()}))}), "account: the key is not one of RSA"),
        (fcm, json!({"account": short}), "account: it does not begin with https://"),
        (fcm, json!({"project": "a/../tiger"}), "project: it is neither"),
        (fcm, json!({"token_url": "http://evil.example/"}), "token_url: it does not begin with"),
        (webpush, json!({"key": "tiger!"}), "key: the key is not base64"),
        (webpush, json!({"key": "AAAA"}), "key: the key is not one of P-256"),
        (webpush, json!({"contact": "tiger"}), "contact: the contact is neither"),
        (connection, json!({"connection_string": "tiger"}), "connection_string: a connection string looks"),
        (connection, json!({"hub": "a/tiger"}), "hub: it is a name"),
        (entra, json!({"namespace": "tiger"}), "namespace: a namespace looks like"),
        (entra, json!({"client_id": "a/tiger"}), "client_secret: this is no client id"),
        (entra, json!({"ca_file": 5}), "ca_file: it is not a text"),
    ];
    for (base, change, expected) in table {
        let error = parse(&with(base.clone(), change.clone())).expect_err(expected);
        assert!(error.starts_with(expected), "{change}: {error}");
        assert!(!error.contains("tiger"), "{error}");
    }
}

#[test]
fn a_certificate_is_warned_about_before_it_ends() {
    let mut parameters = rcgen::CertificateParams::new(["push".to_string()]).expect("a name");
    parameters.not_after = rcgen::date_time_ymd(2024, 1, 14);
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = parameters.self_signed(&key).expect("made");
    let value = json!({"kind": "apns-certificate", "certificate": made.pem(),
        "key": key.serialize_pem(), "bundle": "a.b"});
    let credential = parse(&value).expect("a credential");
    let warned = |days: u64| {
        let unix_ms = (NOW as u64 + days * 86_400) * 1000;
        credential.warning(Now { unix_ms, ..now() })
    };
    // It is 14 November 22:13.
    assert_eq!(warned(0), None);
    assert_eq!(
        warned(31).as_deref(),
        Some("the certificate expires in 29 days")
    );
    assert_eq!(warned(61).as_deref(), Some("the certificate has expired"));
    assert_eq!(parse(&all()[0]).expect("a credential").warning(now()), None);
}

#[test]
fn what_is_sealed_opens_for_the_same_credential_and_subject_alone() {
    let value = all().swap_remove(0);
    let (one, same) = (
        parse(&value).expect("one"),
        parse(&value).expect("the same"),
    );
    let changed = with(value, json!({"key_id": "ABC123DEFH"}));
    let other = parse(&changed).expect("another");
    let mut dice = Dice::new([1; 16]);
    let sealed = one.seal.close(b"tiger", "a", &mut dice).expect("sealed");
    let opened = |credential: &Credential, about: &str| {
        let opened = credential.seal.open(&sealed, about);
        opened.map(|text| text.to_vec())
    };
    assert_eq!(opened(&same, "a").as_deref(), Some(&b"tiger"[..]));
    assert_eq!(opened(&same, "b"), None);
    assert_eq!(opened(&other, "a"), None);
    assert_ne!(
        one.seal.close(b"tiger", "a", &mut dice),
        Some(sealed.clone())
    );
    for text in ["", "tiger", "AAAA", &sealed[4..]] {
        assert!(one.seal.open(text, "a").is_none(), "{text}");
    }
}
