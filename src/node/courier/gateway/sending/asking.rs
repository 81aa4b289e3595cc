//! From a delivery in a queue to a request on a connection. Owns who is next and what a turn may do.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::batches::Together;
use super::line::{Flight, LineId, Sent};
use crate::base::ids::ConnId;
use crate::base::now::{Moment, Now};
use crate::base::uuid;
use crate::node::courier::{Courier, Talk};
use crate::push::delivery::breaker::Leave;
use crate::push::delivery::outcome::unfit;
use crate::push::delivery::queue::InHand;
use crate::push::notify::spec::OnUnknown;
use crate::push::providers::address::Address;
use crate::push::providers::credential::Proof;
use crate::push::providers::credential::keeper::ANSWER_WITHIN;
use crate::push::providers::note::Note;
use crate::push::providers::provider::{Pass, Request, Unfit, pairs};
use crate::session::http2::{NotAsked, StreamKey};
use crate::wire::http2::Http2Request;

/// What one line may send in one turn, so that others have theirs soon.
const BURST: usize = 100;

/// Whether something was sent.
enum Asked {
    Sent,
    /// The delivery was reported, or has to wait for the store.
    Gone,
    /// The connection has no room after all.
    Full,
}

impl Courier {
    /// Every line sends what it can, each a little.
    pub(super) fn send_all(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        sending.has_more = false;
        let first = sending.turn;
        let after = sending.lines.range(first..).map(|(id, _)| *id);
        let before = sending.lines.range(..first).map(|(id, _)| *id);
        let ids: Vec<LineId> = after.chain(before).collect();
        sending.turn = LineId(ids.first().map_or(0, |id| id.0 + 1));
        for id in ids {
            let Some(line) = self.gateway.sending.lines.get_mut(&id) else {
                continue;
            };
            // Whatever it still waits for says so anew.
            line.wake.take_if(|at| *at <= now.moment);
            if line.queue.is_empty() && line.asks.is_empty() {
                continue;
            }
            self.ask_for_passes(id, now);
            self.send_line(id, now);
        }
    }

    fn send_line(&mut self, id: LineId, now: Now) {
        let mut touched: Vec<ConnId> = Vec::new();
        for nth in 0.. {
            if nth == BURST {
                self.gateway.sending.has_more = true;
                break;
            }
            let (once, pass) = match self.may_ask(id, now) {
                Ok(leave) => leave,
                Err(until) => {
                    if let Some(line) = self.gateway.sending.lines.get_mut(&id) {
                        line.wake = until;
                    }
                    break;
                }
            };
            let Some(conn) = self.conn_with_room(id) else {
                self.dial_if_needed(id, now);
                break;
            };
            let sending = &mut self.gateway.sending;
            let Some(line) = sending.lines.get_mut(&id) else {
                break;
            };
            let Some(one) = line.queue.take() else {
                break;
            };
            sending.posts[line.post].waiting -= 1;
            match self.send_one((id, conn), one, pass, now) {
                Asked::Sent => {
                    if !touched.contains(&conn) {
                        touched.push(conn);
                    }
                    if once {
                        break;
                    }
                }
                Asked::Gone => {}
                Asked::Full => break,
            }
        }
        for conn in touched {
            self.poll_provider(conn, now);
        }
    }

    /// Whether only one request may be sent, and with which pass; else when to look again.
    fn may_ask(
        &mut self,
        id: LineId,
        now: Now,
    ) -> Result<(bool, Option<Arc<Pass>>), Option<Moment>> {
        let sending = &mut self.gateway.sending;
        let line = sending.lines.get_mut(&id).ok_or(None)?;
        if line.queue.is_empty() {
            return Err(None);
        }
        let once = match line.breaker.leave(now.moment) {
            Leave::Any => false,
            Leave::One => true,
            Leave::Not(until) => return Err(until),
        };
        if let Some(pace) = &mut line.pace {
            pace.leave(now.moment).map_err(Some)?;
        }
        let credential = &sending.posts[line.post].credential;
        let keeper = line.keeper.as_ref().ok_or(None)?;
        // Whoever makes the pass wakes the line.
        let pass = keeper.pass(credential, now).map_err(|_| None)?;
        Ok((once, pass.cloned()))
    }

    /// A connection of the line that takes a request, the emptiest first.
    pub(super) fn conn_with_room(&self, id: LineId) -> Option<ConnId> {
        let line = self.gateway.sending.lines.get(&id)?;
        let rooms = line
            .conns
            .iter()
            .map(|conn| match self.seats.get(conn).map(|it| &it.talk) {
                Some(Talk::Provider(provider)) => (provider.asker.room(), *conn),
                _ => (0, *conn),
            });
        let best = rooms.max_by_key(|(room, _)| *room)?;
        (best.0 > 0).then_some(best.1)
    }

    fn send_one(
        &mut self,
        (id, conn): (LineId, ConnId),
        one: InHand,
        pass: Option<Arc<Pass>>,
        now: Now,
    ) -> Asked {
        if one.share.spec.on_unknown == OnUnknown::Fail && !one.marked {
            let sending = &mut self.gateway.sending;
            sending.to_mark.push(one.delivery.id);
            sending.marking.insert(one.delivery.id, (id, one));
            return Asked::Gone;
        }
        let Some(address) = self.address_of(&one.delivery, now) else {
            return Asked::Gone;
        };
        let drafted = self.ask_by_draft((id, conn), (&one, &address), pass.as_ref(), now);
        let (asked, together) = match drafted {
            Some(asked) => (asked, Together::default()),
            None => {
                let note = note_of(&one);
                let together = self.gather(id, (&one, &address, &note), now);
                let told = (&note, &address, &together);
                (
                    self.ask_for((id, conn), told, pass.as_deref(), now),
                    together,
                )
            }
        };
        match asked {
            Ok(key) => {
                self.took_off(id, (conn, key), (one, together.more), pass, now);
                Asked::Sent
            }
            Err(None) => {
                self.put_all_back(id, one, together);
                Asked::Full
            }
            Err(Some(why)) => {
                for one in std::iter::once(&one).chain(&together.more) {
                    self.counters.push_unfit += 1;
                    let report = unfit(&one.delivery, &why);
                    self.gateway.sending.reports.push(report);
                }
                Asked::Gone
            }
        }
    }

