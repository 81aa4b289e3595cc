//! The truth about channels over all workers, and in a cluster over all servers: which links have
//! subscribers, how many, and who is present. It knows neither connections nor protocols; a link is
//! a number.
//!
//! Invariant: a channel is listed exactly while it has subscriptions, in the table, among the sorted
//! names, and with each link that holds some of them; and it knows its place in each link's list.

mod afar;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use foldhash::quality::FixedState;

use crate::base::dice::Dice;
use crate::base::names::{ChannelKey, user_of};
use crate::realtime::by_name::ByName;
use crate::realtime::members::Members;
pub use crate::realtime::registry::afar::Moved;
use crate::wire::bus::{ChannelCounts, Holding, Member};

/// A worker's reactor: its place among all reactors of the server, and which of the processes
/// that hold that place one after the other. While one is replaced, both are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub slot: u32,
    pub life: u32,
}

impl LinkId {
    pub const fn new(slot: u32, life: u32) -> LinkId {
        LinkId { slot, life }
    }
}

/// `SLOT.LIFE`, as the command line of a switchboard has it.
impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.life)
    }
}

impl FromStr for LinkId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<LinkId, Self::Err> {
        let (slot, life) = text.split_once('.').ok_or("no SLOT.LIFE")?;
        match (slot.parse(), life.parse()) {
            (Ok(slot), Ok(life)) => Ok(LinkId { slot, life }),
            _ => Err("SLOT and LIFE are numbers"),
        }
    }
}

#[derive(Debug, Default)]
struct Channel {
    /// Each link once.
    interest: Vec<Interest>,
    members: Option<Box<Members>>,
}

/// What one link has of a channel.
#[derive(Debug)]
struct Interest {
    link: LinkId,
    /// At least one.
    subscriptions: u32,
    /// Where the channel stands in the link's list: leaving must not search it.
    place: u32,
}

/// What a subscription changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The link had no subscription of the channel before.
    pub first_of_link: bool,
    /// The user was not present before.
    pub first_of_user: bool,
}

/// A presence channel that has `members_max` users already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFull;

/// What ended with a link.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Presence users for whom it held the last connection.
    pub users: Vec<(ChannelKey, String)>,
    /// The channels it had subscribers of.
    pub channels: BTreeSet<ChannelKey>,
}

/// All channels that have subscribers somewhere.
pub struct Registry {
    channels: ByName<Channel>,
    /// So that an app's channels are found without looking at those of others.
    names: BTreeSet<ChannelKey>,
    /// Likewise a link's; their numbers, in no order.
    held: HashMap<LinkId, Vec<u32>, FixedState>,
    members_max: usize,
}

impl Registry {
    pub fn new(members_max: usize, dice: &mut Dice) -> Registry {
        Registry {
            channels: ByName::new(dice),
            names: BTreeSet::new(),
            held: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            members_max,
        }
    }

    /// Counts one subscription.
    pub fn subscribe(
        &mut self,
        link: LinkId,
        key: &str,
        member: Option<Member<'_>>,
    ) -> Result<Joined, ChannelFull> {
        if let (Some(member), Some(members)) = (member, self.members(key))
            && members.len() >= self.members_max
            && !members.contains(member.user_id)
        {
            return Err(ChannelFull);
        }
        let Some((channel, first_of_link)) = self.count(link, key, 1) else {
            return Err(ChannelFull);
        };
        let first_of_user = member.is_some_and(|member| {
            let members = channel.members.get_or_insert_default();
            members.add(link, member, 1)
        });
        Ok(Joined {
            first_of_link,
            first_of_user,
        })
    }

    /// Counts one subscription less; whether the user left with it.
    pub fn unsubscribe(&mut self, link: LinkId, key: &str, user_id: Option<&str>) -> bool {
        let Some(number) = self.channels.find(key) else {
            return false;
        };
        let channel = &mut self.channels[number];
        let Some(interest) = channel.of_link(link) else {
            return false;
        };
        interest.subscriptions -= 1;
        let link_left = interest.subscriptions == 0;
        let left = match (user_id, &mut channel.members) {
            (Some(user_id), Some(members)) => members.remove(link, user_id),
            _ => false,
        };
        if link_left {
            self.leave(link, number);
        }
        left
    }

