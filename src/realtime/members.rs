//! The users of one presence channel as the registry knows them: who, with what info, and how many
//! of each worker's connections are theirs.

use std::collections::BTreeMap;

use crate::realtime::registry::LinkId;
use crate::wire::bus::Member;

/// Presence of one channel. Invariant: every user has at least one connection.
#[derive(Debug, Default)]
pub struct Members {
    users: BTreeMap<Box<str>, User>,
}

#[derive(Debug)]
struct User {
    info: Box<str>,
    connections: Vec<(LinkId, u32)>,
}

impl User {
    fn is_of(&self, link: LinkId) -> bool {
        self.connections.iter().any(|(holder, _)| *holder == link)
    }

    fn is_here(&self) -> bool {
        self.connections.iter().any(|(holder, _)| !holder.is_afar())
    }
}

impl Members {
    pub fn contains(&self, user_id: &str) -> bool {
        self.users.contains_key(user_id)
    }

    /// Counts `count` more connections; whether these are the user's first. The info of the first
    /// connection stays for as long as the user does.
    pub fn add(&mut self, link: LinkId, member: Member<'_>, count: u32) -> bool {
        if let Some(user) = self.users.get_mut(member.user_id) {
            add_count(&mut user.connections, link, count);
            return false;
        }
        let user = User {
            info: member.user_info.into(),
            connections: vec![(link, count)],
        };
        self.users.insert(member.user_id.into(), user);
        true
    }

    /// Counts one connection less; whether it was the user's last.
    pub fn remove(&mut self, link: LinkId, user_id: &str) -> bool {
        let Some(user) = self.users.get_mut(user_id) else {
            return false;
        };
        take_count(&mut user.connections, link);
        let gone = user.connections.is_empty();
        if gone {
            self.users.remove(user_id);
        }
        gone
    }

    /// Forgets a worker; the users for whom it held the last connection.
    pub fn drop_link(&mut self, link: LinkId) -> Vec<String> {
        let mut gone = Vec::new();
        self.users.retain(|user_id, user| {
            user.connections.retain(|(holder, _)| *holder != link);
            if user.connections.is_empty() {
                gone.push(user_id.to_string());
            }
            !user.connections.is_empty()
        });
        gone
    }

    /// Forgets all of a link's connections of one user; whether they were the user's last.
    pub fn withdraw(&mut self, link: LinkId, user_id: &str) -> bool {
        let Some(user) = self.users.get_mut(user_id) else {
            return false;
        };
        user.connections.retain(|(holder, _)| *holder != link);
        let gone = user.connections.is_empty();
        if gone {
            self.users.remove(user_id);
        }
        gone
    }

    /// Whether a link holds connections of the user.
    pub fn is_of(&self, link: LinkId, user_id: &str) -> bool {
        let user = self.users.get(user_id);
        user.is_some_and(|user| user.is_of(link))
    }

    /// Users with connections on a link.
    pub fn of_link(&self, link: LinkId) -> impl Iterator<Item = &str> {
        let users = self.users.iter();
        users.filter_map(move |(user_id, user)| user.is_of(link).then_some(&**user_id))
    }

    /// Users with connections on this server.
    pub fn here(&self) -> impl Iterator<Item = &str> {
        let users = self.users.iter();
        users.filter_map(|(user_id, user)| user.is_here().then_some(&**user_id))
    }

    /// The info of a user with connections on this server.
    pub fn info_here(&self, user_id: &str) -> Option<&str> {
        let user = self.users.get(user_id).filter(|user| user.is_here());
        user.map(|user| &*user.info)
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> + Clone {
        self.users.iter().map(|(user_id, user)| Member {
            user_id,
            user_info: &user.info,
        })
    }
}

/// Adds to a link's count in a short list.
fn add_count(counts: &mut Vec<(LinkId, u32)>, link: LinkId, count: u32) {
    match counts.iter_mut().find(|(holder, _)| *holder == link) {
        Some((_, held)) => *held += count,
        None => {
            counts.reserve_exact(1);
            counts.push((link, count));
        }
    }
}

/// Takes one from a link's count; whether there was one. A link at zero leaves the list.
fn take_count(counts: &mut Vec<(LinkId, u32)>, link: LinkId) -> bool {
    let Some(index) = counts.iter().position(|(holder, _)| *holder == link) else {
        return false;
    };
    counts[index].1 -= 1;
    if counts[index].1 == 0 {
        counts.swap_remove(index);
    }
    true
}
