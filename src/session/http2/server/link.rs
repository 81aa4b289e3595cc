//! The h2 crate's server side of a connection: the preface, then streams one after the other. Owns how
//! it is set up. Knows no request under way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};

use super::super::link::explain;
use super::super::pipe::Pipe;
use super::stream::Stream;

/// The fields of a request, counted as RFC 9113 section 6.5.2 does; what Apple's servers say.
const HEAD_BYTES: u32 = 16 * 1024;
/// What a client may send before we have read it; all is read at once.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The window of each stream, which is the default; said again, it changes nothing (RFC 9113 section
/// 6.9.2).
const STREAM_WINDOW_BYTES: u32 = 65_535;

/// See the file's head.
pub(super) enum Link {
    Opening(Handshake<Pipe, Bytes>),
    Open(Connection<Pipe, Bytes>),
}

impl Link {
    pub fn open(pipe: &Pipe, streams_max: u32) -> Link {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEAD_BYTES)
            .max_concurrent_streams(streams_max)
            // h2 forgets by the clock; never is the only time that is the same in every run.
            .reset_stream_duration(Duration::MAX);
        Link::Opening(builder.handshake(pipe.clone()))
    }

    /// The next stream, or why the connection is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, String>> {
        if let Link::Opening(handshake) = self {
            let opened = ready!(Pin::new(handshake).poll(cx));
            *self = Link::Open(opened.map_err(|error| explain(&error))?);
        }
        let Link::Open(connection) = self else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(connection.poll_accept(cx)) {
            Some(Ok((request, reply))) => Ok(Stream::new(request, reply)),
            Some(Err(error)) => Err(explain(&error)),
            None => Err("the client ended it".to_string()),
        })
    }

    /// Has h2 write a SETTINGS frame that says nothing new.
    pub fn repeat_settings(&mut self) -> Result<(), h2::Error> {
        match self {
            Link::Opening(_) => Ok(()),
            Link::Open(connection) => connection.set_initial_window_size(STREAM_WINDOW_BYTES),
        }
    }
}
