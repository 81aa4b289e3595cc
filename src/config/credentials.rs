//! The tables of credentials for push providers: `[[apps.apns]]`, `[[apps.fcm]]`, `[[apps.webpush]]` and
//! `[[apps.azure]]`. Which fields a credential has and what is wrong with one is `push`'s to say; here
//! is where they are written. Invariant: what is secret does not stand in the file, and only the
//! courier gets it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::app::apps::Secret;
use crate::config::check::Checker;
use crate::config::keys::{KeyRow, TableRow};
use crate::config::load::{RawApp, RawConfig};
use crate::config::problem::Step;
use crate::config::problem::Step::{Index, Key};
use crate::config::secret::{Fetch, Kept, RawSecret, fetch_apart};
use crate::push::devices::token::Service;
use crate::push::providers::credential::Credential;

/// Of all apps.
const CREDENTIALS_MAX: usize = 1_000;
/// What may not stand in the file.
const SECRETS: [&str; 5] = [
    "key",
    "account",
    "connection_string",
    "client_secret",
    "identity_header",
];

/// The fields of one table that are written.
type Written<'a> = Vec<(&'static str, &'a RawSecret)>;

macro_rules! raw {
    ($($table:ident: $($field:ident)*;)*) => {
        $(
            /// As it is written.
            #[derive(Debug, Default, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub(super) struct $table {
                $($field: Option<RawSecret>,)*
            }

            impl $table {
                fn written(&self) -> Written<'_> {
                    let fields = [$((stringify!($field), &self.$field),)*];
                    let fields = fields.into_iter();
                    fields.filter_map(|(name, value)| Some((name, value.as_ref()?))).collect()
                }
            }
        )*
    };
}

raw! {
    RawApns: key key_id team_id certificate bundle environment base_url channels_url ca_file;
    RawFcm: account project base_url token_url topics_url ca_file;
    RawWebPush: key contact ca_file;
    RawAzure: hub connection_string namespace tenant client_id client_secret identity_header bundle
        base_url token_url resource ca_file;
}

macro_rules! row {
    ($name:literal, $kind:literal, $help:literal) => {
        KeyRow {
            name: $name,
            kind: $kind,
            default: "",
            help: $help,
        }
    };
}

const CA_FILE: KeyRow = row!(
    "ca_file",
    "path",
    "A PEM file with the authorities that are trusted instead of the system's."
);

pub(super) const APNS_TABLE: TableRow = TableRow {
    heading: "[[apps.apns]]",
    help: "A credential for Apple's push service, of the [[apps]] table above it (docs/push.md): a signing key, or a certificate. One for production and one for development.",
    keys: &[
        row!(
            "key",
            "where it is kept",
            "The .p8 file with the signing key, or the PEM file with the certificate's key."
        ),
        row!("key_id", "word", "Of the signing key, ten characters."),
        row!("team_id", "word", "Whose key it is, ten characters."),
        row!(
            "certificate",
            "where it is kept",
            "The PEM file with the certificate, instead of key_id and team_id."
        ),
        row!("bundle", "word", "The app's bundle id."),
        row!(
            "environment",
            "word",
            "production, which is meant without it, or development."
        ),
        row!("base_url", "URL", "Another server than Apple's."),
        row!(
            "channels_url",
            "URL",
            "The same for the management of broadcast channels."
        ),
        CA_FILE,
    ],
    active: "",
    optional: true,
};

pub(super) const FCM_TABLE: TableRow = TableRow {
    heading: "[[apps.fcm]]",
    help: "A credential for Firebase Cloud Messaging, of the [[apps]] table above it.",
    keys: &[
        row!(
            "account",
            "where it is kept",
            "The service account's JSON file."
        ),
        row!(
            "project",
            "word",
            "Its id or number, if it is not the account's."
        ),
        row!("base_url", "URL", "Another server than Google's."),
        row!(
            "token_url",
            "URL",
            "Where access tokens are granted, if not where the account says."
        ),
        row!("topics_url", "URL", "Another server for topics."),
        CA_FILE,
    ],
    active: "",
    optional: true,
};

pub(super) const WEBPUSH_TABLE: TableRow = TableRow {
    heading: "[[apps.webpush]]",
    help: "The key with which browsers have subscribed (VAPID), of the [[apps]] table above it. Another key loses all subscriptions.",
    keys: &[
        row!(
            "key",
            "where it is kept",
            "32 bytes in base64, or a PEM file."
        ),
        row!(
            "contact",
            "URL",
            "Whom a push service may write to: mailto: or https:."
        ),
        CA_FILE,
    ],
    active: "",
    optional: true,
};

