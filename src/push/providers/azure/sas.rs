//! Shared Access Signatures, with which a namespace of Azure is talked to (Microsoft, "Shared Access
//! Signature authentication with Service Bus"), and the connection string that holds the key for them.
//! Invariant: neither the key nor a connection string is part of an error.

use aws_lc_rs::hmac;
use data_encoding::BASE64;

use crate::base::now::Now;
use crate::push::devices::entra::{Hidden, encode};
use crate::push::providers::provider::Pass;
use crate::wire::target::{Target, TargetScheme};

/// Of a pass.
const PASS_SECONDS: i64 = 3600;
/// A pass is renewed so long before it ends.
const RENEW_BEFORE_SECONDS: i64 = 600;

/// What a connection string says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SasKey {
    /// `https://NAMESPACE.servicebus.windows.net`
    pub origin: String,
    /// What is signed: the namespace, and so all that is in it.
    resource: String,
    name: String,
    key: Hidden,
}

impl SasKey {
    /// Reads `Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…`,
    /// in any order.
    pub fn parse(connection: &str) -> Result<SasKey, String> {
        let parts = connection.trim().split(';').filter(|part| !part.is_empty());
        let (mut endpoint, mut name, mut key) = (None, None, None);
        for part in parts {
            let (word, value) = part.split_once('=').ok_or(
                "a connection string looks like \
                 Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…",
            )?;
            match word.trim().to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(value.trim()),
                "sharedaccesskeyname" => name = Some(value.trim()),
                "sharedaccesskey" => key = Some(value.trim()),
                // Of one hub; which hub it is stands in the configuration.
                "entitypath" => {}
                _ => return Err("the connection string has a part that is unknown".to_string()),
            }
        }
        let endpoint = endpoint.ok_or("the connection string has no Endpoint")?;
        let name = name.ok_or("the connection string has no SharedAccessKeyName")?;
        let key = key.ok_or("the connection string has no SharedAccessKey")?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !plain(name) || name.contains('&') {
            return Err("SharedAccessKeyName is no name of a policy".to_string());
        }
        if !plain(key) {
            return Err("SharedAccessKey is no key".to_string());
        }
        let origin = namespace(endpoint).map_err(|why| format!("Endpoint: {why}"))?;
        Ok(SasKey {
            resource: encode(&format!("{origin}/")),
            origin,
            name: name.to_string(),
            key: Hidden::new(key),
        })
    }

    pub fn pass(&self, now: Now) -> Pass {
        let ends_at = now.unix_seconds() + PASS_SECONDS;
        let text = format!("{}\n{ends_at}", self.resource);
        // The key is what stands there, though it looks like base64.
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_str().as_bytes());
        let signature = BASE64.encode(hmac::sign(&key, text.as_bytes()).as_ref());
        let (resource, name) = (&self.resource, &self.name);
        let signature = encode(&signature);
        Pass {
            authorization: format!(
                "SharedAccessSignature sr={resource}&sig={signature}&se={ends_at}&skn={name}"
            ),
            renew_at: ends_at - RENEW_BEFORE_SECONDS,
            ends_at,
        }
    }
}

/// The origin, in lower case, of `sb://…` or `https://…`.
pub fn namespace(endpoint: &str) -> Result<String, String> {
    let web = match endpoint.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("sb://") => {
            format!("https://{}", &endpoint[5..])
        }
        _ => endpoint.to_string(),
    };
    let target = Target::parse_web(&web)
        .map_err(|_| "a namespace looks like sb://NAME.servicebus.windows.net/".to_string())?;
    if target.scheme() != TargetScheme::HttpTls {
        return Err("a key is shown over TLS only".to_string());
    }
    if target.path_and_query() != "/" {
        return Err("a namespace has no path".to_string());
    }
    Ok(format!("https://{}", target.authority()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::now::Moment;

    /// A signature that Microsoft's own SDK for JavaScript made.
    #[test]
    fn a_signature_is_what_microsofts_own_would_be() {
        let key = SasKey::parse(
            "Endpoint=sb://localhost:8443/;SharedAccessKeyName=DefaultFullSharedAccessSignature;\
             SharedAccessKey=YWJjZA==",
        );
        let key = key.expect("a connection string");
        assert_eq!(key.origin, "https://localhost:8443");
        let now = Now {
            moment: Moment::default(),
            unix_ms: (1_795_370_571 - 3600) * 1000,
        };
        let pass = key.pass(now);
        assert_eq!(
            pass.authorization,
            "SharedAccessSignature sr=https%3A%2F%2Flocalhost%3A8443%2F\
             &sig=XL2ln2iWUc0Y6DiTXqsdP%2BX3SlZetz9EMDdrO%2BrUfWU%3D\
             &se=1795370571&skn=DefaultFullSharedAccessSignature"
        );
        assert_eq!(
            (pass.renew_at, pass.ends_at),
            (1_795_369_971, 1_795_370_571)
        );
    }

    #[test]
    fn a_connection_string_is_read_in_any_order_and_case() {
        let usual =
            "Endpoint=sb://Ns.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=a=b=";
        let other = " sharedaccesskey=a=b=;EntityPath=hub;SharedAccessKeyName=n;\
                     endpoint=https://ns.servicebus.windows.net;\n";
        let read = SasKey::parse(usual).expect("a connection string");
        assert_eq!(read.origin, "https://ns.servicebus.windows.net");
        assert_eq!(read.key.as_str(), "a=b=");
        assert_eq!(SasKey::parse(other), Ok(read));
    }

    #[test]
    fn what_is_none_is_refused_without_being_quoted() {
        let table = [
            ("", "the connection string has no Endpoint"),
            ("tiger", "a connection string looks like"),
            (
                "Endpoint=sb://n/;Tiger=tiger",
                "the connection string has a part",
            ),
            (
                "Endpoint=sb://n/;SharedAccessKey=tiger",
                "the connection string has no SharedAccessKeyName",
            ),
            (
                "Endpoint=sb://n/;SharedAccessKeyName=n",
                "the connection string has no SharedAccessKey",
            ),
            (
                "Endpoint=sb://n/;SharedAccessKeyName=n&se=1;SharedAccessKey=tiger",
                "SharedAccessKeyName is",
            ),
            (
                "Endpoint=sb://n/;SharedAccessKeyName=n;SharedAccessKey=ti ger",
                "SharedAccessKey is",
            ),
            (
                "Endpoint=sb://n/;SharedAccessKeyName=n;SharedAccessKey=",
                "SharedAccessKey is",
            ),
            (
                "Endpoint=http://n/;SharedAccessKeyName=n;SharedAccessKey=tiger",
                "Endpoint: a key is shown",
            ),
            (
                "Endpoint=tiger;SharedAccessKeyName=n;SharedAccessKey=tiger",
                "Endpoint: a namespace looks",
            ),
            (
                "Endpoint=sb://n/hub;SharedAccessKeyName=n;SharedAccessKey=tiger",
                "Endpoint: a namespace has",
            ),
        ];
        for (text, expected) in table {
            let error = SasKey::parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("iger"), "{error}");
        }
    }
}
