//! The passes of lines: made or asked for when something waits for them, kept across restarts. Which
//! and when is the keeper's to say (`credential/keeper`).

use super::Waiting;
use super::claiming::pass_name;
use super::line::LineId;
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::jobs::DeliveryJob;
use crate::push::providers::credential::keeper::Step;
use crate::push::providers::provider::{Answer, Lost, Pass};
use crate::push::providers::verdict::{Remedy, Ruling, Verdict};

impl Courier {
    /// Looks after the passes of all lines that have something to send.
    pub(super) fn renew_passes(&mut self, now: Now) {
        let lines = self.gateway.sending.lines.iter();
        let due = lines.filter(|(_, line)| {
            let wanted = line.keeper.is_some() && !line.queue.is_empty();
            wanted && line.pass_due.is_none_or(|at| at <= now.moment)
        });
        let due: Vec<LineId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.step_pass(id, now);
        }
    }

    fn step_pass(&mut self, id: LineId, now: Now) {
        loop {
            let sending = &mut self.gateway.sending;
            let Some(line) = sending.lines.get_mut(&id) else {
                return;
            };
            let post = line.post;
            let credential = &sending.posts[post].credential;
            let Some(keeper) = &mut line.keeper else {
                return;
            };
            match keeper.step(credential, now, &mut self.dice) {
                Step::Made => self.keep_pass(id),
                Step::Rest(until) => {
                    // Looked at again when something waits.
                    line.pass_due = Some(until.unwrap_or(now.moment + FAR));
                    return;
                }
                Step::Ask(request) => {
                    let asks = sending.line_to(post, &request.origin.clone(), true, now);
                    let asks = asks.and_then(|asks| sending.lines.get_mut(&asks));
                    match asks {
                        Some(asks) => asks.asks.push_back((id, request)),
                        None => self.pass_lost(id, now),
                    }
                }
            }
        }
    }

    pub(super) fn pass_lost(&mut self, id: LineId, now: Now) {
        self.pass_answered(id, Err(Lost::NotConnected), now);
    }

    pub(super) fn pass_answered(
        &mut self,
        id: LineId,
        answer: Result<&Answer<'_>, Lost>,
        now: Now,
    ) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get_mut(&id) else {
            return;
        };
        let post = &sending.posts[line.post];
        let Some(keeper) = &mut line.keeper else {
            return;
        };
        line.pass_due = None;
        match keeper.answer(&post.credential, answer, now, &mut self.dice) {
            Ok(()) => self.keep_pass(id),
            Err(Ruling {
                verdict, reason, ..
            }) => {
                let (app, credential) = (post.app_id.as_str(), post.credential.kind());
                match verdict {
                    Verdict::AuthBroken { .. } => {
                        self.counters.push_auth_broken += 1;
                        log::error!(app, credential; "no access token is granted: {reason}; what waits for it stays queued");
                    }
                    _ => log::warn!(app, credential; "no access token was granted: {reason}"),
                }
            }
        }
        self.step_pass(id, now);
    }

    pub(super) fn remedy_pass(&mut self, id: LineId, remedy: Remedy, used: &Pass, now: Now) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get_mut(&id) else {
            return;
        };
        let credential = &sending.posts[line.post].credential;
        if remedy == Remedy::Nothing {
            return;
        }
        if let Some(keeper) = &mut line.keeper {
            keeper.remedy(credential, remedy, used, now);
            line.pass_due = None;
            self.keep_pass(id);
        }
    }

    fn keep_pass(&mut self, id: LineId) {
        let sending = &mut self.gateway.sending;
        let Some(line) = sending.lines.get(&id) else {
            return;
        };
        let post = &sending.posts[line.post];
        let keeper = line.keeper.as_ref();
        let text = keeper.and_then(|keeper| keeper.keep(&post.credential, &mut self.dice));
        if let Some(text) = text {
            let name = pass_name(&post.app_id, &post.credential, &line.origin);
            self.ask_delivery(DeliveryJob::KeepPass { name, text }, Waiting::Nothing);
        }
    }
}

/// Nothing is due by itself.
const FAR: std::time::Duration = std::time::Duration::from_secs(60);
