//! Which credentials are in use, and for what. Those that came while the server runs go before those of
//! the configuration, and whatever is for all devices comes last. A post that is replaced sends
//! nothing any more: what waits goes back to the store, what is under way is answered, and then its
//! connections end. Invariant: no line leads to another post than it was made for.

use std::time::Duration;

use super::claiming::ways;
use super::line::{LineId, Post};
use super::{Phase, Sending};
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::delivery::guard::Guard;
use crate::push::delivery::jobs::LaneName;
use crate::push::delivery::outcome::given_back;
use crate::push::providers::credential::Credential;

/// As many may be on their way out.
const LEAVING_MAX: usize = 100;

/// A credential that was given while the server runs.
pub(in crate::node::courier::gateway) struct Stored {
    pub app_id: String,
    pub name: String,
    /// Not by an operator: it is sent with to public addresses only.
    pub is_strangers: bool,
    pub credential: Credential,
}

impl Post {
    /// `name`: `None` for one of the configuration.
    pub fn new(
        app_id: String,
        name: Option<String>,
        credential: Credential,
        wrong_tokens: u32,
    ) -> Post {
        Post {
            app_id,
            name,
            credential,
            is_strangers: false,
            is_retired: false,
            guard: Guard::new(wrong_tokens),
            lines: Default::default(),
            waiting: 0,
        }
    }

    fn is(&self, app_id: &str, name: &str) -> bool {
        !self.is_retired && self.app_id == app_id && self.name.as_deref() == Some(name)
    }
}

impl Sending {
    /// Decides anew which credential is for what.
    pub(super) fn set_lanes(&mut self) {
        let posts = self.posts.iter().enumerate();
        let mut posts: Vec<(usize, &Post)> = posts.filter(|(_, post)| !post.is_retired).collect();
        posts.sort_by_key(|(_, post)| (post.credential.is_fallback(), post.name.is_none()));
        self.lanes.clear();
        for (index, post) in posts {
            for way in ways(&post.credential) {
                let app_id = post.app_id.clone();
                self.lanes.entry(LaneName { app_id, way }).or_insert(index);
            }
        }
    }

    fn put_post(&mut self, post: Post) {
        let is_free = |post: &Post| post.is_retired && post.lines.is_empty();
        match self.posts.iter().position(is_free) {
            Some(place) => self.posts[place] = post,
            None => self.posts.push(post),
        }
    }

    /// Whether so many are replaced that no more may be for now.
    pub(in crate::node::courier::gateway) fn is_changing(&self) -> bool {
        let leaving = self
            .posts
            .iter()
            .filter(|post| post.is_retired && !post.lines.is_empty());
        leaving.count() >= LEAVING_MAX
    }

    /// A credential that is in use, and the services it is used for.
    pub(in crate::node::courier::gateway) fn stored(
        &self,
        app_id: &str,
        name: &str,
    ) -> Option<(&Credential, Vec<&'static str>)> {
        let index = self.posts.iter().position(|post| post.is(app_id, name))?;
        Some((&self.posts[index].credential, self.used_for(index)))
    }

    /// The same of those of the configuration.
    pub(in crate::node::courier::gateway) fn configured(
        &self,
        app_id: &str,
    ) -> Vec<(&Credential, Vec<&'static str>)> {
        let posts = self.posts.iter().enumerate();
        let own = posts
            .filter(|(_, post)| post.name.is_none() && !post.is_retired && post.app_id == app_id);
        own.map(|(index, post)| (&post.credential, self.used_for(index)))
            .collect()
    }

    fn used_for(&self, index: usize) -> Vec<&'static str> {
        let own = self.lanes.iter().filter(|(_, post)| **post == index);
        own.map(|(lane, _)| lane.way.word()).collect()
    }
}

impl Courier {
    /// From now on these are in use beside those of the configuration.
    pub(in crate::node::courier::gateway) fn replace_posts(&mut self, all: Vec<Stored>, now: Now) {
        let sending = &mut self.gateway.sending;
        let mut new = all;
        for post in &mut sending.posts {
            let Some(name) = post.name.as_deref().filter(|_| !post.is_retired) else {
                continue;
            };
            let stays = |one: &Stored| {
                one.app_id == post.app_id
                    && one.name == name
                    && one.is_strangers == post.is_strangers
                    && one.credential.is_same(&post.credential)
            };
            match new.iter().position(stays) {
                Some(place) => _ = new.swap_remove(place),
                None => post.is_retired = true,
            }
        }
        for one in new {
            if let Some(warning) = one.credential.warning(now) {
                log::warn!(app = one.app_id.as_str(), credential = one.name.as_str(); "{warning}");
            }
            let wrong_tokens = sending.wrong_tokens;
            let mut post = Post::new(one.app_id, Some(one.name), one.credential, wrong_tokens);
            post.is_strangers = one.is_strangers;
            sending.put_post(post);
        }
        sending.set_lanes();
        sending.look_by(now.moment);
    }

    /// What posts leave behind that are not in use any more.
    pub(super) fn clear_retired(&mut self, now: Now) {
        let sending = &mut self.gateway.sending;
        debug_assert!(sending.phase == Phase::On);
        let retired = sending.posts.iter_mut().filter(|post| post.is_retired);
        let mut lines: Vec<LineId> = Vec::new();
        for post in retired {
            post.waiting = 0;
            lines.extend(post.lines.values());
        }
        let mut conns: Vec<ConnId> = Vec::new();
        for id in lines {
            let Some(line) = sending.lines.get_mut(&id) else {
                continue;
            };
            for one in line.queue.take_all() {
                sending
                    .reports
                    .push(given_back(&one.delivery, Duration::ZERO, now));
            }
            line.asks.clear();
            conns.extend(&line.conns);
        }
        for conn in conns {
            self.retire_conn(conn);
            self.poll_provider(conn, now);
        }
    }
}
