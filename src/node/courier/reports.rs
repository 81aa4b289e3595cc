//! What the courier does with reports of the switchboard: events for the endpoints that want them,
//! commits, receipts. Invariant: a receipt is given when everything up to its number is stored or
//! needs no storing, since the next snapshot would tell it again.

use std::mem;
use std::sync::Arc;

use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::Output;
use crate::node::courier::memory::{Batch, subject};
use crate::node::courier::{Courier, Heard, Storing, Talk};
use crate::push::facts::{Fact, Letter, StoreRequest};
use crate::push::lanes::{LANES, LaneId};
use crate::push::truth::Subject;
use crate::push::webhook::{self, Event, Kind, Recipient};
use crate::wire::bus_codec::Garbled;
use crate::wire::courier_bus::{Receipt, Report, VERSION};

/// The events of one request together, unless one alone is longer.
const BATCH_BYTES: usize = 256 * 1024;

impl Courier {
    pub(super) fn hear(&mut self, conn: ConnId, frame: &[u8], now: Now) -> Result<(), Garbled> {
        let report = Report::decode(frame)?;
        match report {
            Report::Calls { version } if version != VERSION => return Err(Garbled),
            Report::Calls { .. } => {
                self.take_calls(conn);
                return Ok(());
            }
            Report::Call { .. } | Report::Reached { .. } => {
                return self.hear_call(conn, report, now);
            }
            Report::Hello { version, .. } if version != VERSION => return Err(Garbled),
            Report::Hello { life, given, .. } => {
                let offer = self.offer.as_ref().map(|offer| offer.conn);
                if self.is_overtaken(conn, [self.switchboard, offer]) {
                    return Ok(());
                }
                self.take_offer(conn, life, given);
                return Ok(());
            }
            _ => {}
        }
        if self.offer.as_ref().is_some_and(|it| it.conn == conn) {
            match report {
                Report::Given { entries } => self.take_given(conn, entries),
                Report::GivenAll => self.take_given_all(conn),
                Report::Licence { until_ms } => self.take_licence(until_ms, now),
                _ => return Err(Garbled),
            }
            return Ok(());
        }
        if self.switchboard != Some(conn) {
            // A former switchboard's last words; the present one knows better.
            return Ok(());
        }
        if let Some(sequence) = report.sequence() {
            if sequence <= self.heard.taken {
                return Ok(());
            }
            self.heard.taken = sequence;
        }
        self.take_report(&report, now)
    }

    /// One of the switchboard that counts, and a new one.
    fn take_report(&mut self, report: &Report<'_>, now: Now) -> Result<(), Garbled> {
        match report {
            Report::Here {
                channel, user_id, ..
            } => self.here(channel, *user_id),
            Report::Gone {
                channel, user_id, ..
            } => self.truth.gone(channel, subject(*user_id), now.moment),
            Report::Passed {
                kind,
                channel,
                json,
                ..
            } => {
                let kind = Kind::from_u8(*kind).ok_or(Garbled)?;
                self.tell(channel, kind, json);
            }
            Report::SnapshotBegins => self.truth.begin_snapshot(),
            Report::Present { channel, users } => {
                self.here(channel, None);
                for user in users {
                    self.here(channel, Some(user));
                }
            }
            Report::SnapshotEnds => self.truth.end_snapshot(now.moment),
            Report::Kept => self.kept(now),
            Report::Licence { until_ms } => self.take_licence(*until_ms, now),
            Report::Hello { .. }
            | Report::Given { .. }
            | Report::GivenAll
            | Report::Calls { .. }
            | Report::Call { .. }
            | Report::Reached { .. } => {}
        }
        Ok(())
    }

    /// Whether a switchboard that dialled later has greeted already: this one is dead then, and what
    /// it had sent before is read late.
    pub(super) fn is_overtaken(&self, conn: ConnId, others: [Option<ConnId>; 2]) -> bool {
        let place = |conn| self.seats.get(&conn).map(|seat| seat.place);
        let others = others.into_iter().flatten();
        others.filter_map(place).max() > place(conn)
    }

    /// A switchboard is heard from now on, and nobody else.
    pub(super) fn welcome(&mut self, conn: ConnId, life: u64) {
        let Some(seat) = self.seats.get_mut(&conn) else {
            return;
        };
        seat.talk = Talk::Switchboard;
        self.switchboard = Some(conn);
        if self.heard.life != life {
            self.heard = Heard {
                life,
                ..Heard::default()
            };
        }
        // What was taken up and waits for the store is not asked for again, nor receipted yet.
        let sequence = self.heard.taken;
        self.send(&Receipt::Heard {
            sequence: self.heard.receipted.min(sequence),
        });
    }

    pub(super) fn send(&mut self, receipt: &Receipt<'_>) {
        if let Some(conn) = self.switchboard {
            self.send_to(conn, receipt);
        }
    }

    pub(super) fn send_to(&mut self, conn: ConnId, receipt: &Receipt<'_>) {
        let frame = receipt.encode();
        if self.lines.push(conn, |out| out.push(&frame)).is_err() {
            log::error!("the switchboard does not take its receipts");
        }
    }

    fn here(&mut self, key: &str, user_id: Option<&str>) {
        if user_id.is_some() {
            // A new switchboard may report who joins before the snapshot that says that somebody
            // was there already, and the channel is told first.
            self.here(key, None);
        }
        let subject = subject(user_id);
        if !self.truth.here(key, subject.clone()) {
            return;
        }
        let event = match user_id {
            Some(id) => Event::MemberAdded(id),
            None => Event::ChannelOccupied,
        };
        self.tell_event(key, event);
        self.facts.push(Fact::Told(key.to_string(), subject));
    }

