//! Connections to providers: dialled when something waits and none has room, more of them as load
//! grows, given up when they say so. Owns which connection is of which line, and which version of HTTP
//! is spoken: TLS lets the server choose (ALPN), without TLS it is HTTP/1.1, and Apple takes none but
//! HTTP/2. Does not know what is asked over them. Invariant: each request that was taken is told about once, by `take_event`.

use std::time::Duration;

use super::line::{Line, LineId};
use crate::base::bytes::Inbox;
use crate::base::ids::{ConnId, DialId};
use crate::base::now::{Moment, Now};
use crate::node::courier::{Courier, Talk};
use crate::node::{Ending, Output, Peer};
use crate::push::providers::credential::Proof;
use crate::push::providers::provider::Lost;
use crate::session::asker::Asker;
use crate::session::http1::Http1;
use crate::session::http2::{Http2, Http2Event, Http2Options, PulseOptions};
use crate::wire::http2::Http2Origin;
use crate::wire::target::{ClientTls, Target};

/// Of one line.
const CONNECTIONS: usize = 8;
/// Of one connection, however many more the provider would take.
const STREAMS: usize = 1_000;
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// In the outbox: then nothing more is asked for before it is empty.
const OUTBOX_BYTES: usize = 16 * 1024 * 1024;

/// A connection to a provider.
pub(in crate::node::courier) struct Provider {
    pub(super) line: LineId,
    pub(super) asker: Asker,
    /// Whether it has answered: more are dialled only beside those that have.
    pub(super) is_proven: bool,
}

impl Provider {
    pub fn deadline(&self) -> Option<Moment> {
        self.asker.deadline()
    }

    pub fn wants_input(&self) -> bool {
        self.asker.wants_input()
    }

    pub fn outbox_bytes() -> usize {
        OUTBOX_BYTES
    }
}

