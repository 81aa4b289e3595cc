//! The `tls` table of a listener: paths and rules. Does not read the files it names
//! (`certificates` does). Invariant: a rule about client certificates has a CA to go with it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::base::tls_rules::{ClientAuth, TlsRules};
use crate::config::check::Checker;
use crate::config::problem::Step::{self, Index, Key};

/// The table as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    pub client_auth: Option<String>,
    #[serde(default = "default_version")]
    pub min_version: String,
    #[serde(default)]
    pub sni: Vec<RawSni>,
}

fn default_version() -> String {
    "1.2".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSni {
    pub names: Vec<String>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// One certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Server names; none for the certificate of all other names.
    pub names: Vec<String>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// The first is for every name that no other has.
    pub identities: Vec<IdentityFiles>,
    pub client_ca: Option<PathBuf>,
    pub rules: TlsRules,
}

impl ListenTls {
    /// Relative paths start at `base`.
    pub(super) fn resolve(&mut self, base: &Path) {
        for files in &mut self.identities {
            files.certificate = base.join(&files.certificate);
            files.key = base.join(&files.key);
        }
        self.client_ca = self.client_ca.take().map(|path| base.join(path));
    }
}

const CLIENT_AUTHS: &[(&str, ClientAuth)] = &[
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
];
/// Whether it leaves TLS 1.3 alone.
const VERSIONS: &[(&str, bool)] = &[("1.2", false), ("1.3", true)];

/// The table of the listener with number `index`, which speaks `http` or something without a name
/// in ALPN.
pub(super) fn check(
    checker: &mut Checker<'_>,
    index: usize,
    raw: &RawTls,
    http: bool,
) -> ListenTls {
    let at = |key| [Key("listen"), Index(index), Key("tls"), Key(key)];
    let only_tls13 = checker.word(&at("min_version"), &raw.min_version, VERSIONS);
    let client_auth = match (&raw.client_ca, &raw.client_auth) {
        (None, None) => ClientAuth::None,
        (None, Some(_)) => {
            let message = "client_auth needs to know who signs the certificates of clients";
            let hint = "add: client_ca = \"ca.pem\"";
            checker.problem(&at("client_auth"), message, Some(hint));
            ClientAuth::None
        }
        // Whoever names a CA wants to keep others out.
        (Some(_), None) => ClientAuth::Required,
        (Some(_), Some(word)) => checker
            .word(&at("client_auth"), word, CLIENT_AUTHS)
            .unwrap_or_default(),
    };
    let mut identities = vec![IdentityFiles {
        names: Vec::new(),
        certificate: raw.certificate.clone(),
        key: raw.key.clone(),
    }];
    for (number, sni) in raw.sni.iter().enumerate() {
        let path = [
            Key("listen"),
            Index(index),
            Key("tls"),
            Key("sni"),
            Index(number),
            Key("names"),
        ];
        check_names(checker, &path, &sni.names, &identities);
        identities.push(IdentityFiles {
            names: sni.names.clone(),
            certificate: sni.certificate.clone(),
            key: sni.key.clone(),
        });
    }
    ListenTls {
        identities,
        client_ca: raw.client_ca.clone(),
        rules: TlsRules {
            client_auth,
            only_tls13: only_tls13.unwrap_or(false),
            alpn: http.then(|| b"http/1.1".to_vec()).into_iter().collect(),
        },
    }
}

fn check_names(
    checker: &mut Checker<'_>,
    path: &[Step],
    names: &[String],
    earlier: &[IdentityFiles],
) {
    if names.is_empty() {
        let hint = "for example: names = [\"example.org\", \"*.example.org\"]";
        checker.problem(
            path,
            "a certificate that is for no name is never shown",
            Some(hint),
        );
    }
    for name in names {
        if !is_server_name(name) {
            let hint = "a host name, or *. and a host name for any one name below it";
            checker.problem(path, format!("\"{name}\" is not a server name"), Some(hint));
        }
        let known =
            |files: &IdentityFiles| files.names.iter().any(|n| n.eq_ignore_ascii_case(name));
        if earlier.iter().any(known) {
            checker.problem(path, format!("\"{name}\" has two certificates"), None);
        }
    }
}

fn is_server_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let good = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    host.len() <= 253 && host.split('.').all(good)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::base::tls_rules::ClientAuth;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    fn file(url: &str, tls: &str) -> String {
        format!("[[listen]]\nurl = \"{url}\"\nhandler = \"echo\"\n{tls}\n")
    }

    fn check(url: &str, tls: &str, expected: &[&str]) {
        let text = file(url, tls);
        match parse(
            &text,
            "f",
            Path::new("/etc"),
            &Program::default(),
            &no_secrets,
        ) {
            Ok(_) => assert!(expected.is_empty(), "accepted: {text}"),
            Err(error) => {
                assert!(!expected.is_empty(), "refused: {text}\n{error}");
                for part in expected {
                    assert!(error.0.contains(part), "no {part:?} in:\n{error}");
                }
            }
        }
    }

    const HTTP: &str = "http://127.0.0.1:0";

    #[test]
    fn the_table_may_stand_inline_or_below_and_its_paths_start_beside_the_file() {
        let inline = "tls = { certificate = \"c.pem\", key = \"/k.pem\" }";
        let below = "[listen.tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"";
        for tls in [inline, below] {
            let config = parse(
                &file(HTTP, tls),
                "f",
                Path::new("/etc"),
                &Program::default(),
                &no_secrets,
            )
            .unwrap();
            let tls = config.listen[0].tls.clone().unwrap();
            assert_eq!(tls.identities[0].certificate, Path::new("/etc/c.pem"));
            assert_eq!(tls.identities[0].key, Path::new("/k.pem"));
            assert_eq!(tls.rules.client_auth, ClientAuth::None);
            assert!(!tls.rules.only_tls13);
        }
    }

    #[test]
    fn https_and_wss_are_other_words_for_http_and_demand_the_table() {
        let tls = "tls = { certificate = \"c\", key = \"k\" }";
        for url in ["https://127.0.0.1:0", "wss://[::1]:0"] {
            check(url, tls, &[]);
            check(url, "", &["f:2:", "needs a certificate", "listen.tls"]);
        }
        for (url, shown) in [
            ("websocket://127.0.0.1:0", "https://127.0.0.1:0"),
            ("text://127.0.0.1:0", "text://127.0.0.1:0"),
        ] {
            let config = parse(
                &file(url, tls),
                "f",
                Path::new("/"),
                &Program::default(),
                &no_secrets,
            )
            .unwrap();
            assert_eq!(config.listen[0].url.to_string(), shown);
        }
    }

    #[test]
    fn client_certificates_need_a_ca_and_a_ca_alone_makes_them_required() {
        let with = |rest: &str| format!("tls = {{ certificate = \"c\", key = \"k\", {rest} }}");
        check(
            HTTP,
            &with("client_auth = \"required\""),
            &["f:4:", "client_ca = "],
        );
        let both = with("client_ca = \"a\", client_auth = \"optionl\"");
        check(HTTP, &both, &["did you mean \"optional\""]);
        let auth = |rest: &str| {
            let config = parse(
                &file(HTTP, &with(rest)),
                "f",
                Path::new("/"),
                &Program::default(),
                &no_secrets,
            )
            .unwrap();
            config.listen[0].tls.clone().unwrap().rules.client_auth
        };
        assert_eq!(auth("client_ca = \"a\""), ClientAuth::Required);
        let optional = "client_ca = \"a\", client_auth = \"optional\"";
        assert_eq!(auth(optional), ClientAuth::Optional);
    }

    #[test]
    fn versions_are_1_2_and_1_3() {
        let with = |version| {
            format!("tls = {{ certificate = \"c\", key = \"k\", min_version = \"{version}\" }}")
        };
        check(HTTP, &with("1.2"), &[]);
        check(HTTP, &with("1.3"), &[]);
        check(HTTP, &with("1.1"), &["f:4:", "not known here"]);
    }

    #[test]
    fn each_name_has_one_certificate_and_looks_like_a_name() {
        let with = |names: &str| {
            format!(
                "[listen.tls]\ncertificate = \"c\"\nkey = \"k\"\n[[listen.tls.sni]]\n\
                 names = {names}\ncertificate = \"c\"\nkey = \"k\"\n[[listen.tls.sni]]\n\
                 names = [\"z.example\"]\ncertificate = \"c\"\nkey = \"k\""
            )
        };
        check(HTTP, &with("[\"a.example\", \"*.a.example\"]"), &[]);
        check(HTTP, &with("[]"), &["f:8:", "for no name"]);
        check(
            HTTP,
            &with("[\"a.*.example\"]"),
            &["f:8:", "not a server name"],
        );
        check(
            HTTP,
            &with("[\"Z.example\"]"),
            &["f:12:", "two certificates"],
        );
    }
}
