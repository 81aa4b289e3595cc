//! What is done with an answer, or without one: the ruling of the provider is counted, remedied, told
//! to breaker and guard, and followed (`delivery/outcome`).

use std::time::Duration;

use super::line::{Flight, FlightId, LineId, Sent};
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::breaker::Why;
use crate::push::delivery::guard::GuardNews;
use crate::push::delivery::outcome::{Case, Next, after, given_back};
use crate::push::delivery::queue::InHand;
use crate::push::providers::provider::{Answer, Lost, lost};
use crate::push::providers::verdict::{Remedy, Ruling, Scope, Verdict};
use crate::wire::http2::Http2Answer;

/// So often a delivery is sent again at once, when the provider did not take it.
const BOUNCES: u8 = 5;
const BOUNCED: Duration = Duration::from_secs(2);
/// A provider that asks for more rest is asked again after this.
const REST_MAX: Duration = Duration::from_secs(300);

impl Courier {
    pub(super) fn take_answer(&mut self, flight: FlightId, answer: &Http2Answer, now: Now) {
        let fields = answer.fields.iter();
        let fields =
            fields.filter_map(|(name, value)| Some((name, std::str::from_utf8(value).ok()?)));
        let fields: Vec<(&str, &str)> = fields.collect();
        let read = Answer {
            status: answer.status,
            fields: &fields,
            body: &answer.body,
        };
        let sending = &mut self.gateway.sending;
        match sending.flights.remove(&flight) {
            None => {}
            Some(Flight::Pass(whose)) => self.pass_answered(whose, Ok(&read), now),
            Some(Flight::Delivery(sent)) => {
                let took = now.moment.since(sent.asked);
                self.counters.push_answer_seconds.observe(took, 1);
                let Some(line) = sending.lines.get(&sent.line) else {
                    return;
                };
                let provider = sending.posts[line.post].credential.provider();
                let ruling = provider.ruling(&read, now);
                self.follow(flight.0, *sent, ruling, now);
            }
        }
    }

    pub(super) fn take_loss(&mut self, flight: FlightId, how: Lost, now: Now) {
        match self.gateway.sending.flights.remove(&flight) {
            None => {}
            Some(Flight::Pass(whose)) => self.pass_answered(whose, Err(how), now),
            Some(Flight::Delivery(sent)) => self.follow(flight.0, *sent, lost(how), now),
        }
    }

    fn follow(&mut self, conn: ConnId, mut sent: Sent, ruling: Ruling, now: Now) {
        let Some(mut ruling) = self.rule_together(&mut sent, ruling, now) else {
            return;
        };
        if sent.one.remedied {
            ruling = ruling.repeated();
        }
        self.remedy(conn, &sent, &ruling, now);
        self.tell_breaker(&sent, &ruling, now);
        let retires = self.tell_guard(&sent, &ruling, now);
        let more = std::mem::take(&mut sent.more);
        // What is put back comes to the front: the last one first.
        for one in more.into_iter().rev() {
            self.follow_one((sent.line, sent.asked_ms), one, (&ruling, retires), now);
        }
        self.follow_one(
            (sent.line, sent.asked_ms),
            sent.one,
            (&ruling, retires),
            now,
        );
    }

    fn follow_one(
        &mut self,
        (id, asked_ms): (LineId, u64),
        mut one: InHand,
        (ruling, retires): (&Ruling, bool),
        now: Now,
    ) {
        self.count_verdict(&ruling.verdict);
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get(&id) else {
            return;
        };
        let case = Case {
            delivery: &one.delivery,
            on_unknown: one.share.spec.on_unknown,
            expires_ms: one.share.expires_ms,
            patience: sending.posts[line.post].credential.provider().patience(),
            asked_ms,
            retires,
        };
        match after(&case, ruling, &mut self.dice, now) {
            Next::Report(report) => sending.reports.push(report),
            Next::AtOnce if one.bounces < BOUNCES && sending.stop_by.is_none() => {
                one.bounces += 1;
                one.remedied |= ruling.remedy != Remedy::Nothing;
                sending.put_back(id, one);
            }
            Next::AtOnce => {
                let report = given_back(&one.delivery, BOUNCED, now);
                sending.reports.push(report);
            }
        }
    }

