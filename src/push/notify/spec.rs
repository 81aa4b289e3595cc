//! A notification as it was asked for: what is said, to whom, in which way. Kept as JSON beside its
//! deliveries; each device's note is made from it when it is sent.

use serde::{Deserialize, Serialize};

use crate::push::devices::device::Device;
use crate::push::providers::note::Note;

/// See the file's head. Further fields come with what can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// Its `id` is set for each delivery.
    pub note: Note,
    /// What is done when nobody can say whether a provider has it.
    pub on_unknown: OnUnknown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// Sent again: it may come twice.
    #[default]
    Retry,
    /// Failed: it may not come at all.
    Fail,
}

impl Spec {
    /// What is sent to this device, or to a topic. `id` is a lower-case UUID, the same in every
    /// attempt.
    pub fn note_for(&self, device: Option<&Device>, id: String) -> Note {
        let _ = device;
        Note {
            id,
            ..self.note.clone()
        }
    }
}
