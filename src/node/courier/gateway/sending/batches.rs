//! Several deliveries in one request, where a provider takes that: those of one notification that lie
//! behind one another and are told the same. Invariants: each of them is followed by itself, as if the
//! answer had been its own; what may be the fault of one of them, or of being together, is asked again for
//! each alone, and no attempt counted.

use super::asking::note_of;
use super::line::{LineId, Sent};
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::outcome::given_back;
use crate::push::delivery::queue::InHand;
use crate::push::notify::spec::OnUnknown;
use crate::push::providers::address::Address;
use crate::push::providers::note::Note;
use crate::push::providers::provider::for_all;
use crate::push::providers::verdict::{Ruling, Verdict};

/// What goes into one request.
#[derive(Default)]
pub(super) struct Together {
    pub more: Vec<InHand>,
    /// One for each of `more`.
    pub addresses: Vec<Address>,
}

impl Courier {
    /// Takes out of the line's queue what can share the request of this one.
    pub(super) fn gather(
        &mut self,
        id: LineId,
        (one, address, note): (&InHand, &Address, &Note),
        now: Now,
    ) -> Together {
        let mut together = Together::default();
        let Some((limit, mut bytes)) = self.room_together(id, one, address) else {
            return together;
        };
        let is_next = |other: &InHand| {
            let may_go = other.marked || other.share.spec.on_unknown != OnUnknown::Fail;
            other.delivery.notification == one.delivery.notification && may_go && !other.alone
        };
        while together.more.len() + 1 < limit {
            let sending = &mut self.gateway.sending;
            let Some(line) = sending.lines.get_mut(&id) else {
                break;
            };
            let Some(other) = line.queue.take_if(is_next) else {
                break;
            };
            sending.posts[line.post].waiting -= 1;
            let Some(to) = self.address_of(&other.delivery, now) else {
                continue;
            };
            let mut told = note_of(&other);
            told.id.clone_from(&note.id);
            let sending = &mut self.gateway.sending;
            let post = sending.lines.get(&id).map(|line| &sending.posts[line.post]);
            let batch = post.and_then(|post| post.credential.provider().batch());
            let fits = batch.is_some_and(|batch| batch.go_together(address, &to));
            if !fits || told != *note || to.token_bytes() > bytes {
                sending.put_back(id, other);
                break;
            }
            bytes -= to.token_bytes();
            together.more.push(other);
            together.addresses.push(to);
        }
        together
    }

    /// How many one request takes, and how many bytes of tokens beside the first; `None`: this one goes alone.
    fn room_together(&self, id: LineId, one: &InHand, address: &Address) -> Option<(usize, usize)> {
        let sending = &self.gateway.sending;
        let post = &sending.posts[sending.lines.get(&id)?.post];
        let batch = post.credential.provider().batch()?;
        let may = !one.alone && batch.go_together(address, address);
        let bytes = batch.limit_bytes().saturating_sub(address.token_bytes());
        may.then_some((batch.limit(), bytes))
    }

    /// What a ruling means for all that shared the request; `None`: each was put back, to go alone.
    pub(super) fn rule_together(
        &mut self,
        sent: &mut Sent,
        ruling: Ruling,
        now: Now,
    ) -> Option<Ruling> {
        let sending = &mut self.gateway.sending;
        sending.together -= sent.more.len();
        let reason = ruling.reason.clone();
        if let Some(shared) = for_all(ruling, 1 + sent.more.len()) {
            return Some(shared);
        }
        log::warn!(app = sent.one.delivery.lane.app_id.as_str(), deliveries = 1 + sent.more.len(); "a request for several was refused ({reason}): each is sent alone");
        // Nothing is known of the provider but that it answers.
        self.tell_breaker(sent, &Ruling::new(Verdict::NeverSent, reason), now);
        let more = std::mem::take(&mut sent.more);
        let all = std::iter::once(sent.one.clone()).chain(more);
        let all: Vec<InHand> = all.collect();
        let sending = &mut self.gateway.sending;
        for mut one in all.into_iter().rev() {
            one.alone = true;
            match sending.stop_by {
                None => sending.put_back(sent.line, one),
                Some(_) => {
                    let back = given_back(&one.delivery, std::time::Duration::ZERO, now);
                    sending.reports.push(back);
                }
            }
        }
        None
    }

    /// The connection takes no more after all: they are next again.
    pub(super) fn put_all_back(&mut self, id: LineId, one: InHand, together: Together) {
        let sending = &mut self.gateway.sending;
        for other in together.more.into_iter().rev() {
            sending.put_back(id, other);
        }
        sending.put_back(id, one);
    }
}