    /// Takes up what a returning worker holds; the users who were not present before. Limits do
    /// not apply: these members were let in already.
    pub fn announce<'a>(&mut self, link: LinkId, holding: &Holding<'a>) -> Vec<Member<'a>> {
        if holding.subscriptions == 0 {
            return Vec::new();
        }
        let Some((channel, _)) = self.count(link, holding.channel, holding.subscriptions) else {
            return Vec::new();
        };
        let mut added = Vec::new();
        for (member, count) in &holding.members {
            let members = channel.members.get_or_insert_default();
            if *count > 0 && members.add(link, *member, *count) {
                added.push(*member);
            }
        }
        added
    }

    /// Forgets a worker.
    pub fn drop_link(&mut self, link: LinkId) -> Dropped {
        let channels: BTreeSet<ChannelKey> = self.held(link).cloned().collect();
        self.held.remove(&link);
        let mut users = Vec::new();
        for key in &channels {
            let Some(number) = self.channels.find(key.as_str()) else {
                continue;
            };
            let channel = &mut self.channels[number];
            channel.interest.retain(|interest| interest.link != link);
            if let Some(members) = &mut channel.members {
                let left = members.drop_link(link);
                users.extend(left.into_iter().map(|user_id| (key.clone(), user_id)));
            }
            self.forget_if_empty(number);
        }
        Dropped { users, channels }
    }

    /// The links with subscribers.
    pub fn interested(&self, key: &str) -> impl Iterator<Item = LinkId> {
        let interest = self.channels.get(key).map(|channel| &channel.interest);
        interest.into_iter().flatten().map(|interest| interest.link)
    }

    pub fn counts(&self, key: &str) -> ChannelCounts {
        self.channels
            .get(key)
            .map_or_else(ChannelCounts::default, Channel::counts)
    }

    pub fn is_occupied(&self, key: &str) -> bool {
        self.channels.find(key).is_some()
    }

    pub fn members(&self, key: &str) -> Option<&Members> {
        self.channels.get(key)?.members.as_deref()
    }

    /// Names and counts of an app's channels that start with `prefix`, sorted by name. What leads
    /// to users is no channel to the outside.
    pub fn list(&self, app_id: &str, prefix: &str) -> Vec<(&str, ChannelCounts)> {
        let start = format!("{app_id}/{prefix}");
        let from = (Bound::Included(start.as_str()), Bound::Unbounded);
        self.names
            .range::<str, _>(from)
            .take_while(|key| key.as_str().starts_with(&start))
            .filter(|key| user_of(key.channel()).is_none())
            .map(|key| (key.channel(), self.counts(key.as_str())))
            .collect()
    }

    /// Channels a link has subscribers of, sorted.
    pub fn held(&self, link: LinkId) -> impl Iterator<Item = &ChannelKey> {
        let numbers = self.held.get(&link).into_iter().flatten();
        let mut held: Vec<&ChannelKey> = numbers.map(|it| self.channels.key(*it)).collect();
        held.sort_unstable();
        held.into_iter()
    }

    /// The presence channels among them.
    pub fn presence_of(&self, link: LinkId) -> impl Iterator<Item = (&ChannelKey, &Members)> {
        self.held(link)
            .filter_map(|key| Some((key, self.members(key.as_str())?)))
    }

    /// Every channel, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&ChannelKey, Option<&Members>)> {
        let channels = self.channels.iter();
        channels.map(|(_, key, channel)| (key, channel.members.as_deref()))
    }

    pub fn len(&self) -> usize {
        self.channels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Counts a link's subscriptions; whether these are its first of the channel. `None` for a key
    /// that names no app or no channel.
    fn count(&mut self, link: LinkId, key: &str, count: u32) -> Option<(&mut Channel, bool)> {
        let number = match self.channels.find(key) {
            Some(number) => number,
            None => {
                let key = ChannelKey::parse(key)?;
                self.names.insert(key.clone());
                self.channels.insert(key, Channel::default())
            }
        };
        let channel = &mut self.channels[number];
        if let Some(interest) = channel.of_link(link) {
            interest.subscriptions += count;
            return Some((channel, false));
        }
        let held = self.held.entry(link).or_default();
        // Most channels are held by few links: no room is kept for more.
        channel.interest.reserve_exact(1);
        channel.interest.push(Interest {
            link,
            subscriptions: count,
            place: held.len() as u32,
        });
        held.push(number);
        Some((channel, true))
    }

    /// The link has nothing of the channel any more.
    fn leave(&mut self, link: LinkId, number: u32) {
        let interest = &mut self.channels[number].interest;
        let Some(index) = interest.iter().position(|it| it.link == link) else {
            return;
        };
        let place = interest.swap_remove(index).place;
        if let Some(held) = self.held.get_mut(&link) {
            held.swap_remove(place as usize);
            if held.is_empty() {
                self.held.remove(&link);
            } else if let Some(moved) = held.get(place as usize) {
                let moved = self.channels[*moved].of_link(link);
                moved.expect("what a link holds has its interest").place = place;
            }
        }
        self.forget_if_empty(number);
    }

    fn forget_if_empty(&mut self, number: u32) {
        if self.channels[number].interest.is_empty() {
            let (key, _) = self.channels.remove(number);
            self.names.remove(&key);
        }
    }
}

impl Channel {
    fn of_link(&mut self, link: LinkId) -> Option<&mut Interest> {
        self.interest.iter_mut().find(|it| it.link == link)
    }

