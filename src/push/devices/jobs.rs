//! What the store does for devices: finds, lists, registers and removes them.

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceJob {}

#[derive(Clone, Debug, PartialEq)]
pub enum DeviceOutcome {}
