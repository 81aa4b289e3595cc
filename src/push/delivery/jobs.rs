//! What the store does for deliveries: claims those that are due, settles them. A delivery is one
//! notification for one device, or for one topic.

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryJob {}

#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryOutcome {}
