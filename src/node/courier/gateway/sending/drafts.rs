//! Requests of one notification to many devices: what they have in common is made once and kept with the
//! line, since those who are next in its queue are mostly told the same. Invariant: a request is the one
//! that the provider would have made for this delivery alone.

use std::sync::Arc;

use bytes::Bytes;

use super::asking::{note_id, note_of};
use super::line::LineId;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::jobs::Claimable;
use crate::push::delivery::queue::InHand;
use crate::push::providers::address::Address;
use crate::push::providers::provider::{Draft, Drafting, Pass, Unfit, pairs};
use crate::session::http2::StreamKey;
use crate::wire::http2::{CommonFields, Http2Request};

/// A draft that was read by the session's side, and what it holds for.
pub(super) struct DraftInUse {
    share: Arc<Claimable>,
    language: Option<String>,
    pass: Option<Arc<Pass>>,
    seconds: i64,
    fields: CommonFields,
    body: Bytes,
}

impl DraftInUse {
    fn make(
        drafting: &dyn Drafting,
        one: &InHand,
        pass: Option<&Arc<Pass>>,
        now: Now,
    ) -> Result<DraftInUse, Unfit> {
        let pass_text = pass.map(Arc::as_ref);
        let Draft { fields, body } = drafting.draft(&note_of(one), pass_text, now)?;
        Ok(DraftInUse {
            share: Arc::clone(&one.share),
            language: language(one).map(str::to_string),
            pass: pass.cloned(),
            seconds: now.unix_seconds(),
            fields: CommonFields::new(&pairs(&fields)).map_err(Unfit::Note)?,
            body: Bytes::from(body),
        })
    }

    fn is_for(&self, one: &InHand, pass: Option<&Arc<Pass>>, now: Now) -> bool {
        let is_same_pass = match (&self.pass, pass) {
            (Some(had), Some(has)) => Arc::ptr_eq(had, has),
            (had, has) => had.is_none() && has.is_none(),
        };
        Arc::ptr_eq(&self.share, &one.share)
            && is_same_pass
            && self.seconds == now.unix_seconds()
            && self.language.as_deref() == language(one)
    }
}

fn language(one: &InHand) -> Option<&str> {
    one.share.spec.language_for(one.delivery.device())
}

impl Courier {
    /// Asks by a draft; `None` where there can be none. `Err(None)`: the connection has no room.
    pub(super) fn ask_by_draft(
        &mut self,
        (id, conn): (LineId, ConnId),
        (one, address): (&InHand, &Address),
        pass: Option<&Arc<Pass>>,
        now: Now,
    ) -> Option<Result<StreamKey, Option<Unfit>>> {
        let sending = &mut self.gateway.sending;
        let line = sending.lines.get_mut(&id)?;
        let provider = sending.posts[line.post].credential.provider();
        let drafting = provider.drafting(address)?;
        let draft = match line.draft.take().filter(|it| it.is_for(one, pass, now)) {
            Some(known) => Ok(known),
            None => DraftInUse::make(drafting, one, pass, now).map(Arc::new),
        };
        let made = draft.and_then(|draft| {
            line.draft = Some(Arc::clone(&draft));
            Ok((draft, drafting.own(&note_id(one), address)?))
        });
        let (draft, own) = match made {
            Ok(made) => made,
            Err(why) => return Some(Err(Some(why))),
        };
        let deadline = now.moment + provider.patience().answer;
        let asked = Http2Request {
            method: own.method.word(),
            path: &own.path,
            common: Some(&draft.fields),
            fields: &pairs(&own.fields),
            body: draft.body.clone(),
        };
        Some(self.ask_provider(conn, &asked, deadline, now))
    }
}
