//! What the store does for notifications: accepts them, finds whom they are for, notes who was reached.

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub enum NotifyJob {}

#[derive(Clone, Debug, PartialEq)]
pub enum NotifyOutcome {}
