//! The words of `lineman mock` on the command line, with their defaults. Owns no file and no key: what
//! they name is read by `providers` and the module above.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::mock::Kind;

/// Which push provider is imitated.
#[derive(Clone, Debug, Subcommand)]
pub enum Which {
    /// Apple's Push Notification service: devices, broadcast channels, their management
    Apns {
        #[command(flatten)]
        own: ApnsWords,
        #[command(flatten)]
        common: Common,
    },
    /// Firebase Cloud Messaging: access tokens, messages, topics
    Fcm {
        #[command(flatten)]
        own: FcmWords,
        #[command(flatten)]
        common: Common,
    },
    /// A Web Push service, and browsers that subscribed to it
    Webpush {
        #[command(flatten)]
        own: WebPushWords,
        #[command(flatten)]
        common: Common,
    },
    /// Azure Notification Hubs, Key Vault, and the tokens for it (Entra ID, instance metadata)
    Azure {
        #[command(flatten)]
        own: AzureWords,
        #[command(flatten)]
        common: Common,
    },
}

impl Which {
    pub fn kind(&self) -> Kind {
        match self {
            Which::Apns { .. } => Kind::Apns,
            Which::Fcm { .. } => Kind::Fcm,
            Which::Webpush { .. } => Kind::WebPush,
            Which::Azure { .. } => Kind::Azure,
        }
    }

    pub fn common(&self) -> &Common {
        match self {
            Which::Apns { common, .. }
            | Which::Fcm { common, .. }
            | Which::Webpush { common, .. }
            | Which::Azure { common, .. } => common,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct ApnsWords {
    /// A PEM file with the key that signs tokens, or its public half [default: any key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The only key id (`kid`) that is taken
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// The only team id (`iss`) that is taken
    #[arg(long, value_name = "ID")]
    pub team_id: Option<String>,
    /// A bundle id that may be sent to; may be repeated [default: any]
    #[arg(long = "topic", value_name = "BUNDLE")]
    pub topics: Vec<String>,
    /// Answer as the production environment does, without apns-unique-id
    #[arg(long)]
    pub production: bool,
}

#[derive(Clone, Debug, Args)]
pub struct FcmWords {
    /// A service account's JSON, or a PEM file with its public key [default: one is made and
    /// written]
    #[arg(long, value_name = "FILE")]
    pub account: Option<PathBuf>,
    /// The only project there is
    #[arg(long, value_name = "ID")]
    pub project: Option<String>,
    /// Take every access token, whoever gave it out
    #[arg(long)]
    pub any_access_token: bool,
}

#[derive(Clone, Debug, Args)]
pub struct WebPushWords {
    /// Make so many subscriptions and decrypt what is sent to them; 0: take every path
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub subscriptions: u32,
    /// The VAPID key that they were made for, in base64url [default: any]
    #[arg(long, value_name = "KEY")]
    pub vapid: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct AzureWords {
    /// The only hub there is
    #[arg(long, value_name = "NAME")]
    pub hub: Option<String>,
    /// The name of the shared access key
    #[arg(
        long,
        value_name = "NAME",
        default_value = "DefaultFullSharedAccessSignature"
    )]
    pub key_name: String,
    /// The shared access key [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// A secret of the vault; may be repeated [default: push-token-key, 32 random bytes]
    #[arg(long = "secret", value_name = "NAME=VALUE")]
    pub secrets: Vec<String>,
    /// The only client that gets access tokens [default: any]
    #[arg(long, value_name = "ID:SECRET")]
    pub client: Option<String>,
}

/// What all have in common.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Where to listen; may be repeated; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// HTTP/1.1 and HTTP/2 without TLS
    #[arg(long)]
    pub plain: bool,
    /// Speak HTTP/1.1 only; not as APNs
    #[arg(long)]
    pub http1: bool,
    /// Where ca.pem and keys are written [default: a new directory among the temporary ones]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A certificate of your own, as PEM, instead of one that is made
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub cert_key: Option<PathBuf>,
    /// A further host that the certificate is made for; may be repeated
    #[arg(long = "name", value_name = "HOST")]
    pub names: Vec<String>,
    /// Ask clients for a certificate of these authorities; APNs then wants no token
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    pub client_ca: Option<PathBuf>,
    /// What is answered, and when: 'token=dead* answer=Unregistered'; may be repeated, the first
    /// that applies is obeyed. See docs/mock.md
    #[arg(long = "rule", value_name = "RULE")]
    pub rules: Vec<String>,
    /// A TOML file with [[rule]] tables, behind those of the command line
    #[arg(long = "rules", value_name = "FILE")]
    pub rules_file: Option<PathBuf>,
    /// No line for each request
    #[arg(long)]
    pub quiet: bool,
    /// Requests of an HTTP/2 connection at a time
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub streams: u32,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub connections: usize,
}
