//! The pass of one credential, or of one credential and origin: when it is made or asked for, how long
//! the old one serves, what is done when none is to be had, and what survives a restart. Opens nothing;
//! waits by being asked again.
//!
//! How the courier uses it: for each credential one `PassKeeper`, for Web Push one for each credential
//! and origin. Before a request it takes `pass`. At the moment that `step` said, and after every
//! `answer` and `remedy`, it calls `step` again. After `Step::Made`, an answer that is `Ok` and a remedy
//! it keeps what `keep` says, and gives that to `restore` at the next start, before the first `step`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::backoff::Backoff;
use crate::base::dice::Dice;
use crate::base::now::{Moment, Now};
use crate::push::providers::credential::{Credential, Making, Proof};
use crate::push::providers::provider::{Answer, Lost, Pass, Request, lost};
use crate::push::providers::verdict::{Remedy, Ruling, Verdict};

/// Between two requests for a pass that failed; then doubled.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// When the credential itself was refused.
const BROKEN_WAIT: Duration = Duration::from_secs(60);
/// After `Remedy::KeepPass`.
const QUARANTINE_SECONDS: i64 = 20 * 60;
/// No kept text holds back a new pass for longer.
const HELD_MAX: i64 = 3600;
/// A kept pass that was made later than now by more than this is of another clock.
const SKEW_SECONDS: i64 = 300;

/// See the file's head.
#[derive(Debug)]
pub struct PassKeeper {
    origin: Option<String>,
    pass: Option<Arc<Pass>>,
    /// Seconds since 1970, as are all of a pass.
    made_at: i64,
    /// No new pass before.
    held_until: i64,
    /// No further attempt before.
    rests_until: Moment,
    asks: bool,
    /// Requests since the last pass.
    tries: u32,
    backoff: Backoff,
    fault: Option<Ruling>,
}

/// How long to wait for an answer to `Step::Ask`; then it is `Lost::Silent`.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// So many origins of one credential have keepers; then the one that was not used for longest is
/// forgotten, since strangers can think of any number.
pub const ORIGINS_MAX: usize = 256;

/// What is to be done now.
#[derive(Debug)]
pub enum Step {
    /// There is a new pass.
    Made,
    /// This is to be sent; `answer` is told what became of it.
    Ask(Request),
    /// Nothing until then; `None`: until an answer comes, or ever.
    Rest(Option<Moment>),
}

/// There is no pass now. Nothing is sent with the credential until `Step::Made` or an answer that is
/// `Ok`; what waits for it stays queued, with no attempt counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPass<'a> {
    /// What happened to the last request for one, if that is why.
    pub fault: Option<&'a Ruling>,
}

/// As it is kept, sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    pass: Option<KeptPass>,
    made_at: i64,
    held_until: i64,
}

#[derive(Serialize, Deserialize)]
struct KeptPass {
    authorization: String,
    renew_at: i64,
    ends_at: i64,
}

impl PassKeeper {
    /// `origin`: what the pass is for, if the credential's passes are for one (`is_per_origin`).
    pub fn new(origin: Option<String>) -> PassKeeper {
        PassKeeper {
            origin,
            pass: None,
            made_at: 0,
            held_until: 0,
            rests_until: Moment::default(),
            asks: false,
            tries: 0,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            fault: None,
        }
    }

