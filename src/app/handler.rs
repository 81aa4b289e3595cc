//! The applications a listener can be given in the configuration.

/// The `handler` of a `[[listen]]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Pusher Channels: the WebSocket protocol and the HTTP API.
    Channels,
    /// Answers every message, and every HTTP POST, with what it got.
    Echo,
    /// Numbers for Prometheus.
    Metrics,
    /// Files below a directory.
    Files,
    /// What the embedding program registered under this number (`app::service`).
    Service(u16),
}

impl Handler {
    pub fn is_service(self) -> bool {
        matches!(self, Handler::Service(_))
    }

    /// Those that every server has, with their words in the configuration.
    pub const BUILT_IN: [(&str, Handler); 4] = [
        ("channels", Handler::Channels),
        ("echo", Handler::Echo),
        ("metrics", Handler::Metrics),
        ("files", Handler::Files),
    ];
}
