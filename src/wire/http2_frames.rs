//! The frames of HTTP/2 that tell a client about its connection (RFC 9113 sections 4.1, 6.5, 6.8):
//! found in what a server sends, and written for one that has more to say than the library lets it.
//! Owns where the next frame begins; reads no other payload and checks nothing: who speaks HTTP/2
//! does that. Invariant: how the bytes are cut changes nothing of what is found.

/// Of the words in a GOAWAY so much is kept.
const DEBUG_BYTES: usize = 1024;

const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;
/// Names and values in SETTINGS (RFC 9113 section 6.5.2).
const MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTING_BYTES: usize = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// The server takes no more requests on this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// Streams above it were not processed and never will be.
    pub last: u32,
    /// RFC 9113 section 7; 0 is no error.
    pub code: u32,
    /// What the server says beside it, cut at 1 KiB. Apple puts JSON with a reason here.
    pub debug: Vec<u8>,
}

/// Follows what a server sends.
#[derive(Debug, Default)]
pub struct FrameWatch {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    /// Of the current frame's payload.
    left: usize,
    /// The payload of a GOAWAY.
    payload: Vec<u8>,
    settled: bool,
    /// The lowest last stream of all GOAWAYs, with what was said with it; and whether it is news.
    goaway: Option<GoAway>,
    news: bool,
}

impl FrameWatch {
    /// Whether the server's SETTINGS have begun to come.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// A GOAWAY that says something new: the first, one with a lower last stream, or the first that
    /// tells an error.
    pub fn take_goaway(&mut self) -> Option<GoAway> {
        let news = std::mem::take(&mut self.news);
        self.goaway.clone().filter(|_| news)
    }

    /// Takes of the next bytes those up to the end of a frame's head or of its payload; how many they
    /// are. So who hands bytes on as they are read here knows of nothing behind a frame that is refused.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let count;
        if self.head_len < HEAD_BYTES {
            count = bytes.len().min(HEAD_BYTES - self.head_len);
            self.head[self.head_len..self.head_len + count].copy_from_slice(&bytes[..count]);
            self.head_len += count;
            if self.head_len == HEAD_BYTES {
                self.begin();
            }
        } else {
            count = bytes.len().min(self.left);
            self.keep(&bytes[..count]);
            self.left -= count;
        }
        if self.head_len == HEAD_BYTES && self.left == 0 {
            self.end();
        }
        count
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    fn begin(&mut self) {
        self.left = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
        self.settled |= self.kind() == SETTINGS && self.head[4] & ACK == 0;
    }

    fn keep(&mut self, payload: &[u8]) {
        if self.kind() == GOAWAY {
            let room = (8 + DEBUG_BYTES).saturating_sub(self.payload.len());
            self.payload
                .extend_from_slice(&payload[..room.min(payload.len())]);
        }
    }

    fn end(&mut self) {
        self.head_len = 0;
        let payload = std::mem::take(&mut self.payload);
        let (Some(last), Some(code)) = (
            payload.first_chunk(),
            payload[4.min(payload.len())..].first_chunk(),
        ) else {
            return;
        };
        let heard = GoAway {
            last: u32::from_be_bytes(*last) & 0x7fff_ffff,
            code: u32::from_be_bytes(*code),
            debug: payload[8..].to_vec(),
        };
        let known = self.goaway.as_ref();
        let worse = known
            .is_none_or(|known| heard.last < known.last || (known.code == 0 && heard.code != 0));
        if worse {
            let last = known.map_or(heard.last, |known| known.last.min(heard.last));
            self.goaway = Some(GoAway { last, ..heard });
            self.news = true;
        }
    }
}

impl GoAway {
    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let payload = 8 + self.debug.len().min(DEBUG_BYTES);
        let mut frame = (payload as u32).to_be_bytes()[1..].to_vec();
        frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend(self.last.to_be_bytes());
        frame.extend(self.code.to_be_bytes());
        frame.extend(&self.debug[..payload - 8]);
        frame
    }
}