pub(super) const AZURE_TABLE: TableRow = TableRow {
    heading: "[[apps.azure]]",
    help: "A notification hub of Azure, of the [[apps]] table above it: by a connection string, by a client of Entra ID, or by the machine's own identity. It is used for devices that no other credential of the app is for.",
    keys: &[
        row!("hub", "word", "The hub's name."),
        row!(
            "connection_string",
            "where it is kept",
            "As the portal shows it."
        ),
        row!(
            "namespace",
            "word",
            "Instead of a connection string: the hub's namespace."
        ),
        row!("tenant", "word", "Of the client."),
        row!(
            "client_id",
            "word",
            "The client, or the machine's identity."
        ),
        row!(
            "client_secret",
            "where it is kept",
            "Without it the machine's own identity is used."
        ),
        row!(
            "identity_header",
            "where it is kept",
            "That of an App Service."
        ),
        row!("bundle", "word", "The bundle id, for Apple's devices."),
        row!("base_url", "URL", "Another server than Azure's."),
        row!("token_url", "URL", "Another server for access tokens."),
        row!("resource", "URL", "What the access token is for."),
        CA_FILE,
    ],
    active: "",
    optional: true,
};

/// One credential of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCredential {
    pub app_id: String,
    /// With `kind`, as `Credential::parse` reads them; `None` in a process that is not to know them.
    fields: Option<BTreeMap<String, Secret>>,
}

impl AppCredential {
    /// `None` in a process that is not to know it.
    pub fn read(&self) -> Option<Result<Credential, String>> {
        let fields = self.fields.as_ref()?.iter();
        let text = |secret: &Secret| Value::from(secret.expose());
        let fields: Map<String, Value> = fields.map(|(k, v)| (k.clone(), text(v))).collect();
        Some(Credential::parse(&fields))
    }
}

/// The credentials of an app, by table, those that are used first before others.
fn tables(app: &RawApp) -> [(&'static str, Vec<Written<'_>>); 4] {
    [
        ("apns", app.apns.iter().map(RawApns::written).collect()),
        ("fcm", app.fcm.iter().map(RawFcm::written).collect()),
        (
            "webpush",
            app.webpush.iter().map(RawWebPush::written).collect(),
        ),
        ("azure", app.azure.iter().map(RawAzure::written).collect()),
    ]
}

