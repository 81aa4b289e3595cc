//! Where in Azure Key Vault a token key is kept, and who asks for it: `{ key_vault = "URL", identity =
//! { … } }`. Owns how that is written. Does not know what is asked (`push/devices/key_vault`), and asks
//! nobody (`run/key_vault`). Invariant: no message repeats what was written.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::secret::{Keeper, RawSecret};

/// A secret of a vault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultKeeper {
    /// `https://VAULT.vault.azure.net/secrets/NAME[/VERSION]`
    #[serde(rename = "key_vault")]
    pub url: String,
    #[serde(default)]
    pub identity: VaultIdentity,
}

/// Whose access token opens the vault: a client's with its secret, an App Service's with its header,
/// else the machine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaultIdentity {
    pub tenant: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<Keeper>,
    pub identity_header: Option<Keeper>,
    /// Who gives out access tokens, instead of Azure or the machine's metadata service.
    pub token_url: Option<String>,
    /// What the access token is for, where the vault's name does not say it.
    pub resource: Option<String>,
    /// The authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl VaultKeeper {
    /// Relative paths start at `base`.
    pub fn under(&self, base: &Path) -> VaultKeeper {
        let mut keeper = self.clone();
        let identity = &mut keeper.identity;
        for secret in [&mut identity.client_secret, &mut identity.identity_header] {
            *secret = secret.as_ref().map(|secret| secret.under(base));
        }
        identity.ca_file = identity.ca_file.as_ref().map(|path| base.join(path));
        keeper
    }

    /// The secrets that are needed to ask.
    pub fn secrets(&self) -> impl Iterator<Item = &Keeper> {
        let identity = &self.identity;
        let all = [&identity.client_secret, &identity.identity_header];
        all.into_iter().flatten()
    }
}

/// A token key as written: wherever secrets are kept, or in a vault.
#[derive(Debug)]
pub(super) struct RawTokenKey(pub RawSecret);

impl RawTokenKey {
    pub fn is_vault(&self) -> bool {
        matches!(&self.0, RawSecret::Elsewhere(keeper) if keeper.is_vault())
    }
}

const EXPECTED: &str = "expected { key_vault = \"URL\" }, and perhaps identity = { … } with tenant, \
                        client_id, client_secret = { env = \"…\" }, identity_header, token_url, \
                        resource, ca_file";

impl<'de> Deserialize<'de> for RawTokenKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<RawTokenKey, D::Error> {
        let custom = |why: String| serde::de::Error::custom(why);
        let value = toml::Value::deserialize(from)?;
        if value.get("key_vault").is_none() {
            let other = RawSecret::deserialize(value);
            return other
                .map(RawTokenKey)
                .map_err(|error| custom(error.message().to_string()));
        }
        let keeper = VaultKeeper::deserialize(value).ok();
        let keeper = keeper.filter(|keeper| keeper.secrets().all(|it| !it.is_vault()));
        let keeper = keeper.ok_or_else(|| custom(EXPECTED.to_string()))?;
        let keeper = Keeper::KeyVault(Box::new(keeper));
        Ok(RawTokenKey(RawSecret::Elsewhere(keeper)))
    }
}
