//! A server's answer to our WebSocket handshake, whole and cut in two: one reading. The first byte
//! chooses the cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lineman::base::bytes::{Inbox, Outbox};
use lineman::base::dice::Dice;
use lineman::session::upgrade::{Upgrade, UpgradeStep};
use lineman::wire::target::Target;

const HEAD_BYTES: usize = 512;

/// What comes of it, and what is left for whoever reads frames.
fn read(pieces: [&[u8]; 2]) -> (UpgradeStep, Vec<u8>) {
    let target = Target::parse("ws://a/").expect("a URL");
    let mut out = Outbox::new(1 << 10);
    // The same key each time, so that an answer can be right.
    let mut upgrade = Upgrade::begin(&target, &mut Dice::new([7; 16]), &mut out).expect("room");
    let mut held = pieces[0].to_vec();
    let mut inbox = Inbox::new(&mut held);
    let step = upgrade.next(&mut inbox, HEAD_BYTES);
    let mut rest = inbox.rest().to_vec();
    rest.extend_from_slice(pieces[1]);
    if step != UpgradeStep::Idle {
        return (step, rest);
    }
    let mut inbox = Inbox::new(&mut rest);
    let step = upgrade.next(&mut inbox, HEAD_BYTES);
    let rest = inbox.rest().to_vec();
    (step, rest)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, answer)) = data.split_first() else {
        return;
    };
    let (front, back) = answer.split_at(usize::from(*cut).min(answer.len()));
    assert_eq!(read([answer, b""]), read([front, back]));
});
