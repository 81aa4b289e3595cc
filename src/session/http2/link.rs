//! The h2 crate's halves of a connection: who asks, who reads and writes, who pings. Owns how they
//! are set up. Knows no request under way.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong};

use super::pipe::Pipe;

/// The fields of an answer, counted as RFC 9113 section 6.5.2 does. h2 resets the stream of an
/// answer with more, and ends the connection over a head without end.
const HEAD_BYTES: u32 = 16 * 1024;
/// What the server may send before we have read it. We read at once, so it bounds nothing: it only
/// keeps the server from waiting.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Late streams that are remembered, so that their answers are passed over in silence; to those of
/// others h2 answers with a reset, and it ends the connection after a thousand of these.
const LATE_MAX: usize = 1000;

/// See the file's head.
pub(super) struct Link {
    /// `None` once nothing more is asked: with that h2 ends the connection after the last answer.
    sender: Option<SendRequest<Bytes>>,
    connection: Connection<Pipe, Bytes>,
    pings: Option<PingPong>,
}

impl Link {
    /// Writes our preface and SETTINGS.
    pub fn open(pipe: &Pipe, waker: &Waker) -> Link {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(1)
            .max_header_list_size(HEAD_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_concurrent_reset_streams(LATE_MAX)
            // h2 forgets by the clock; never is the only time that is the same in every run.
            .reset_stream_duration(Duration::MAX);
        let handshake = pin!(builder.handshake(pipe.clone()));
        match handshake.poll(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok((sender, mut connection))) => Link {
                sender: Some(sender),
                pings: connection.ping_pong(),
                connection,
            },
            _ => unreachable!("the pipe takes what is written, and nothing is read"),
        }
    }

    /// Requests at a time, as the server allows them now.
    pub fn streams_allowed(&self) -> usize {
        let sender = self.sender.as_ref();
        sender.map_or(0, SendRequest::current_max_send_streams)
    }

    /// The request's key, and its answer to come. `None`: the connection takes no more.
    pub fn ask(
        &mut self,
        head: http::Request<()>,
        body: Bytes,
    ) -> Option<Result<(u32, ResponseFuture), h2::Error>> {
        // A clone does not wait until h2 has written the request before.
        let mut sender = self.sender.clone()?;
        let asked = sender.send_request(head, body.is_empty());
        Some(asked.and_then(|(answer, mut stream)| {
            let key = stream.stream_id().as_u32();
            if !body.is_empty() {
                stream.send_data(body, true)?;
            }
            Ok((key, answer))
        }))
    }

    /// Nothing more is asked; whether that is news.
    pub fn close(&mut self) -> bool {
        self.sender.take().is_some()
    }

    /// Reads and writes as far as it goes. Ready when the connection is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        Pin::new(&mut self.connection).poll(cx)
    }

    /// Written by the next `poll`. None is under way.
    pub fn ping(&mut self) {
        if let Some(pings) = &mut self.pings {
            // Fails only when the connection is over, which `poll` tells.
            let _ = pings.send_ping(Ping::opaque());
        }
    }

    /// Whether the answer to a PING has come.
    pub fn take_pong(&mut self, cx: &mut Context<'_>) -> bool {
        let pings = self.pings.as_mut();
        pings.is_some_and(|pings| matches!(pings.poll_pong(cx), Poll::Ready(Ok(_))))
    }
}

/// Why a stream or a connection ended, in words that hold nothing the server said.
pub(super) fn explain(error: &h2::Error) -> String {
    let reason = error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    let (code, text) = (u32::from(reason), reason.description());
    match () {
        () if error.is_io() => "the connection ended".to_string(),
        () if !error.is_remote() => format!("the server breaks HTTP/2: {text} ({code})"),
        () if error.is_go_away() => format!("the server ends the connection: {text} ({code})"),
        () => format!("the server ends the stream: {text} ({code})"),
    }
}