    fn counts(&self) -> ChannelCounts {
        ChannelCounts {
            users: self
                .members
                .as_ref()
                .map_or(0, |members| members.len() as u64),
            subscriptions: self
                .interest
                .iter()
                .map(|interest| u64::from(interest.subscriptions))
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId::new(0, 0);
    const B: LinkId = LinkId::new(1, 0);
    const KEY: &str = "demo/presence-room";

    fn registry() -> Registry {
        Registry::new(2, &mut Dice::new([0; 16]))
    }

    fn member(user_id: &str) -> Option<Member<'_>> {
        Some(Member {
            user_id,
            user_info: "null",
        })
    }

    #[test]
    fn a_user_with_two_tabs_on_two_workers_joins_once_and_leaves_once() {
        let mut registry = registry();
        let first = registry.subscribe(A, KEY, member("u"));
        assert_eq!(
            first,
            Ok(Joined {
                first_of_link: true,
                first_of_user: true
            })
        );
        let second = registry.subscribe(B, KEY, member("u"));
        assert_eq!(
            second,
            Ok(Joined {
                first_of_link: true,
                first_of_user: false
            })
        );
        assert_eq!(
            registry.counts(KEY),
            ChannelCounts {
                users: 1,
                subscriptions: 2
            }
        );
        assert!(!registry.unsubscribe(A, KEY, Some("u")));
        assert!(registry.unsubscribe(B, KEY, Some("u")));
        assert!(registry.is_empty());
    }

    #[test]
    fn a_lost_link_takes_with_it_only_who_was_nowhere_else() {
        let mut registry = registry();
        registry.subscribe(A, KEY, member("both")).expect("room");
        registry.subscribe(B, KEY, member("both")).expect("room");
        registry.subscribe(A, KEY, member("only-a")).expect("room");
        registry.subscribe(A, "demo/public", None).expect("room");
        let gone = registry.drop_link(A);
        assert_eq!(
            gone.users,
            [(
                ChannelKey::new("demo", "presence-room"),
                "only-a".to_owned()
            )]
        );
        assert_eq!(gone.channels.len(), 2);
        assert_eq!(registry.list("demo", "").len(), registry.len());
        assert_eq!(registry.len(), 1);
        assert_eq!(registry.interested(KEY).collect::<Vec<_>>(), [B]);
    }

    #[test]
    fn a_full_channel_refuses_newcomers_but_not_a_second_tab() {
        let mut registry = registry();
        registry.subscribe(A, KEY, member("1")).expect("room");
        registry.subscribe(A, KEY, member("2")).expect("room");
        assert_eq!(registry.subscribe(A, KEY, member("3")), Err(ChannelFull));
        assert!(registry.subscribe(B, KEY, member("2")).is_ok());
        assert_eq!(registry.counts(KEY).subscriptions, 3);
    }

    #[test]
    fn an_announcement_restores_what_a_worker_held() {
        let mut registry = registry();
        registry.subscribe(B, KEY, member("old")).expect("room");
        let members = vec![
            (
                Member {
                    user_id: "old",
                    user_info: "null",
                },
                1,
            ),
            (
                Member {
                    user_id: "new",
                    user_info: "1",
                },
                2,
            ),
        ];
        let holding = Holding {
            channel: KEY,
            subscriptions: 3,
            members,
            position: None,
        };
        let added = registry.announce(A, &holding);
        assert_eq!(
            added,
            [Member {
                user_id: "new",
                user_info: "1"
            }]
        );
        assert_eq!(
            registry.counts(KEY),
            ChannelCounts {
                users: 2,
                subscriptions: 4
            }
        );
        assert!(!registry.unsubscribe(A, KEY, Some("new")));
        assert!(registry.unsubscribe(A, KEY, Some("new")));
    }

    #[test]
    fn listing_keeps_to_the_app_and_the_prefix() {
        let mut registry = registry();
        for key in [
            "one/b",
            "one/a",
            "one/presence-x",
            "one/#server-to-user-1",
            "two/a",
        ] {
            registry.subscribe(A, key, None).expect("room");
        }
        let names = |prefix| {
            let listed = registry.list("one", prefix);
            listed
                .iter()
                .map(|(name, _)| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["a", "b", "presence-x"]);
        assert_eq!(names("presence-"), ["presence-x"]);
    }

    #[test]
    fn a_link_is_written_as_slot_and_life_and_nothing_else_is_read_as_one() {
        let link = LinkId::new(3, 17);
        assert_eq!(link.to_string().parse(), Ok(link));
        for text in ["", "3", "3.", ".17", "3.17.1", "-3.17", "3.4294967296"] {
            assert!(text.parse::<LinkId>().is_err(), "{text}");
        }
    }

    #[test]
    fn leaving_what_was_never_joined_changes_nothing() {
        let mut registry = registry();
        registry.subscribe(A, KEY, member("u")).expect("room");
        assert!(!registry.unsubscribe(B, KEY, Some("u")));
        assert!(!registry.unsubscribe(A, "demo/other", None));
        assert_eq!(
            registry.counts(KEY),
            ChannelCounts {
                users: 1,
                subscriptions: 1
            }
        );
    }
}
