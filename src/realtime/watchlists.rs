//! One reactor's view of watchlists: which connections want to know of which users, and what they
//! were last told. It asks and tells nobody; its owner does.
//!
//! Invariant: a user is listed exactly while some connection watches him; what is known of his
//! standing is what all of these connections were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::ids::ConnId;
use crate::base::names::ChannelKey;

#[derive(Default)]
struct Watched {
    /// Whether he is signed in, once the switchboard has said so.
    online: Option<bool>,
    watchers: BTreeSet<ConnId>,
}

/// Users who came and users who went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub online: Vec<ChannelKey>,
    pub offline: Vec<ChannelKey>,
}

impl Changes {
    fn add(&mut self, user: &ChannelKey, online: bool) {
        let list = if online {
            &mut self.online
        } else {
            &mut self.offline
        };
        list.push(user.clone());
    }

    pub fn is_empty(&self) -> bool {
        self.online.is_empty() && self.offline.is_empty()
    }
}

/// See the file's head.
pub struct Watchlists {
    users: HashMap<ChannelKey, Watched, FixedState>,
    lists: HashMap<ConnId, Vec<ChannelKey>, FixedState>,
}

impl Watchlists {
    pub fn new(dice: &mut Dice) -> Watchlists {
        let hasher = FixedState::with_seed(dice.next_u64());
        Watchlists {
            users: HashMap::with_hasher(hasher.clone()),
            lists: HashMap::with_hasher(hasher),
        }
    }

    /// Notes a connection's list, which it has once. The users to ask for, and what is known of
    /// the others and to be told the connection.
    pub fn watch(&mut self, conn: ConnId, list: Vec<ChannelKey>) -> (Vec<ChannelKey>, Changes) {
        let mut unknown = Vec::new();
        let mut known = Changes::default();
        for user in &list {
            let watched = self.users.entry(user.clone()).or_default();
            if watched.watchers.is_empty() {
                unknown.push(user.clone());
            }
            watched.watchers.insert(conn);
            if let Some(online) = watched.online {
                known.add(user, online);
            }
        }
        self.lists.insert(conn, list);
        (unknown, known)
    }

    /// Forgets a connection's list; the users whom nobody watches any more.
    pub fn unwatch(&mut self, conn: ConnId) -> Vec<ChannelKey> {
        let mut list = self.lists.remove(&conn).unwrap_or_default();
        list.retain(|user| {
            let Some(watched) = self.users.get_mut(user) else {
                return false;
            };
            watched.watchers.remove(&conn);
            let alone = watched.watchers.is_empty();
            if alone {
                self.users.remove(user);
            }
            alone
        });
        list
    }

    /// What the switchboard says of some users; who is to be told what.
    pub fn learn(&mut self, standings: &[(&str, bool)]) -> BTreeMap<ConnId, Changes> {
        let mut told: BTreeMap<ConnId, Changes> = BTreeMap::new();
        for (user, online) in standings {
            let Some((key, watched)) = ChannelKey::parse(user)
                .and_then(|key| self.users.get_mut(&key).map(|watched| (key, watched)))
            else {
                continue;
            };
            if watched.online.replace(*online) == Some(*online) {
                continue;
            }
            for conn in &watched.watchers {
                told.entry(*conn).or_default().add(&key, *online);
            }
        }
        told
    }

    /// Everybody who is watched, for a new switchboard.
    pub fn users(&self) -> impl Iterator<Item = &ChannelKey> {
        self.users.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &[&str]) -> Vec<ChannelKey> {
        ids.iter().map(|id| ChannelKey::of_user("d", id)).collect()
    }

    #[test]
    fn each_change_is_told_once_and_what_is_known_is_told_at_once() {
        let mut lists = Watchlists::new(&mut Dice::new([0; 16]));
        let (one, two) = (ConnId::new(1, 0), ConnId::new(2, 0));
        let (unknown, known) = lists.watch(one, keys(&["a", "b"]));
        assert_eq!((unknown, known), (keys(&["a", "b"]), Changes::default()));
        let a = ("d/#server-to-user-a", true);
        let b = ("d/#server-to-user-b", false);
        let told = lists.learn(&[a, b]);
        let expected = Changes {
            online: keys(&["a"]),
            offline: keys(&["b"]),
        };
        assert_eq!(told, BTreeMap::from([(one, expected)]));
        assert!(lists.learn(&[a, b]).is_empty(), "nothing is new");

        let (unknown, known) = lists.watch(two, keys(&["a", "c"]));
        assert_eq!(unknown, keys(&["c"]));
        assert_eq!(known.online, keys(&["a"]));
        assert_eq!(lists.unwatch(one), keys(&["b"]));
        assert_eq!(lists.unwatch(two), keys(&["a", "c"]));
        assert!(lists.learn(&[a]).is_empty());
        assert_eq!(lists.users().count(), 0);
    }
}