impl Courier {
    pub(super) fn dial_if_needed(&mut self, id: LineId, now: Now) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get_mut(&id) else {
            return;
        };
        if line.is_dialling || line.conns.len() >= CONNECTIONS {
            return;
        }
        if line.rests_until > now.moment {
            line.wake = Some(line.rests_until);
            return;
        }
        let seats = &self.seats;
        let is_proven = |conn: &ConnId| match seats.get(conn).map(|it| &it.talk) {
            Some(Talk::Provider(provider)) => provider.is_proven,
            _ => true,
        };
        if !line.conns.iter().all(is_proven) {
            return;
        }
        line.is_dialling = true;
        self.last_dial += 1;
        let dial = DialId(self.last_dial);
        self.gateway.sending.dials.insert(dial, (id, None));
        self.outputs.push_back(Output::Dial(Peer::Outside(dial)));
    }

    /// Where a dial of ours leads.
    pub(in crate::node::courier) fn provider_target(&self, dial: DialId) -> Option<Target> {
        let sending = &self.gateway.sending;
        let (id, _) = sending.dials.get(&dial)?;
        let target = sending.lines.get(id)?.target.clone();
        Some(target.with_connect_within(CONNECT_WITHIN))
    }

    pub(in crate::node::courier) fn provider_tls(&self, dial: DialId) -> ClientTls {
        let sending = &self.gateway.sending;
        let line = sending.dials.get(&dial).map(|(id, _)| id);
        let line = line.and_then(|id| sending.lines.get(id));
        let Some(line) = line else {
            return ClientTls::default();
        };
        let certificate = match &sending.posts[line.post].credential.proof {
            Proof::ApnsCertificate { certificate, .. } => Some(certificate.certified.clone()),
            _ => None,
        };
        let only_http2 = is_apple(&sending.posts[line.post].credential.proof);
        ClientTls {
            protocols: match only_http2 {
                true => &[b"h2"],
                false => &[b"h2", b"http/1.1"],
            },
            certificate,
        }
    }

    pub(in crate::node::courier) fn provider_agreed(&mut self, dial: DialId, is_http2: bool) {
        if let Some((_, agreed)) = self.gateway.sending.dials.get_mut(&dial) {
            *agreed = Some(is_http2);
        }
    }

    /// A dial of ours stands; `None`: it is none of ours, or of no use.
    pub(in crate::node::courier) fn provider_stands(
        &mut self,
        conn: ConnId,
        dial: DialId,
        now: Now,
    ) -> Option<Provider> {
        let (id, agreed) = self.gateway.sending.dials.remove(&dial)?;
        let sending = &mut self.gateway.sending;
        let line = sending.lines.get_mut(&id)?;
        line.is_dialling = false;
        let proof = &sending.posts[line.post].credential.proof;
        match asker(line, proof, agreed, now) {
            Err(why) => {
                self.unreachable_provider(id, &why, now);
                None
            }
            Ok(asker) => {
                line.conns.push(conn);
                Some(Provider {
                    line: id,
                    asker,
                    is_proven: false,
                })
            }
        }
    }

    /// A dial failed; whether it was one of ours.
    pub(in crate::node::courier) fn provider_dial_failed(
        &mut self,
        dial: DialId,
        why: &str,
        now: Now,
    ) -> bool {
        let Some((id, _)) = self.gateway.sending.dials.remove(&dial) else {
            return false;
        };
        if let Some(line) = self.gateway.sending.lines.get_mut(&id) {
            line.is_dialling = false;
        }
        self.unreachable_provider(id, why, now);
        true
    }

    fn unreachable_provider(&mut self, id: LineId, why: &str, now: Now) {
        let Some(line) = self.gateway.sending.lines.get_mut(&id) else {
            return;
        };
        line.rests_until = now.moment + line.backoff.next(&mut self.dice);
        line.wake = Some(line.rests_until);
        log::warn!(origin = line.origin.as_str(); "a push provider cannot be reached: {why}");
        let asks = std::mem::take(&mut line.asks);
        for (whose, _) in asks {
            self.pass_lost(whose, now);
        }
    }

    pub(in crate::node::courier) fn read_provider(
        &mut self,
        conn: ConnId,
        inbox: &mut Inbox<'_>,
        now: Now,
    ) {
        if let Some(Talk::Provider(provider)) = self.seats.get_mut(&conn).map(|it| &mut it.talk) {
            provider.asker.received(inbox, now);
        }
        self.poll_provider(conn, now);
    }

    /// Lets a connection write, and takes what it tells.
    pub(in crate::node::courier) fn poll_provider(&mut self, conn: ConnId, now: Now) {
        loop {
            let Some(Talk::Provider(provider)) = self.seats.get_mut(&conn).map(|it| &mut it.talk)
            else {
                return;
            };
            let (id, mut event) = (provider.line, None);
            let polled = self.lines.push(conn, |out| {
                event = provider.asker.poll(out, now);
                if event.is_none() && !provider.asker.wants_input() {
                    out.tell_when_empty();
                }
                Ok(())
            });
            debug_assert!(polled.is_ok());
            match event {
                None => return,
                Some(event) => self.take_event(conn, id, event, now),
            }
        }
    }

    fn take_event(&mut self, conn: ConnId, id: LineId, event: Http2Event, now: Now) {
        match event {
            Http2Event::Answered { key, answer } => {
                if let Some(Talk::Provider(provider)) =
                    self.seats.get_mut(&conn).map(|it| &mut it.talk)
                {
                    provider.is_proven = true;
                }
                if let Some(line) = self.gateway.sending.lines.get_mut(&id) {
                    line.backoff.reset();
                }
                self.take_answer((conn, key), &answer, now);
            }
            Http2Event::Refused { key } => self.take_loss((conn, key), Lost::Refused, now),
            Http2Event::Late { key } => self.take_loss((conn, key), Lost::Silent, now),
            Http2Event::Lost { key, .. } => self.take_loss((conn, key), Lost::Cut, now),
            Http2Event::GoAway(goaway) => {
                log::info!(conn:%, last = goaway.last; "a push provider ends a connection");
            }
            Http2Event::Drained => self.drop_provider(conn, Ending::Flushed),
            Http2Event::Broken { why } => {
                let line = self.gateway.sending.lines.get_mut(&id);
                if let Some(line) = line {
                    let origin = line.origin.as_str();
                    log::warn!(conn:%, origin; "the connection to a push provider broke: {why}");
                    let is_proven = match self.seats.get(&conn).map(|it| &it.talk) {
                        Some(Talk::Provider(provider)) => provider.is_proven,
                        _ => false,
                    };
                    if !is_proven {
                        line.rests_until = now.moment + line.backoff.next(&mut self.dice);
                    }
                }
                self.drop_provider(conn, Ending::Cut);
            }
        }
    }

    /// The connection is of no more use; all of its requests were told about.
    fn drop_provider(&mut self, conn: ConnId, ending: Ending) {
        if let Some(seat) = self.seats.remove(&conn)
            && let Talk::Provider(provider) = seat.talk
        {
            self.outputs.push_back(Output::Close(conn, ending));
            if let Some(line) = self.gateway.sending.lines.get_mut(&provider.line) {
                line.conns.retain(|other| *other != conn);
            }
        }
    }

    /// The other side has ended it, or it is gone.
    pub(in crate::node::courier) fn provider_ended(&mut self, conn: ConnId, now: Now) {
        if let Some(Talk::Provider(provider)) = self.seats.get_mut(&conn).map(|it| &mut it.talk) {
            provider.asker.ended();
        }
        self.poll_provider(conn, now);
        // Whatever it has told: it is gone.
        self.drop_provider(conn, Ending::Cut);
    }

    pub(super) fn retire_conn(&mut self, conn: ConnId) {
        if let Some(Talk::Provider(provider)) = self.seats.get_mut(&conn).map(|it| &mut it.talk) {
            provider.asker.retire();
        }
    }

    pub(in crate::node::courier) fn poll_due_providers(&mut self, now: Now) {
        let seats = self.seats.iter();
        let due = seats.filter_map(|(conn, seat)| match &seat.talk {
            Talk::Provider(provider) => provider
                .deadline()
                .filter(|at| *at <= now.moment)
                .map(|_| *conn),
            _ => None,
        });
        for conn in due.collect::<Vec<_>>() {
            self.poll_provider(conn, now);
        }
    }
}

fn is_apple(proof: &Proof) -> bool {
    matches!(
        proof,
        Proof::ApnsToken { .. } | Proof::ApnsCertificate { .. }
    )
}

/// By what TLS agreed on; without TLS it is HTTP/1.1, but for what stands in for Apple.
fn asker(line: &Line, proof: &Proof, agreed: Option<bool>, now: Now) -> Result<Asker, String> {
    let is_secured = line.target.scheme().is_secured();
    let origin = Http2Origin::new(is_secured, &line.target.authority())?;
    let is_http2 = match is_secured {
        true => agreed == Some(true),
        false => is_apple(proof),
    };
    if !is_http2 && is_apple(proof) {
        return Err("the server does not speak HTTP/2".to_string());
    }
    if !is_http2 {
        return Ok(Asker::Http1(Box::new(Http1::new(origin, now))));
    }
    let options = Http2Options {
        origin,
        streams_max: STREAMS,
        start_with_one: matches!(proof, Proof::ApnsToken { .. }) && line.keeper.is_some(),
        pulse: PulseOptions::default(),
    };
    Ok(Asker::Http2(Box::new(Http2::new(options, now))))
}
