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
}

impl Handler {
    pub const ALL: [Handler; 4] = [
        Handler::Channels,
        Handler::Echo,
        Handler::Metrics,
        Handler::Files,
    ];

    /// Its word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Handler::Channels => "channels",
            Handler::Echo => "echo",
            Handler::Metrics => "metrics",
            Handler::Files => "files",
        }
    }
}
