//! What a listener demands of TLS apart from its certificates. Values only; `net` keeps to them.

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    #[default]
    None,
    /// A certificate is checked when there is one.
    Optional,
    Required,
}

/// What does not come from certificate files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsRules {
    pub client_auth: ClientAuth,
    /// TLS 1.2 is refused.
    pub only_tls13: bool,
    /// Protocols for ALPN (RFC 7301); empty when there is none to speak of.
    pub alpn: Vec<Vec<u8>>,
}