    /// What to give `Provider::request`: `None` where none is needed.
    pub fn pass(
        &self,
        credential: &Credential,
        now: Now,
    ) -> Result<Option<&Arc<Pass>>, NoPass<'_>> {
        if matches!(credential.proof, Proof::ApnsCertificate { .. }) {
            return Ok(None);
        }
        let good = self.pass.as_ref();
        let good = good.filter(|pass| now.unix_seconds() < pass.ends_at);
        let fault = self.fault.as_ref();
        good.map(Some).ok_or(NoPass { fault })
    }

    pub fn step(&mut self, credential: &Credential, now: Now, dice: &mut Dice) -> Step {
        if self.asks || matches!(credential.proof, Proof::ApnsCertificate { .. }) {
            return Step::Rest(None);
        }
        let due = self.due(now);
        if now.moment < due {
            return Step::Rest(Some(due));
        }
        match credential.make(self.origin.as_deref(), now) {
            Ok(Making::Made(pass)) => {
                self.adopt(pass, now);
                Step::Made
            }
            Ok(Making::Ask(request)) => {
                self.asks = true;
                self.tries = self.tries.saturating_add(1);
                Step::Ask(request)
            }
            Ok(Making::Unneeded) => Step::Rest(None),
            Err(why) => {
                self.fail(Ruling::new(Verdict::APP_BROKEN, why), now, dice);
                Step::Rest(Some(self.rests_until))
            }
        }
    }

    fn due(&self, now: Now) -> Moment {
        let renew_at = self.pass.as_ref().map_or(0, |pass| pass.renew_at);
        let left = renew_at.max(self.held_until) - now.unix_seconds();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        (now.moment + left).max(self.rests_until)
    }

    /// What became of the request of `Step::Ask`. An error is what happened, for the log; a pass
    /// that is still good stays in use. What nobody asked for is ignored.
    pub fn answer(
        &mut self,
        credential: &Credential,
        answer: Result<&Answer<'_>, Lost>,
        now: Now,
        dice: &mut Dice,
    ) -> Result<(), Ruling> {
        if !self.asks {
            return Ok(());
        }
        self.asks = false;
        let granted = match answer {
            Ok(answer) => credential.granted(answer, self.tries, now),
            Err(how) => Err(lost(how)),
        };
        match granted {
            Ok(pass) => {
                self.adopt(pass, now);
                Ok(())
            }
            Err(ruling) => {
                self.fail(ruling.clone(), now, dice);
                Err(ruling)
            }
        }
    }

    fn adopt(&mut self, pass: Pass, now: Now) {
        self.pass = Some(Arc::new(pass));
        self.made_at = now.unix_seconds();
        self.tries = 0;
        self.backoff.reset();
        self.fault = None;
    }

    fn fail(&mut self, ruling: Ruling, now: Now, dice: &mut Dice) {
        let wait = self.backoff.next(dice);
        let wait = match ruling.verdict {
            Verdict::RetryAfter { wait, .. } => wait,
            Verdict::AuthBroken { .. } => wait.max(BROKEN_WAIT),
            _ => wait,
        };
        self.rests_until = now.moment + wait;
        self.fault = Some(ruling);
    }

    /// What a ruling asks for. `used`: the pass that the request was sent with; if another one is in
    /// use by now, that is the remedy already.
    pub fn remedy(&mut self, credential: &Credential, remedy: Remedy, used: &Pass, now: Now) {
        let is_current = self.pass.as_deref() == Some(used);
        match remedy {
            Remedy::RenewPass | Remedy::RenewPassAndReconnect if is_current => {
                self.pass = None;
                let least = self.made_at + credential.least_seconds();
                self.held_until = self.held_until.max(least);
            }
            Remedy::KeepPass => {
                self.held_until = now.unix_seconds() + QUARANTINE_SECONDS;
            }
            _ => {}
        }
    }

    /// What is to be kept for the next start, as text; no secret can be read in it without the
    /// credential itself.
    pub fn keep(&self, credential: &Credential, dice: &mut Dice) -> Option<String> {
        let pass = self.pass.as_ref().map(|pass| KeptPass {
            authorization: pass.authorization.clone(),
            renew_at: pass.renew_at,
            ends_at: pass.ends_at,
        });
        let (made_at, held_until) = (self.made_at, self.held_until);
        let kept = Kept {
            pass,
            made_at,
            held_until,
        };
        let json = Zeroizing::new(serde_json::to_vec(&kept).ok()?);
        credential.seal.close(&json, self.about(), dice)
    }

    /// One that goes on where the kept one was; a new one if that was another credential's, has
    /// ended or is no such text.
    pub fn restore(
        credential: &Credential,
        origin: Option<String>,
        kept: &str,
        now: Now,
    ) -> PassKeeper {
        let mut keeper = PassKeeper::new(origin);
        let opened = credential.seal.open(kept, keeper.about());
        let kept: Option<Kept> = opened.and_then(|json| serde_json::from_slice(&json).ok());
        let seconds = now.unix_seconds();
        if let Some(kept) = kept.filter(|kept| kept.made_at <= seconds + SKEW_SECONDS) {
            let pass = kept.pass.filter(|pass| seconds < pass.ends_at);
            keeper.pass = pass.map(|pass| {
                Arc::new(Pass {
                    authorization: pass.authorization,
                    renew_at: pass.renew_at,
                    ends_at: pass.ends_at,
                })
            });
            keeper.made_at = kept.made_at;
            keeper.held_until = kept.held_until.min(seconds + HELD_MAX);
        }
        keeper
    }

    fn about(&self) -> &str {
        self.origin.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
