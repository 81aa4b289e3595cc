//! The switchboard's view of watchlists: which links want to know of which users. Whether a user
//! is signed in is the registry's to say.
//!
//! Invariant: a user is listed exactly while some link watches him.

use std::collections::HashMap;

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::names::ChannelKey;
use crate::realtime::registry::LinkId;

/// See the file's head.
pub struct Watching {
    users: HashMap<ChannelKey, Vec<LinkId>, FixedState>,
}

impl Watching {
    pub fn new(dice: &mut Dice) -> Watching {
        Watching {
            users: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
        }
    }

    pub fn watch(&mut self, link: LinkId, user: &str) {
        let Some(user) = ChannelKey::parse(user) else {
            return;
        };
        let links = self.users.entry(user).or_default();
        if !links.contains(&link) {
            links.reserve_exact(1);
            links.push(link);
        }
    }

    pub fn unwatch(&mut self, link: LinkId, user: &str) {
        let Some(links) = self.users.get_mut(user) else {
            return;
        };
        links.retain(|watcher| *watcher != link);
        if links.is_empty() {
            self.users.remove(user);
        }
    }

    pub fn drop_link(&mut self, link: LinkId) {
        self.users.retain(|_, links| {
            links.retain(|watcher| *watcher != link);
            !links.is_empty()
        });
    }

    /// Who wants to know of the user.
    pub fn watchers(&self, user: &str) -> &[LinkId] {
        self.users.get(user).map_or(&[], |links| links)
    }

    /// Whom a link watches.
    pub fn of_link(&self, link: LinkId) -> impl Iterator<Item = &ChannelKey> {
        let watched = self.users.iter();
        watched.filter_map(move |(user, links)| links.contains(&link).then_some(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_watches_until_it_says_otherwise_or_ends() {
        let (a, b) = (LinkId::new(0, 0), LinkId::new(1, 0));
        let mut watching = Watching::new(&mut Dice::new([0; 16]));
        for link in [a, a, b] {
            watching.watch(link, "demo/u");
        }
        assert_eq!(watching.watchers("demo/u"), [a, b]);
        watching.unwatch(a, "demo/u");
        assert_eq!(watching.watchers("demo/u"), [b]);
        assert_eq!(watching.of_link(a).count(), 0);
        watching.drop_link(b);
        assert!(watching.users.is_empty());
    }
}
