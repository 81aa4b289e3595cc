//! The thread of a store: requests come in over a bounded queue, are done one after the other, and
//! replies go back the same way. Does not know what keeps them. Invariant: each request has one reply.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use crate::push::facts::{Store, StoreReply, StoreRequest};

/// One request is under way; a second only when the first went wrong.
const REQUESTS: usize = 4;

/// See the file's head. Dropping it ends the thread when its request is done.
pub struct Desk {
    requests: Sender<StoreRequest>,
    replies: Receiver<StoreReply>,
}

impl Desk {
    /// `answer` does the work, with what `begin` made in the thread. `waker` is used when there is a
    /// reply.
    pub fn start<K>(
        waker: Arc<Waker>,
        begin: impl FnOnce() -> K + Send + 'static,
        answer: impl Fn(&mut K, &StoreRequest) -> StoreReply + Send + 'static,
    ) -> std::io::Result<Desk> {
        let (requests, asked) = bounded(REQUESTS);
        let (reply, replies) = bounded(REQUESTS);
        let work = move || {
            let mut keeper = begin();
            for request in asked {
                let done = answer(&mut keeper, &request);
                if reply.send(done).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("store".into()).spawn(work)?;
        Ok(Desk { requests, replies })
    }
}

impl Store for Desk {
    fn ask(&mut self, request: StoreRequest) {
        // It cannot be full, and whoever asks hears of a thread that is gone by its silence.
        let _ = self.requests.try_send(request);
    }

    fn next(&mut self) -> Option<StoreReply> {
        self.replies.try_recv().ok()
    }
}
