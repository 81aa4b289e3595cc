//! Names to addresses, on a thread of its own, since the system's resolver blocks: one name at a
//! time, in the order they were asked for. Knows no connection. Bounds: so many names wait, and one
//! more is refused; a name that nobody waits for any more is not looked up.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::Waker;

use crate::base::ids::DialId;

/// Names that wait.
const NAMES: usize = 256;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

struct Question {
    dial: DialId,
    host: String,
    port: u16,
    wanted: Weak<()>,
}

/// What became of a name.
pub struct Resolved {
    pub dial: DialId,
    pub addresses: io::Result<Vec<SocketAddr>>,
}

/// See the file's head. Dropping it ends the thread once the system lets go of it; nobody waits.
pub struct Resolver {
    questions: Sender<Question>,
    answers: Receiver<Resolved>,
}

/// The name is looked up as long as this is kept.
pub type Wanted = Arc<()>;

impl Resolver {
    /// `waker` is used when there is an answer.
    pub fn start(waker: Arc<Waker>) -> io::Result<Resolver> {
        let (questions, asked) = bounded::<Question>(NAMES);
        // The thread waits while nobody takes the answers.
        let (answer, answers) = bounded(NAMES);
        let work = move || {
            for question in asked {
                if question.wanted.strong_count() == 0 {
                    continue;
                }
                let found = (question.host.as_str(), question.port).to_socket_addrs();
                let resolved = Resolved {
                    dial: question.dial,
                    addresses: found.map(|all| all.take(ADDRESSES).collect()),
                };
                if answer.send(resolved).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("resolver".into()).spawn(work)?;
        Ok(Resolver { questions, answers })
    }

    /// Asks for the addresses of a name; why not.
    pub fn ask(&self, dial: DialId, host: &str, port: u16) -> Result<Wanted, &'static str> {
        let wanted = Arc::new(());
        let question = Question {
            dial,
            host: host.to_string(),
            port,
            wanted: Arc::downgrade(&wanted),
        };
        match self.questions.try_send(question) {
            Ok(()) => Ok(wanted),
            Err(TrySendError::Full(_)) => Err("too many names wait to be resolved"),
            Err(TrySendError::Disconnected(_)) => Err("names cannot be resolved any more"),
        }
    }

    /// The next answer, if there is one.
    pub fn next(&self) -> Option<Resolved> {
        self.answers.try_recv().ok()
    }
}