fn kind(table: &str, written: &Written<'_>) -> &'static str {
    let has = |name: &str| written.iter().any(|(own, _)| *own == name);
    match table {
        "apns" if has("certificate") => "apns-certificate",
        "apns" => "apns-token",
        "azure" if has("connection_string") => "azure-connection",
        "azure" => "azure-entra",
        "fcm" => "fcm",
        _ => "webpush",
    }
}

/// Those of all apps. What was fetched is noted in `noted`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: &RawConfig,
    from: (&Path, &Fetch<'_>),
    noted: (&mut Kept, &mut Vec<String>),
) -> Vec<AppCredential> {
    let (apart, warnings) = noted;
    let mut all = Vec::new();
    for (index, app) in raw.apps.iter().enumerate() {
        let mut served: Vec<(&str, Service)> = Vec::new();
        for (table, credentials) in tables(app) {
            for (nth, one) in credentials.iter().enumerate() {
                let at = [Key("apps"), Index(index), Key(table), Index(nth)];
                if raw.push.is_off() {
                    let message = "a credential is of no use without token_key in [push]";
                    checker.problem(&at, message, Some("`lineman keys generate` makes one"));
                    continue;
                }
                let fetched = fields(checker, &at, (table, one), from, (apart, warnings));
                let Some(fields) = fetched else { continue };
                let credential = AppCredential {
                    app_id: app.id.clone(),
                    fields,
                };
                match credential.read() {
                    None => {}
                    Some(Err(why)) => checker.problem(&at, why, None),
                    Some(Ok(read)) => overlap(checker, &at, table, &read, &mut served),
                }
                all.push(credential);
            }
        }
    }
    if all.len() > CREDENTIALS_MAX {
        let message = format!("more than {CREDENTIALS_MAX} credentials");
        checker.problem(&[Key("apps")], message, None);
    }
    all
}

/// Of two credentials of one kind the second would never be used.
fn overlap(
    checker: &mut Checker<'_>,
    at: &[Step],
    table: &'static str,
    credential: &Credential,
    served: &mut Vec<(&str, Service)>,
) {
    for (word, service) in Service::ALL {
        if !credential.serves(service) {
            continue;
        }
        if served.contains(&(table, service)) {
            let message = format!("the app has two credentials for {word}");
            return checker.problem(at, message, None);
        }
        served.push((table, service));
    }
}

/// All fields; the inner `None` where they are withheld, the outer one where a problem was noted.
fn fields(
    checker: &mut Checker<'_>,
    at: &[Step],
    (table, raw): (&'static str, &Written<'_>),
    (base, fetch): (&Path, &Fetch<'_>),
    (apart, warnings): (&mut Kept, &mut Vec<String>),
) -> Option<Option<BTreeMap<String, Secret>>> {
    let mut fields = BTreeMap::new();
    let (mut withheld, mut wrong) = (false, false);
    for (name, value) in raw {
        match value {
            RawSecret::Here(_) if SECRETS.contains(name) => {
                let message =
                    format!("{name} does not stand in the file, which every process gets");
                let hint = "{ env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";
                checker.problem(at, message, Some(hint));
                wrong = true;
            }
            RawSecret::Here(text) if *name == "ca_file" => {
                let path = base.join(text.expose()).display().to_string();
                fields.insert(name.to_string(), Secret::new(path));
            }
            RawSecret::Here(text) => _ = fields.insert(name.to_string(), text.clone()),
            RawSecret::Elsewhere(keeper) => {
                match fetch_apart(keeper, base, fetch, (apart, warnings)) {
                    Ok(Some(secret)) => _ = fields.insert(name.to_string(), secret),
                    Ok(None) => withheld = true,
                    Err(fault) => {
                        let message = format!("{name}: {}", fault.message);
                        checker.problem(at, message, fault.hint);
                        wrong = true;
                    }
                }
            }
        }
    }
    if wrong {
        return None;
    }
    let kind = kind(table, raw).to_string();
    fields.insert("kind".to_string(), Secret::new(kind));
    Some(Some(fields).filter(|_| !withheld))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::{Fault, Fetched, Keeper};

    fn fetch(keeper: &Keeper) -> Result<Fetched, Fault> {
        match keeper {
            Keeper::Env(name) if name == "WITHHELD" => Err(Fault::withheld()),
            Keeper::Env(_) => Ok(Fetched {
                secret: Secret::new(
                    data_encoding::BASE64.encode(b"0123456789abcdefghijklmnopqrstuv"),
                ),
                warning: None,
            }),
            _ => Err(Fault::new("nothing is kept")),
        }
    }

    fn read(lines: &str) -> Result<Vec<AppCredential>, String> {
        let text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[push]\ntoken_key = {{ env = \"K\" }}\n\
             [[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\n{lines}\n"
        );
        let config = parse(&text, "f", Path::new("/etc"), &Program::default(), &fetch);
        let config = config.map_err(|error| error.0)?;
        assert!(config.kept.is_empty(), "they are kept apart");
        Ok(config.credentials)
    }

    const WEB: &str = "[[apps.webpush]]\nkey = { env = \"V\" }\ncontact = \"mailto:a@b.example\"\n";

    #[test]
    fn a_credential_is_the_courier_s_alone() {
        let known = read(&format!("{WEB}ca_file = \"ca.pem\"")).expect("it is right");
        let credential = known[0].read().expect("it is known").expect("it is right");
        assert_eq!(
            (known[0].app_id.as_str(), credential.kind()),
            ("a", "webpush")
        );
        assert_eq!(credential.ca_file.as_deref(), Some("/etc/ca.pem"));
        let withheld = read(&WEB.replace("\"V\"", "\"WITHHELD\"")).expect("it is right");
        assert!(withheld[0].read().is_none());
    }

    #[test]
    fn what_is_wrong_with_a_credential_is_told_at_its_line() {
        let table = [
            (
                WEB.replace("{ env = \"V\" }", "\"secret\""),
                "does not stand in the file",
            ),
            (WEB.replace("contact", "contakt"), "unknown field `contakt`"),
            (WEB.replace("mailto:", ""), "contact:"),
            (format!("{WEB}{WEB}"), "two credentials for webpush"),
            (WEB.replace("{ env", "{ file"), "nothing is kept"),
        ];
        for (lines, words) in table {
            let error = read(&lines).expect_err(words);
            assert!(
                error.contains(words) && !error.contains("secret\""),
                "{words}: {error}"
            );
        }
        let text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[apps]]\nid = \"a\"\n\
                    key = \"k\"\nsecret = \"s\"\n";
        let text = format!("{text}{WEB}");
        let parsed = parse(&text, "f", Path::new("/"), &Program::default(), &fetch);
        let error = parsed.expect_err("there is no gateway").0;
        assert!(error.contains("without token_key"), "{error}");
    }
}
