//! One WebSocket handshake, client side (RFC 6455 section 4.1): asked → agreed or refused. Knows
//! nothing of what is spoken then. Invariants: no byte of the answer is scanned twice, however it is
//! cut; what stands behind it stays in the inbox, where it is the first frame.

use data_encoding::BASE64;

use crate::base::bytes::{Full, Inbox, Outbox};
use crate::base::dice::Dice;
use crate::wire::http_head::Lines;
use crate::wire::target::Target;
use crate::wire::websocket_upgrade as wire;

pub struct Upgrade {
    key: String,
    subprotocol: Option<String>,
    /// How far the answer was read.
    lines: Lines,
}

/// What came of the input so far.
#[derive(Debug, PartialEq, Eq)]
pub enum UpgradeStep {
    Idle,
    /// The connection is a WebSocket from here on.
    Agreed,
    /// It will not become one; why.
    Refused(String),
}

impl Upgrade {
    /// Queues the request. `dice` has to be unpredictable, so that nobody who does not see the
    /// request can have answered it.
    pub fn begin(target: &Target, dice: &mut Dice, out: &mut Outbox) -> Result<Upgrade, Full> {
        let key = BASE64.encode(&dice.next_u128().to_le_bytes());
        out.push(&wire::request(target, &key))?;
        Ok(Upgrade {
            key,
            subprotocol: target.subprotocol().map(str::to_string),
            lines: Lines::default(),
        })
    }

    /// Reads on. What it leaves in the inbox it wants to see again, with more behind it. An answer
    /// whose head is longer than `head_bytes` is refused.
    pub fn next(&mut self, inbox: &mut Inbox<'_>, head_bytes: usize) -> UpgradeStep {
        let bytes = inbox.rest();
        let window = &bytes[..bytes.len().min(head_bytes)];
        loop {
            match self.lines.next(window) {
                Ok(Some(line)) if line.is_empty() => {
                    let head = inbox.take(line.end + 2);
                    let subprotocol = self.subprotocol.as_deref();
                    return match wire::check_answer(head, &self.key, subprotocol) {
                        Ok(()) => UpgradeStep::Agreed,
                        Err(why) => UpgradeStep::Refused(why),
                    };
                }
                Ok(Some(_)) => {}
                Ok(None) if window.len() >= head_bytes => {
                    let why = format!("the server's answer has a head over {head_bytes} bytes");
                    return UpgradeStep::Refused(why);
                }
                Ok(None) => return UpgradeStep::Idle,
                Err(_) => return UpgradeStep::Refused("the server's answer is not HTTP".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::websocket::accept_key;

    /// A handshake that was begun, and the answer that agrees to it.
    fn begin() -> (Upgrade, String) {
        let target = Target::parse("ws://a/").expect("a URL");
        let mut out = Outbox::new(1 << 10);
        let upgrade = Upgrade::begin(&target, &mut Dice::new([7; 16]), &mut out).expect("room");
        let request = String::from_utf8(out.front(1 << 10).to_vec()).expect("ASCII");
        let key = request.split("Sec-WebSocket-Key: ").nth(1).expect("a key");
        let key = key.split("\r\n").next().expect("its line");
        assert_eq!(BASE64.decode(key.as_bytes()).map(|key| key.len()), Ok(16));
        let accept = accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        (upgrade, answer)
    }

    /// What comes of pieces that arrive one after the other, and what is left in the inbox.
    fn feed(mut upgrade: Upgrade, pieces: &[&[u8]], head_bytes: usize) -> (UpgradeStep, Vec<u8>) {
        let mut held = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            held.extend_from_slice(piece);
            let mut inbox = Inbox::new(&mut held);
            let step = upgrade.next(&mut inbox, head_bytes);
            if step != UpgradeStep::Idle || index + 1 == pieces.len() {
                let mut rest = inbox.rest().to_vec();
                pieces[index + 1..]
                    .iter()
                    .for_each(|it| rest.extend_from_slice(it));
                return (step, rest);
            }
        }
        (UpgradeStep::Idle, held)
    }

    #[test]
    fn an_answer_is_understood_wherever_it_is_cut_and_frames_stay_behind_it() {
        let frame = b"\x81\x02hi";
        let len = begin().1.len() + frame.len();
        for cut in 0..=len {
            let (upgrade, answer) = begin();
            let stream = [answer.as_bytes(), frame].concat();
            let (front, back) = stream.split_at(cut);
            let (step, rest) = feed(upgrade, &[front, back], 1000);
            assert_eq!(
                (step, &rest[..]),
                (UpgradeStep::Agreed, &frame[..]),
                "cut at {cut}"
            );
        }
        let (upgrade, answer) = begin();
        let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
        assert_eq!(feed(upgrade, &bytes, 1000).0, UpgradeStep::Agreed);
    }

    #[test]
    fn a_head_is_read_up_to_its_bound_and_no_further() {
        let len = begin().1.len();
        for (head_bytes, agreed) in [(len, true), (len - 1, false)] {
            let (upgrade, answer) = begin();
            let pieces: Vec<&[u8]> = answer.as_bytes().chunks(7).collect();
            let (step, _) = feed(upgrade, &pieces, head_bytes);
            assert_eq!(step == UpgradeStep::Agreed, agreed, "{step:?}");
        }
        let endless = [b'x'; 100];
        let (step, _) = feed(begin().0, &[&endless], 100);
        assert!(matches!(step, UpgradeStep::Refused(why) if why.contains("over 100 bytes")));
    }

    #[test]
    fn what_is_not_http_is_refused_at_its_first_byte_that_shows_it() {
        for bytes in [&b"\n"[..], b"HTTP/1.1 101\n", b"HTTP/1.1 101\rX"] {
            let (step, _) = feed(begin().0, &[bytes], 100);
            assert!(matches!(step, UpgradeStep::Refused(_)), "{bytes:?}");
        }
    }

    #[test]
    fn no_two_handshakes_have_one_key() {
        let target = Target::parse("ws://a/").expect("a URL");
        let mut dice = Dice::new([7; 16]);
        let mut out = Outbox::new(1 << 12);
        let mut key = || {
            Upgrade::begin(&target, &mut dice, &mut out)
                .expect("room")
                .key
        };
        assert_ne!(key(), key());
    }
}
