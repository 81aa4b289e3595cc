//! One request that a client asks: Reading → told → answered. Owns what has come of its body. Knows
//! neither the other streams nor what is answered. Dropping it before its answer resets the stream
//! (CANCEL).

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use crate::wire::http2::{Fields, Http2Asked};

use super::super::StreamKey;

/// See the file's head.
pub(super) struct Stream {
    pub key: StreamKey,
    pub reply: SendResponse<Bytes>,
    /// Bytes of the body that count as held until the stream is released.
    pub kept: usize,
    /// `None` once it was told.
    reading: Option<(Http2Asked, RecvStream)>,
}

/// What came of polling it.
pub(super) enum Step {
    Pending,
    Whole(Http2Asked),
    /// The client gave it up.
    Reset {
        told: bool,
    },
}

impl Stream {
    pub fn new(request: http::Request<RecvStream>, reply: SendResponse<Bytes>) -> Stream {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query();
        let asked = Http2Asked {
            method: head.method.to_string(),
            target: target.map_or("/", |target| target.as_str()).to_string(),
            authority: head.uri.authority().map(ToString::to_string),
            fields: Fields::new(head.headers),
            body: Vec::new(),
            whole: true,
        };
        Stream {
            key: StreamKey(reply.stream_id().as_u32()),
            reply,
            kept: 0,
            reading: Some((asked, body)),
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>, body_bytes: usize) -> Step {
        let Some((asked, body)) = &mut self.reading else {
            return match self.reply.poll_reset(cx) {
                Poll::Pending => Step::Pending,
                Poll::Ready(_) => Step::Reset { told: true },
            };
        };
        let read = loop {
            match body.poll_data(cx) {
                Poll::Pending => return Step::Pending,
                Poll::Ready(None) => break true,
                Poll::Ready(Some(Err(_))) => break false,
                Poll::Ready(Some(Ok(bytes))) => {
                    // Fails only for more than was received.
                    let _ = body.flow_control().release_capacity(bytes.len());
                    let room = body_bytes - asked.body.len();
                    let fits = &bytes[..room.min(bytes.len())];
                    asked.body.extend_from_slice(fits);
                    self.kept += fits.len();
                    if bytes.len() > room {
                        asked.whole = false;
                        break true;
                    }
                }
            }
        };
        match self.reading.take() {
            Some((asked, _)) if read => Step::Whole(asked),
            _ => Step::Reset { told: false },
        }
    }
}