    fn count_verdict(&mut self, verdict: &Verdict) {
        let counters = &mut self.counters;
        *match verdict {
            Verdict::Accepted { .. } => &mut counters.push_accepted,
            Verdict::TokenDead { .. } => &mut counters.push_token_dead,
            Verdict::TokenSuspect => &mut counters.push_token_suspect,
            Verdict::BadRequest => &mut counters.push_bad_request,
            Verdict::AuthBroken { .. } => &mut counters.push_auth_broken,
            Verdict::RetryAfter { .. } => &mut counters.push_retry_after,
            Verdict::Retry => &mut counters.push_retry,
            Verdict::NeverSent => &mut counters.push_never_sent,
            Verdict::Unknown => &mut counters.push_unknown,
        } += 1;
    }

    fn remedy(&mut self, conn: ConnId, sent: &Sent, ruling: &Ruling, now: Now) {
        let reconnects = matches!(
            ruling.remedy,
            Remedy::Reconnect | Remedy::RenewPassAndReconnect | Remedy::KeepPass
        );
        if reconnects {
            self.retire_conn(conn);
        }
        if let Some(pass) = &sent.pass {
            self.remedy_pass(sent.line, ruling.remedy, pass, now);
        }
        if ruling.remedy == Remedy::Alert {
            let app = sent.one.delivery.lane.app_id.as_str();
            log::error!(app; "a push provider says {}: a person has to look", ruling.reason);
        }
    }

    pub(super) fn tell_breaker(&mut self, sent: &Sent, ruling: &Ruling, now: Now) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get_mut(&sent.line) else {
            return;
        };
        let breaker = &mut line.breaker;
        let dice = &mut self.dice;
        let (mut opens, mut closes) = (false, false);
        match &ruling.verdict {
            Verdict::Accepted { .. }
            | Verdict::TokenDead { .. }
            | Verdict::TokenSuspect
            | Verdict::BadRequest => closes = breaker.healthy(),
            Verdict::RetryAfter {
                wait,
                scope: Scope::App,
            } => {
                breaker.asked_to_wait((*wait).min(REST_MAX), now.moment);
                if let Some(pace) = &mut line.pace {
                    pace.slow(now.moment);
                }
            }
            Verdict::AuthBroken { scope: Scope::App } => opens = breaker.broken(dice, now.moment),
            Verdict::Retry => opens = breaker.failed(dice, now.moment),
            Verdict::RetryAfter { .. }
            | Verdict::AuthBroken { .. }
            | Verdict::NeverSent
            | Verdict::Unknown => breaker.probe_lost(),
        }
        let app = sending.posts[line.post].app_id.as_str();
        let origin = line.origin.as_str();
        match breaker.trouble() {
            Some(Why::Credential) if opens => {
                log::error!(app, origin; "a push provider refuses the credential: {}; what waits for it stays queued", ruling.reason);
            }
            Some(why) if opens => {
                log::warn!(app, origin; "{}: {}; it is left alone for a while", why.word(), ruling.reason);
            }
            None if closes => log::info!(app, origin; "the push provider works again"),
            _ => {}
        }
    }

    /// Whether devices may be retired.
    fn tell_guard(&mut self, sent: &Sent, ruling: &Ruling, now: Now) -> bool {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get(&sent.line) else {
            return false;
        };
        let post = &mut sending.posts[line.post];
        let is_wrong = ruling.verdict.counts_to_guard();
        let speaks = is_wrong || matches!(ruling.verdict, Verdict::Accepted { .. });
        if speaks {
            let (app, credential) = (post.app_id.as_str(), post.credential.kind());
            match post.guard.answered(is_wrong, now.moment) {
                GuardNews::Nothing => {}
                GuardNews::Stops => {
                    log::error!(app, credential; "so many device tokens are called wrong ({}) that the credential may be: no device is retired for it", ruling.reason);
                }
                GuardNews::GoesOn => log::info!(app, credential; "device tokens are right again"),
            }
        }
        post.guard.retires()
    }
}
