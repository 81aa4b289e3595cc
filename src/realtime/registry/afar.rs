//! What the registry knows of other servers, and what it can tell them of this one. Another server is
//! a link with a slot that no reactor has; what it holds is set, not counted, since it says what is
//! so and not what changed.

use crate::realtime::registry::{Channel, LinkId, Registry};
use crate::wire::bus::Member;

/// Slots from here on are those of other servers; there are never so many reactors.
const AFAR: u32 = 1 << 31;

impl LinkId {
    /// Another server, by a number of its own.
    pub const fn afar(number: u32) -> LinkId {
        LinkId::new(AFAR | number, 0)
    }

    pub const fn is_afar(self) -> bool {
        self.slot >= AFAR
    }
}

/// What became of users over all links.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved<'a> {
    pub came: Vec<Member<'a>>,
    pub left: Vec<String>,
}

impl Registry {
    /// A server holds so many subscriptions of a channel from now on; of its users, those named came
    /// with their info, or left.
    pub fn set_afar<'a>(
        &mut self,
        link: LinkId,
        key: &str,
        subscriptions: u32,
        users: &[(&'a str, Option<&'a str>)],
    ) -> Moved<'a> {
        let mut moved = Moved::default();
        if subscriptions == 0 {
            moved.left = self.leave_afar(link, key);
            return moved;
        }
        let Some((channel, _)) = self.count(link, key, 0) else {
            return moved;
        };
        if let Some(interest) = channel.of_link(link) {
            interest.subscriptions = subscriptions;
        }
        for (user_id, user_info) in users.iter().copied() {
            let members = channel.members.get_or_insert_default();
            match user_info {
                None if members.withdraw(link, user_id) => moved.left.push(user_id.to_string()),
                Some(user_info) if !members.is_of(link, user_id) => {
                    let member = Member { user_id, user_info };
                    if members.add(link, member, 1) {
                        moved.came.push(member);
                    }
                }
                _ => {}
            }
        }
        moved
    }

    /// A server holds nothing of the channel any more; the users who were nowhere else.
    fn leave_afar(&mut self, link: LinkId, key: &str) -> Vec<String> {
        let Some(number) = self.channels.find(key) else {
            return Vec::new();
        };
        let members = &mut self.channels[number].members;
        let left = members.as_mut().map(|it| it.drop_link(link));
        self.leave(link, number);
        left.unwrap_or_default()
    }

    /// Forgets what other servers hold in a channel that nobody here asks about.
    pub fn forget_afar(&mut self, key: &str) {
        for link in self.afar(key) {
            self.leave_afar(link, key);
        }
    }

    /// Other servers with subscriptions of a channel.
    pub fn afar(&self, key: &str) -> Vec<LinkId> {
        self.interested(key).filter(|link| link.is_afar()).collect()
    }

    /// Users of a presence channel who are on that server.
    pub fn users_of(&self, link: LinkId, key: &str) -> Vec<&str> {
        let members = self.members(key).into_iter();
        members.flat_map(|members| members.of_link(link)).collect()
    }

    /// Whether a link holds anything.
    pub fn holds_any(&self, link: LinkId) -> bool {
        self.held.get(&link).is_some_and(|held| !held.is_empty())
    }

    /// Subscriptions on this server.
    pub fn subscriptions_here(&self, key: &str) -> u32 {
        let channel = self.channels.get(key).into_iter();
        let interest = channel.flat_map(|channel| &channel.interest);
        interest
            .filter(|interest| !interest.link.is_afar())
            .map(|interest| interest.subscriptions)
            .sum()
    }

    /// The info of a user who is on this server.
    pub fn info_here(&self, key: &str, user_id: &str) -> Option<&str> {
        self.members(key)?.info_here(user_id)
    }

    /// All users of a channel who are on this server.
    pub fn users_here(&self, key: &str) -> Vec<&str> {
        let members = self.members(key).into_iter();
        members.flat_map(|members| members.here()).collect()
    }

    /// All channels with subscriptions on this server, in no order.
    pub fn channels_here(&self) -> impl Iterator<Item = &crate::base::names::ChannelKey> {
        let here = |channel: &Channel| channel.interest.iter().any(|it| !it.link.is_afar());
        let channels = self.channels.iter();
        channels
            .filter(move |(_, _, channel)| here(channel))
            .map(|(_, key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dice::Dice;

    const HERE: LinkId = LinkId::new(0, 0);
    const A: LinkId = LinkId::afar(0);
    const B: LinkId = LinkId::afar(1);
    const KEY: &str = "demo/presence-room";

    fn registry() -> Registry {
        Registry::new(10, &mut Dice::new([0; 16]))
    }

    #[test]
    fn a_user_on_two_servers_comes_once_and_leaves_once() {
        let mut registry = registry();
        let member = Member {
            user_id: "u",
            user_info: "1",
        };
        registry.subscribe(HERE, KEY, Some(member)).expect("room");
        let moved = registry.set_afar(A, KEY, 2, &[("u", Some("2")), ("v", Some("3"))]);
        assert_eq!(moved.came.len(), 1, "{moved:?}");
        assert_eq!(registry.counts(KEY).subscriptions, 3);
        assert_eq!(
            (registry.subscriptions_here(KEY), registry.users_here(KEY)),
            (1, vec!["u"])
        );
        let again = registry.set_afar(A, KEY, 2, &[("v", Some("3"))]);
        assert_eq!(again, Moved::default(), "what is said twice is no news");
        assert!(!registry.unsubscribe(HERE, KEY, Some("u")));
        assert_eq!(registry.info_here(KEY, "u"), None);
        let moved = registry.set_afar(A, KEY, 1, &[("u", None)]);
        assert_eq!(moved.left, ["u"]);
        assert_eq!(registry.set_afar(A, KEY, 0, &[]).left, ["v"]);
        assert!(registry.is_empty() && !registry.holds_any(A));
    }

    #[test]
    fn what_nobody_asks_about_is_forgotten_with_its_servers() {
        let mut registry = registry();
        registry.set_afar(A, KEY, 1, &[("u", Some("1"))]);
        registry.set_afar(B, KEY, 1, &[]);
        registry.set_afar(B, "demo/other", 1, &[]);
        assert_eq!(
            (registry.afar(KEY), registry.users_of(A, KEY)),
            (vec![A, B], vec!["u"])
        );
        assert_eq!(registry.channels_here().count(), 0);
        registry.forget_afar(KEY);
        assert_eq!(registry.len(), 1);
        assert!(!registry.holds_any(A) && registry.holds_any(B));
        assert_eq!(registry.drop_link(B).channels.len(), 1);
        assert!(registry.is_empty());
    }
}
