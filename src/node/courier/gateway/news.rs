//! What webhooks are told of deliveries and devices: news are taken from the store, where they stand
//! since it happened, and become events of requests like all others. Owns when the store is looked at
//! for them. Invariant: they are forgotten with the commit that stores their requests, or in a cluster
//! when it keeps these; before that they come back.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::now::{Moment, Now, bring_forward};
use crate::node::courier::Courier;
use crate::node::courier::gateway::Waiting as Waits;
use crate::push::jobs::Job;
use crate::push::news::{KINDS, NewsJob, NewsOutcome, PAGE};

/// What is taken and not stored by then may be taken again.
const LEASE: Duration = Duration::from_secs(60);
/// However little is known to have happened; what was taken back is found then.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// See the file's head.
#[derive(Default)]
pub(in crate::node::courier) struct News {
    /// Of this courier, in claims.
    courier: String,
    /// Some endpoint wants some.
    is_wanted: bool,
    look_at: Option<Moment>,
    is_looking: bool,
    /// In events that wait for the next commit; in a cluster.
    told: Vec<u64>,
}

/// What is to be done with a job's outcome.
pub(super) enum Waiting {
    Taken,
    Nothing,
}

impl News {
    pub fn new(courier: String) -> News {
        News {
            courier,
            ..News::default()
        }
    }
}

impl Courier {
    /// The store is told what is wanted; what was noted before is told.
    pub(super) fn begin_news(&mut self, now: Now) {
        let wanted = self.webhooks.iter().flat_map(|it| {
            let kinds = KINDS.into_iter().filter(|kind| it.kinds.contains(kind));
            kinds.map(|kind| (it.app_id.clone(), kind))
        });
        let wanted: BTreeSet<_> = wanted.collect();
        let news = &mut self.gateway.news;
        news.is_wanted = !wanted.is_empty();
        news.look_at = Some(now.moment);
        let courier = news.courier.clone();
        self.ask_news(NewsJob::Want { wanted, courier }, Waiting::Nothing);
    }

    fn ask_news(&mut self, job: NewsJob, waiting: Waiting) {
        self.ask_job(Job::News(job), Waits::News(waiting));
    }

    /// Something may have happened.
    pub(super) fn look_for_news(&mut self, now: Now) {
        bring_forward(&mut self.gateway.news.look_at, now.moment);
    }

    /// Only one server of a cluster tells anybody.
    pub(in crate::node::courier) fn take_news(&mut self, now: Now) {
        let is_due = self.news_deadline().is_some_and(|at| at <= now.moment);
        if !is_due {
            return;
        }
        let news = &mut self.gateway.news;
        news.is_looking = true;
        news.look_at = None;
        let job = NewsJob::Take {
            courier: news.courier.clone(),
            now_ms: now.unix_ms,
            until_ms: now.unix_ms + LEASE.as_millis() as u64,
        };
        self.ask_news(job, Waiting::Taken);
    }

    pub(super) fn take_news_outcome(&mut self, waiting: Waiting, outcome: NewsOutcome, now: Now) {
        if let NewsOutcome::Impossible(why) = &outcome {
            log::error!("news for webhooks: the store could not do what was asked: {why}");
        }
        if !matches!(waiting, Waiting::Taken) {
            return;
        }
        let latest = self.gateway.next_look(LOOK_AFTER);
        let news = &mut self.gateway.news;
        news.is_looking = false;
        bring_forward(&mut news.look_at, now.moment + latest);
        let NewsOutcome::Taken(taken) = outcome else {
            return;
        };
        if taken.len() == PAGE as usize {
            bring_forward(&mut news.look_at, now.moment);
        }
        if taken.is_empty() || !self.is_in_office() {
            // What another server tells by now is taken there when the lease has ended.
            return;
        }
        for it in &taken {
            self.tell_of_device(&it.app_id, &it.recipient(), it.event());
        }
        let ids = taken.iter().map(|it| it.id);
        if self.is_in_cluster() {
            self.gateway.news.told.extend(ids);
        } else {
            let ids = ids.collect();
            self.ask_news(NewsJob::Forget { ids }, Waiting::Nothing);
        }
    }

    /// Though maybe no endpoint wanted them in the end.
    pub(in crate::node::courier) fn has_told_news(&self) -> bool {
        !self.gateway.news.told.is_empty()
    }

    /// Those that the next commit stores.
    pub(in crate::node::courier) fn told_news(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gateway.news.told)
    }

    /// The cluster keeps what tells them.
    pub(in crate::node::courier) fn forget_news(&mut self, ids: &[u64]) {
        if !ids.is_empty() {
            let ids = ids.to_vec();
            self.ask_news(NewsJob::Forget { ids }, Waiting::Nothing);
        }
    }

    pub(in crate::node::courier) fn news_deadline(&self) -> Option<Moment> {
        let news = &self.gateway.news;
        let looks = news.is_wanted && !news.is_looking && self.is_in_office();
        news.look_at.filter(|_| looks)
    }
}
