//! The words of `lineman mock`. Owns their defaults; what they lead to is `run/mock`'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::run::exit::{Exit, Failure};
use crate::run::mock::{ApnsStart, AzureStart, FcmStart, MockStart, WebPushStart, Which, run};

/// Which push provider is imitated.
#[derive(Debug, Subcommand)]
pub enum MockVerb {
    /// Apple's Push Notification service: devices, broadcast channels, their management
    Apns {
        /// A PEM file with the key that signs tokens, or its public half [default: any key]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The only key id (`kid`) that is taken
        #[arg(long, value_name = "ID")]
        key_id: Option<String>,
        /// The only team id (`iss`) that is taken
        #[arg(long, value_name = "ID")]
        team_id: Option<String>,
        /// A bundle id that may be sent to; may be repeated [default: any]
        #[arg(long = "topic", value_name = "BUNDLE")]
        topics: Vec<String>,
        /// Answer as the production environment does, without apns-unique-id
        #[arg(long)]
        production: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Firebase Cloud Messaging: access tokens, messages, topics
    Fcm {
        /// A service account's JSON, or a PEM file with its public key [default: one is made and
        /// written]
        #[arg(long, value_name = "FILE")]
        account: Option<PathBuf>,
        /// The only project there is
        #[arg(long, value_name = "ID")]
        project: Option<String>,
        /// Take every access token, whoever gave it out
        #[arg(long)]
        any_access_token: bool,
        #[command(flatten)]
        common: Common,
    },
    /// A Web Push service, and browsers that subscribed to it
    Webpush {
        /// Make so many subscriptions and decrypt what is sent to them; 0: take every path
        #[arg(long, value_name = "N", default_value_t = 1)]
        subscriptions: usize,
        /// The VAPID key that they were made for, in base64url [default: any]
        #[arg(long, value_name = "KEY")]
        vapid: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Azure Notification Hubs, Key Vault, and the tokens for it (Entra ID, instance metadata)
    Azure {
        /// The only hub there is
        #[arg(long, value_name = "NAME")]
        hub: Option<String>,
        /// The name of the shared access key
        #[arg(
            long,
            value_name = "NAME",
            default_value = "DefaultFullSharedAccessSignature"
        )]
        key_name: String,
        /// The shared access key [default: a random one]
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// A secret of the vault; may be repeated [default: push-token-key, 32 random bytes]
        #[arg(long = "secret", value_name = "NAME=VALUE")]
        secrets: Vec<String>,
        /// The only client that gets access tokens [default: any]
        #[arg(long, value_name = "ID:SECRET")]
        client: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// What all have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Where to listen; may be repeated; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: Vec<SocketAddr>,
    /// HTTP/1.1 and HTTP/2 without TLS
    #[arg(long)]
    plain: bool,
    /// Where ca.pem and keys are written [default: a new directory among the temporary ones]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A certificate of your own, as PEM, instead of one that is made
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// A further host that the certificate is made for; may be repeated
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Ask clients for a certificate of these authorities; APNs then wants no token
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    client_ca: Option<PathBuf>,
    /// What is answered, and when: 'token=dead* answer=Unregistered'; may be repeated, the first
    /// that applies is obeyed. See docs/mock.md
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// A TOML file with [[rule]] tables, behind those of the command line
    #[arg(long = "rules", value_name = "FILE")]
    rules_file: Option<PathBuf>,
    /// No line for each request
    #[arg(long)]
    quiet: bool,
    /// Requests of an HTTP/2 connection at a time
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: usize,
}

impl Common {
    fn start(&self) -> MockStart {
        MockStart {
            listen: self.listen.clone(),
            plain: self.plain,
            dir: self.dir.clone(),
            identity: self.cert.clone().zip(self.cert_key.clone()),
            names: self.names.clone(),
            client_ca: self.client_ca.clone(),
            rules: self.rules.clone(),
            rules_file: self.rules_file.clone(),
            quiet: self.quiet,
            streams: self.streams,
            connections: self.connections,
        }
    }
}

impl MockVerb {
    /// Runs until the process is ended.
    pub fn run(&self) -> Result<Exit, Failure> {
        let (common, which) = match self {
            MockVerb::Apns {
                key,
                key_id,
                team_id,
                topics,
                production,
                common,
            } => (
                common,
                Which::Apns(ApnsStart {
                    key: key.clone(),
                    key_id: key_id.clone(),
                    team_id: team_id.clone(),
                    topics: topics.clone(),
                    by_certificate: common.client_ca.is_some(),
                    production: *production,
                }),
            ),
            MockVerb::Fcm {
                account,
                project,
                any_access_token,
                common,
            } => (
                common,
                Which::Fcm(FcmStart {
                    account: account.clone(),
                    project: project.clone(),
                    any_access_token: *any_access_token,
                }),
            ),
            MockVerb::Webpush {
                subscriptions,
                vapid,
                common,
            } => (
                common,
                Which::WebPush(WebPushStart {
                    subscriptions: *subscriptions,
                    vapid: vapid.clone(),
                }),
            ),
            MockVerb::Azure {
                hub,
                key_name,
                key,
                secrets,
                client,
                common,
            } => (
                common,
                Which::Azure(AzureStart {
                    hub: hub.clone(),
                    key_name: key_name.clone(),
                    key: key.clone(),
                    secrets: secrets.clone(),
                    client: client.clone(),
                }),
            ),
        };
        run(&common.start(), &which)
    }
}