    pub(super) fn tell_gone(&mut self, key: &str, subject: Subject) {
        let event = match &subject {
            Subject::Member(id) => Event::MemberRemoved(id),
            Subject::Channel => Event::ChannelVacated,
        };
        self.tell_event(key, event);
        self.facts.push(Fact::Untold(key.to_string(), subject));
    }

    fn tell_event(&mut self, key: &str, event: Event<'_>) {
        let channel = key.split_once('/').map_or(key, |(_, channel)| channel);
        self.tell(key, event.kind(), &event.json(channel));
    }

    /// Notes an event of the push gateway; it is stored with the facts and jobs of the next commit.
    pub(super) fn tell_of_device(
        &mut self,
        app_id: &str,
        device: &Recipient<'_>,
        event: Event<'_>,
    ) {
        let channel = device.channel();
        let key = format!("{app_id}/{channel}");
        self.tell(&key, event.kind(), &event.json(&channel));
    }

    /// Notes the event for every endpoint that wants it.
    fn tell(&mut self, key: &str, kind: Kind, json: &str) {
        let Some((app_id, channel)) = key.split_once('/') else {
            return;
        };
        let lane = webhook::lane_of(channel, LANES);
        for (hook, it) in self.webhooks.iter().enumerate() {
            if !it.wants(app_id, channel, kind) {
                continue;
            }
            if !self.lanes.has_room(hook, json.len()) {
                if self.counters.webhooks_dropped == 0 {
                    log::error!(url = it.target.to_string().as_str(); "too much waits; events are dropped");
                }
                self.counters.webhooks_dropped += 1;
                continue;
            }
            let events = self.events.entry(LaneId { hook, lane }).or_default();
            events.push(json.to_string());
        }
    }

    /// Stores what there is, if nothing is being stored.
    pub(super) fn commit(&mut self, now: Now) {
        match mem::replace(&mut self.storing, Storing::Idle) {
            Storing::Failed(batch, at) if at <= now.moment => self.ask_store(batch),
            Storing::Idle if !self.is_in_office() => self.commit_jobs(),
            Storing::Idle if self.has_nothing_new() => {
                self.heard.committing = self.heard.taken;
                self.receipt();
            }
            Storing::Idle => {
                let mut facts = mem::take(&mut self.facts);
                for (id, events) in mem::take(&mut self.events) {
                    let letters = self.letters(id, events, now);
                    facts.extend(letters.map(|letter| Fact::Queued(Arc::new(letter))));
                }
                if self.heard.taken > self.heard.committing || self.is_to_begin_anew() {
                    facts.push(Fact::Heard {
                        life: self.heard.life,
                        sequence: self.heard.taken,
                    });
                }
                self.heard.committing = self.heard.taken;
                let pieces = self.pieces(&facts);
                let batch = Batch {
                    news: self.told_news(),
                    facts: Arc::new(facts),
                    jobs: Arc::new(mem::take(&mut self.jobs)),
                    waits: true,
                    pieces,
                };
                self.ask_store(batch);
            }
            other => self.storing = other,
        }
    }

    /// Those of the gateway, which has nothing to do with the office.
    fn commit_jobs(&mut self) {
        if !self.jobs.is_empty() {
            let jobs = mem::take(&mut self.jobs);
            self.ask_store(Batch::of_jobs(Arc::new(jobs)));
        }
    }

    fn has_nothing_new(&self) -> bool {
        let nothing = self.facts.is_empty() && self.events.is_empty() && self.jobs.is_empty();
        nothing && !self.is_to_begin_anew() && !self.has_told_news()
    }

    fn letters(
        &mut self,
        id: LaneId,
        events: Vec<String>,
        now: Now,
    ) -> impl Iterator<Item = Letter> + use<> {
        let hook = &self.webhooks[id.hook];
        let (app_id, url) = (hook.app_id.clone(), hook.url.clone());
        let batches = webhook::batches(events, hook.batch_events, BATCH_BYTES);
        let first = self.last_letter + 1;
        self.last_letter += batches.len() as u64;
        (first..).zip(batches).map(move |(number, batch)| Letter {
            id: number,
            app_id: app_id.clone(),
            url: url.clone(),
            lane: id.lane,
            time_ms: now.unix_ms,
            body: webhook::body(now.unix_ms, &batch),
        })
    }

    pub(super) fn ask_store(&mut self, batch: Batch) {
        self.request = Some(StoreRequest::Commit(batch.work()));
        self.storing = Storing::Busy(batch);
        self.outputs.push_back(Output::AskStore);
    }

    /// The facts are kept wherever they should be: letters may go, the switchboard may forget.
    pub(super) fn committed(&mut self, batch: &Batch) {
        self.release(batch);
        self.receipt();
    }

    /// Letters may go, and what is settled needs no thought any more.
    pub(super) fn release(&mut self, batch: &Batch) {
        for fact in batch.facts.iter() {
            match fact {
                Fact::Queued(letter) if batch.waits => {
                    if let Some(hook) = self.hook_of(letter) {
                        self.lanes.put(hook, Arc::clone(letter));
                    }
                }
                Fact::Settled(id) => self.forget_settled(*id),
                _ => {}
            }
        }
        self.forget_news(&batch.news);
    }

    fn receipt(&mut self) {
        let sequence = self.heard.committing;
        if sequence > self.heard.receipted {
            self.heard.receipted = sequence;
            self.send(&Receipt::Stored { sequence });
        }
    }
}
