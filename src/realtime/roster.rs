//! The users of one presence channel as a worker was last told: what a newcomer is shown, and
//! what a returning switchboard's truth is compared with.

use std::collections::BTreeMap;

use crate::wire::bus::Member;

/// User id to user info, in the order of ids.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<Box<str>, Box<str>>,
}

/// How one roster differs from the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RosterChange {
    /// User id and user info.
    pub added: Vec<(String, String)>,
    pub removed: Vec<String>,
}

impl Roster {
    pub fn new(members: &[Member<'_>]) -> Roster {
        let mut roster = Roster::default();
        for member in members {
            roster.add(*member);
        }
        roster
    }

    /// Whether the user was not there before.
    pub fn add(&mut self, member: Member<'_>) -> bool {
        if self.members.contains_key(member.user_id) {
            return false;
        }
        self.members
            .insert(member.user_id.into(), member.user_info.into());
        true
    }

    /// Whether the user was there.
    pub fn remove(&mut self, user_id: &str) -> bool {
        self.members.remove(user_id).is_some()
    }

    /// Takes over the truth and says what changed.
    pub fn replace(&mut self, members: &[Member<'_>]) -> RosterChange {
        let next = Roster::new(members);
        let added = next
            .iter()
            .filter(|member| !self.members.contains_key(member.user_id))
            .map(|member| (member.user_id.to_owned(), member.user_info.to_owned()))
            .collect();
        let removed = self
            .members
            .keys()
            .filter(|user_id| !next.members.contains_key(&***user_id))
            .map(|user_id| user_id.to_string())
            .collect();
        *self = next;
        RosterChange { added, removed }
    }

    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> + Clone {
        self.members
            .iter()
            .map(|(user_id, user_info)| Member { user_id, user_info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(user_id: &str) -> Member<'_> {
        Member {
            user_id,
            user_info: "null",
        }
    }

    #[test]
    fn replacing_tells_who_came_and_who_went() {
        let mut roster = Roster::new(&[member("a"), member("b")]);
        let change = roster.replace(&[member("b"), member("c")]);
        let expected = RosterChange {
            added: vec![("c".into(), "null".into())],
            removed: vec!["a".into()],
        };
        assert_eq!(change, expected);
        assert_eq!(
            roster.iter().map(|m| m.user_id).collect::<Vec<_>>(),
            ["b", "c"]
        );
    }

    #[test]
    fn a_user_counts_once_and_keeps_the_first_info() {
        let mut roster = Roster::new(&[member("a")]);
        assert!(!roster.add(Member {
            user_id: "a",
            user_info: "1"
        }));
        assert_eq!(roster.iter().next(), Some(member("a")));
        assert!(roster.remove("a"));
        assert!(!roster.remove("a"));
    }
}