/// Makes the first SETTINGS among whole frames say how many streams may be open at a time: where it
/// says so already, else in the place of what it says first. Whether there is one that says anything.
pub fn allow_streams(mut frames: &mut [u8], streams: u32) -> bool {
    while let Some((head, rest)) = frames.split_first_chunk_mut::<HEAD_BYTES>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_mut(length.min(rest.len()));
        if head[3] == SETTINGS && payload.len() >= SETTING_BYTES {
            let name = MAX_CONCURRENT_STREAMS.to_be_bytes();
            let mut all = payload.chunks_exact(SETTING_BYTES);
            let place = all.position(|setting| setting.starts_with(&name));
            let setting = &mut payload[place.unwrap_or(0) * SETTING_BYTES..][..SETTING_BYTES];
            setting[..2].copy_from_slice(&name);
            setting[2..].copy_from_slice(&streams.to_be_bytes());
            return true;
        }
        frames = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_would_be_found() {
        let goaway = GoAway {
            last: 7,
            code: 0,
            debug: b"{}".to_vec(),
        };
        let mut watch = FrameWatch::default();
        read(&mut watch, &goaway.encode());
        assert_eq!(watch.take_goaway(), Some(goaway));
    }

    #[test]
    fn the_streams_that_a_settings_frame_allows_are_changed_in_place() {
        let window = [0, 4, 0, 0, 1, 0];
        let streams = |count| [0, 3, 0, 0, 0, count];
        let data = frame(0, 0, &[3; 20]);
        let ack = frame(SETTINGS, ACK, b"");
        let check = |payload: &[u8], expected: &[u8]| {
            let around = |payload| [&data[..], &ack, &frame(SETTINGS, 0, payload), &data].concat();
            let mut frames = around(payload);
            assert!(allow_streams(&mut frames, 9));
            assert_eq!(frames, around(expected));
        };
        check(
            &[window, streams(1)].concat(),
            &[window, streams(9)].concat(),
        );
        check(&window, &streams(9));
        assert!(!allow_streams(&mut [data, ack].concat(), 9));
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
        let payload = [&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat();
        frame(GOAWAY, 0, &payload)
    }

    fn read(watch: &mut FrameWatch, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[watch.read(bytes)..];
        }
    }

    fn heard(last: u32, code: u32, debug: &[u8]) -> Option<GoAway> {
        let debug = debug.to_vec();
        Some(GoAway { last, code, debug })
    }

    #[test]
    fn a_goaway_is_found_wherever_the_bytes_are_cut() {
        let data = frame(0, 0, &goaway(1, 1, b"not a frame"));
        let all = [
            frame(SETTINGS, 0, &[0; 12]),
            data,
            goaway(7, 2, b"{}"),
            vec![0, 0],
        ]
        .concat();
        for cut in 0..=all.len() {
            let mut watch = FrameWatch::default();
            read(&mut watch, &all[..cut]);
            read(&mut watch, &all[cut..]);
            assert!(watch.is_settled());
            assert_eq!(watch.take_goaway(), heard(7, 2, b"{}"), "cut at {cut}");
            assert_eq!(watch.take_goaway(), None);
        }
        let mut watch = FrameWatch::default();
        all.chunks(1).for_each(|byte| read(&mut watch, byte));
        assert_eq!(watch.take_goaway(), heard(7, 2, b"{}"));
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut watch = FrameWatch::default();
        read(&mut watch, &goaway(0x7fff_ffff, 0, b""));
        assert_eq!(watch.take_goaway(), heard(0x7fff_ffff, 0, b""));
        read(&mut watch, &goaway(9, 0, b"a"));
        assert_eq!(watch.take_goaway(), heard(9, 0, b"a"));
        read(&mut watch, &goaway(9, 0, b"b"));
        read(&mut watch, &goaway(11, 0, b"c"));
        assert_eq!(watch.take_goaway(), None);
        read(&mut watch, &goaway(11, 3, b"d"));
        assert_eq!(
            watch.take_goaway(),
            heard(9, 3, b"d"),
            "nothing is taken back"
        );
    }

    #[test]
    fn an_acknowledgement_settles_nothing_and_words_are_cut() {
        let mut watch = FrameWatch::default();
        read(&mut watch, &frame(SETTINGS, ACK, b""));
        read(&mut watch, &frame(GOAWAY, 0, b"short"));
        assert!(!watch.is_settled());
        assert_eq!(watch.take_goaway(), None);
        read(&mut watch, &goaway(1, 0, &[b'x'; 5000]));
        assert_eq!(watch.take_goaway(), heard(1, 0, &[b'x'; DEBUG_BYTES]));
    }
}
