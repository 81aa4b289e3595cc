//! One request and its answer: Asked → Answering → done. Owns what has come of the answer so far.
//! Knows neither the other streams nor the time. Dropping it before its end resets the stream
//! (CANCEL). Invariant: once a status has come it is told, whatever becomes of the body.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};

use crate::base::now::Moment;
use crate::wire::http2::{Fields, Http2Answer};

/// Of a longer body no more is kept, and the stream is reset.
pub(super) const BODY_BYTES: usize = 64 * 1024;

/// See the file's head.
pub(super) struct Exchange {
    /// The stream's identifier (RFC 9113 section 5.1.1).
    pub key: u32,
    pub deadline: Moment,
    /// Bytes of the request's body.
    pub body_len: usize,
    /// How many bytes the connection had written before: none of the request is among them.
    pub behind: u64,
    phase: Phase,
}

enum Phase {
    Asked(ResponseFuture),
    Answering(Http2Answer, RecvStream),
}

/// What came of polling it.
pub(super) enum Step {
    Pending,
    Done(Http2Answer),
    Failed(h2::Error),
}

impl Exchange {
    pub fn new(
        key: u32,
        deadline: Moment,
        body_len: usize,
        behind: u64,
        answer: ResponseFuture,
    ) -> Exchange {
        let phase = Phase::Asked(answer);
        Exchange {
            key,
            deadline,
            body_len,
            behind,
            phase,
        }
    }

    /// After `Done` or `Failed` it is to be dropped.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Step {
        loop {
            match &mut self.phase {
                Phase::Asked(answer) => match Pin::new(answer).poll(cx) {
                    Poll::Pending => return Step::Pending,
                    Poll::Ready(Err(error)) => return Step::Failed(error),
                    Poll::Ready(Ok(answer)) => self.begin(answer),
                },
                Phase::Answering(answer, rest) => match read_body(answer, rest, cx) {
                    Poll::Pending => return Step::Pending,
                    Poll::Ready(whole) => {
                        let mut answer = std::mem::take(answer);
                        answer.whole = whole;
                        return Step::Done(answer);
                    }
                },
            }
        }
    }

    fn begin(&mut self, answer: http::Response<RecvStream>) {
        let (head, rest) = answer.into_parts();
        let answer = Http2Answer {
            status: head.status.as_u16(),
            fields: Fields::new(head.headers),
            ..Http2Answer::default()
        };
        self.phase = Phase::Answering(answer, rest);
    }

    /// Ends it here: what is known of the answer, if its head has come.
    pub fn cut(self) -> Option<Http2Answer> {
        match self.phase {
            Phase::Asked(_) => None,
            Phase::Answering(answer, _) => Some(answer),
        }
    }
}

/// Whether the body came whole. Trailers say nothing that we want to know.
fn read_body(answer: &mut Http2Answer, rest: &mut RecvStream, cx: &mut Context<'_>) -> Poll<bool> {
    loop {
        match rest.poll_data(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(true),
            Poll::Ready(Some(Ok(bytes))) => {
                let room = BODY_BYTES - answer.body.len();
                answer
                    .body
                    .extend_from_slice(&bytes[..room.min(bytes.len())]);
                // Fails only for more than was received.
                let _ = rest.flow_control().release_capacity(bytes.len());
                if bytes.len() > room {
                    return Poll::Ready(false);
                }
            }
            Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
        }
    }
}

/// Whether the server says that it did nothing about the request (RFC 9113 section 8.7).
pub(super) fn is_refusal(error: &h2::Error) -> bool {
    let by_goaway = error.is_go_away();
    let by_reset = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (by_goaway || by_reset)
}
