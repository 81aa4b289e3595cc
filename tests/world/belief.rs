//! What an endpoint believes that was told this and that: users and channels that come and go in
//! turns, and requests that come again to the byte.

use std::collections::{BTreeMap, BTreeSet};

use super::courier::Told;

/// Users by room, where the room itself is the user "".
pub type Belief = BTreeSet<(String, String)>;

/// What is left without the requests that came before, to the byte. After an answer that arrived,
/// none comes again unless the courier died before it had noted the answer.
pub fn without_repeats<'a>(
    requests: impl IntoIterator<Item = &'a Told>,
    mortal_courier: bool,
) -> Vec<&'a Told> {
    let mut answered: BTreeMap<&str, bool> = BTreeMap::new();
    let mut needless = 0;
    let mut first_times = Vec::new();
    for told in requests {
        match answered.get_mut(told.body.as_str()) {
            Some(before) => {
                needless += usize::from(*before);
                *before |= told.fine;
            }
            None => {
                answered.insert(&told.body, told.fine);
                first_times.push(told);
            }
        }
    }
    assert!(
        mortal_courier || needless == 0,
        "{needless} needless repeats"
    );
    first_times
}

/// Fails when something comes that is there, or goes that is not.
pub fn believe(requests: &[&Told]) -> Belief {
    let mut belief = Belief::new();
    for event in requests.iter().flat_map(|told| told.events()) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
        let whom = (text("channel"), text("user_id"));
        let room = (text("channel"), String::new());
        match event["name"].as_str().expect("every event has a name") {
            "channel_occupied" | "member_added" => {
                assert!(belief.insert(whom), "told twice in a row: {event}");
            }
            "channel_vacated" | "member_removed" => {
                assert!(belief.remove(&whom), "gone without having come: {event}");
            }
            other => panic!("an unexpected event {other}: {event}"),
        }
        let empty = !belief
            .iter()
            .any(|(at, user)| *at == room.0 && !user.is_empty());
        assert!(
            empty || belief.contains(&room),
            "somebody is in an empty channel: {event}"
        );
    }
    belief
}