    /// `Err(None)`: the connection has no room.
    fn ask_for(
        &mut self,
        (id, conn): (LineId, ConnId),
        (note, address, together): (&Note, &Address, &Together),
        pass: Option<&Pass>,
        now: Now,
    ) -> Result<StreamKey, Option<Unfit>> {
        let sending = &self.gateway.sending;
        let line = sending.lines.get(&id).ok_or(None)?;
        let provider = sending.posts[line.post].credential.provider();
        let (patience, dice) = (provider.patience(), &mut self.dice);
        let request = match (provider.batch(), &together.addresses[..]) {
            (Some(batch), [_, ..]) => {
                let others = together.addresses.iter();
                let all: Vec<&Address> = std::iter::once(address).chain(others).collect();
                batch.request(note, &all, pass, now, dice)
            }
            _ => provider.request(note, address, pass, now, dice),
        };
        let deadline = now.moment + patience.answer;
        let request = request.map_err(Some)?;
        self.ask_whole(conn, request, deadline, now)
    }

    fn took_off(
        &mut self,
        id: LineId,
        flight: (ConnId, StreamKey),
        (one, more): (InHand, Vec<InHand>),
        pass: Option<Arc<Pass>>,
        now: Now,
    ) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get_mut(&id) else {
            return;
        };
        line.breaker.sent();
        if let Some(pace) = &mut line.pace {
            pace.sent();
        }
        *match sending.posts[line.post].credential.proof {
            Proof::ApnsToken { .. } | Proof::ApnsCertificate { .. } => &mut self.counters.push_apns,
            Proof::FcmAccount { .. } => &mut self.counters.push_fcm,
            Proof::Vapid { .. } => &mut self.counters.push_webpush,
            Proof::AzureConnection { .. } | Proof::AzureEntra { .. } => {
                &mut self.counters.push_azure
            }
        } += 1;
        sending.together += more.len();
        let sent = Sent {
            line: id,
            one,
            more,
            pass,
            asked: now.moment,
            asked_ms: now.unix_ms,
        };
        sending
            .flights
            .insert(flight, Flight::Delivery(Box::new(sent)));
    }

    fn ask_whole(
        &mut self,
        conn: ConnId,
        request: Request,
        deadline: Moment,
        now: Now,
    ) -> Result<StreamKey, Option<Unfit>> {
        let asked = Http2Request {
            method: request.method.word(),
            path: &request.path,
            common: None,
            fields: &pairs(&request.fields),
            body: Bytes::from(request.body),
        };
        self.ask_provider(conn, &asked, deadline, now)
    }

    /// `Err(None)`: the connection has no room.
    pub(super) fn ask_provider(
        &mut self,
        conn: ConnId,
        asked: &Http2Request<'_>,
        deadline: Moment,
        now: Now,
    ) -> Result<StreamKey, Option<Unfit>> {
        let Some(Talk::Provider(provider)) = self.seats.get_mut(&conn).map(|it| &mut it.talk)
        else {
            return Err(None);
        };
        let asked = provider.asker.ask(asked, deadline, now);
        asked.map_err(|fault| match fault {
            NotAsked::Malformed(why) => Some(Unfit::Note(why)),
            NotAsked::Full | NotAsked::Leaving => None,
        })
    }

    /// Requests for passes go before everything else.
    fn ask_for_passes(&mut self, id: LineId, now: Now) {
        loop {
            let sending = &mut self.gateway.sending;
            let Some(line) = sending.lines.get_mut(&id) else {
                return;
            };
            if line.asks.is_empty() {
                return;
            }
            let Some(conn) = self.conn_with_room(id) else {
                return self.dial_if_needed(id, now);
            };
            let line = self.gateway.sending.lines.get_mut(&id);
            let Some((whose, request)) = line.and_then(|line| line.asks.pop_front()) else {
                return;
            };
            match self.ask_whole(conn, request, now.moment + ANSWER_WITHIN, now) {
                Ok(key) => {
                    let flights = &mut self.gateway.sending.flights;
                    flights.insert((conn, key), Flight::Pass(whose));
                }
                Err(_) => self.pass_lost(whose, now),
            }
            self.poll_provider(conn, now);
        }
    }
}

/// What is said to this device.
pub(super) fn note_of(one: &InHand) -> Note {
    let device = one.delivery.device();
    let mut note = one.share.spec.note_for(device, note_id(one));
    if note.expires.is_none() {
        let seconds = one.share.expires_ms.map(|ms| ms / 1000);
        note.expires = seconds.and_then(|it| it.try_into().ok());
    }
    note
}

/// A UUID that is the same in every attempt (RFC 9562 section 5.8).
pub(super) fn note_id(one: &InHand) -> String {
    let text = format!("{} {}", one.delivery.notification, one.delivery.id);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    uuid::of_version(8, u128::from_be_bytes(bytes))
}
