//! A protocol of its own on a TCP port: messages of a printer's kind, each `STX text ETX`. What a
//! framing has to say is where a message ends and how one is written; everything else is there.

use lineman::base::close::Violation;
use lineman::wire::framing::{Extent, Framing, Payload, Unsendable};
use lineman::{Callbacks, Listen, Message, Server};

const STX: u8 = 2;
const ETX: u8 = 3;

struct Printer;

impl Framing for Printer {
    fn measure(&self, input: &[u8], _bytes_max: usize) -> Result<Extent, Violation> {
        if input[0] != STX {
            return Err(Violation::Protocol("A message starts with STX"));
        }
        let end = input.iter().position(|byte| *byte == ETX);
        Ok(end.map_or(Extent::Unknown, |end| Extent::Whole(end + 1)))
    }

    fn decode<'a>(&self, message: &'a [u8]) -> Result<Payload<'a>, Violation> {
        Payload::text(&message[1..message.len() - 1])
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        if payload.contains(&STX) || payload.contains(&ETX) {
            return Err(Unsendable);
        }
        out.push(STX);
        out.extend_from_slice(payload);
        out.push(ETX);
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    Server::new()
        .listen(Listen::on("tcp://127.0.0.1:8083").framing(Printer), || {
            Callbacks::new().on_message(|conn, message| {
                if let Message::Text(text) = message {
                    conn.send(&format!("printed {text}"));
                }
            })
        })
        .run()
}
