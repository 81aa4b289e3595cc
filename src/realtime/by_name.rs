//! Channels by their names: one `T` for each, with a number by which others refer to it for as long
//! as it is here. Does not know what a `T` is about.
//!
//! The table by which a name is found holds numbers only; the name stands with its `T` and is
//! compared there. In a map that holds names and values, a million channels would cost 60 MB more,
//! because it keeps up to half of its places free.
//!
//! Invariant: every entry is in the table once, under the hash of its name.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use slab::Slab;

use crate::base::dice::Dice;
use crate::base::names::ChannelKey;

/// See the file's head.
pub struct ByName<T> {
    entries: Slab<(ChannelKey, T)>,
    numbers: HashTable<u32>,
    hasher: FixedState,
}

impl<T> ByName<T> {
    pub fn new(dice: &mut Dice) -> ByName<T> {
        ByName {
            entries: Slab::new(),
            numbers: HashTable::new(),
            hasher: FixedState::with_seed(dice.next_u64()),
        }
    }

    /// Adds what is not here yet; its number.
    pub fn insert(&mut self, key: ChannelKey, value: T) -> u32 {
        debug_assert!(self.find(key.as_str()).is_none());
        let hash = self.hasher.hash_one(key.as_str());
        let number = u32::try_from(self.entries.insert((key, value)));
        let number = number.expect("memory ends before the numbers do");
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |number: &u32| hasher.hash_one(entries[*number as usize].0.as_str());
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }

    /// Takes out what is here; its number may be given to another.
    pub fn remove(&mut self, number: u32) -> (ChannelKey, T) {
        let (key, value) = self.entries.remove(number as usize);
        let hash = self.hasher.hash_one(key.as_str());
        if let Ok(found) = self.numbers.find_entry(hash, |it| *it == number) {
            found.remove();
        }
        (key, value)
    }

    pub fn find(&self, key: &str) -> Option<u32> {
        let is_it = |number: &u32| self.entries[*number as usize].0.as_str() == key;
        let found = self.numbers.find(self.hasher.hash_one(key), is_it);
        found.copied()
    }

    pub fn get(&self, key: &str) -> Option<&T> {
        self.find(key).map(|number| &self[number])
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.find(key).map(|number| &mut self[number])
    }

    /// The name of what is here.
    pub fn key(&self, number: u32) -> &ChannelKey {
        &self.entries[number as usize].0
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &ChannelKey, &T)> {
        let entries = self.entries.iter();
        entries.map(|(number, (key, value))| (number as u32, key, value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// By the number of what is here.
impl<T> Index<u32> for ByName<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.entries[number as usize].1
    }
}

impl<T> IndexMut<u32> for ByName<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_while_others_come_and_go() {
        let mut table: ByName<u32> = ByName::new(&mut Dice::new([0; 16]));
        let key = |value: u32| ChannelKey::new("demo", &value.to_string());
        for value in 0..1000 {
            table.insert(key(value), value);
        }
        for value in (0..1000).step_by(2) {
            let number = table.find(key(value).as_str()).expect("it is here");
            assert_eq!(table.remove(number), (key(value), value));
        }
        let reused = table.insert(key(2000), 2000);
        assert!(reused < 1000, "numbers are used again");
        assert_eq!((table.len(), table.iter().count()), (501, 501));
        for value in 0..1000 {
            let expected = (value % 2 == 1).then_some(value);
            assert_eq!(table.get(key(value).as_str()).copied(), expected);
        }
        *table.get_mut("demo/2000").expect("it is here") = 7;
        assert_eq!((table[reused], table.key(reused)), (7, &key(2000)));
    }
}
