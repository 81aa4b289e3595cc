//! Whether the `[limits]` table makes sense. Owns the ranges; what happens at a bound is for others
//! to know.

use crate::base::ids::ConnId;
use crate::base::limits::Limits;
use crate::config::check::Checker;
use crate::config::problem::Step::Key;

fn check_times(checker: &mut Checker<'_>, limits: &Limits) {
    let mut range = |name: &'static str, value: u64, low: u64, high: u64| {
        checker.range(&[Key("limits"), Key(name)], name, value, low, high);
    };
    // Pusher clients refuse to wait for less, and proxies cut what is silent for longer.
    range("activity_seconds", limits.activity_seconds, 10, 300);
    range("pong_seconds", limits.pong_seconds, 1, 300);
    range("connect_seconds", limits.connect_seconds, 1, 300);
    range("close_seconds", limits.close_seconds, 1, 300);
    range("http_head_seconds", limits.http_head_seconds, 1, 300);
    range("http_body_seconds", limits.http_body_seconds, 1, 3600);
    range("http_idle_seconds", limits.http_idle_seconds, 1, 86_400);
    range("http_session_seconds", limits.http_session_seconds, 1, 300);
    let heartbeat = limits.http_heartbeat_seconds;
    range("http_heartbeat_seconds", heartbeat, 1, 300);
    range("write_seconds", limits.write_seconds, 1, 3600);
    range("question_seconds", limits.question_seconds, 1, 60);
    range("settle_ms", limits.settle_ms, 1, 60_000);
}

pub(super) fn check(checker: &mut Checker<'_>, limits: &Limits) {
    check_times(checker, limits);
    let mut range = |name: &'static str, value: u64, low: u64, high: u64| {
        checker.range(&[Key("limits"), Key(name)], name, value, low, high);
    };
    // Connection ids hold 32 bits of slot; half of them are for clients that come by many requests.
    let slots = u64::from(ConnId::SOCKETLESS);
    range("connections", limits.connections as u64, 1, slots);
    range("http_sessions", limits.http_sessions as u64, 0, slots);
    range(
        "http_head_bytes",
        limits.http_head_bytes as u64,
        256,
        1 << 20,
    );
    range("message_bytes", limits.message_bytes as u64, 128, 1 << 30);
    range("outbox_bytes", limits.outbox_bytes as u64, 1024, 1 << 40);
    range(
        "channels_per_connection",
        limits.channels_per_connection as u64,
        1,
        u64::MAX,
    );
    range(
        "channel_name_bytes",
        limits.channel_name_bytes as u64,
        1,
        4096,
    );
    range("event_name_bytes", limits.event_name_bytes as u64, 1, 4096);
    range("user_id_bytes", limits.user_id_bytes as u64, 1, 4096);
    range("watchlist_users", limits.watchlist_users as u64, 0, 10_000);
    range("cache_seconds", limits.cache_seconds, 1, 86_400);
    range("recover_events", limits.recover_events as u64, 1, 1_000_000);
    range("event_channels", limits.event_channels as u64, 1, 10_000);
    range("batch_events", limits.batch_events as u64, 1, 10_000);
    check_fit(checker, limits);
}

/// What goes from one process to another has to fit into what carries it.
fn check_fit(checker: &mut Checker<'_>, limits: &Limits) {
    let mut range = |name: &'static str, value: u64, low: u64, high: u64| {
        checker.range(&[Key("limits"), Key(name)], name, value, low, high);
    };
    // Bus frames carry their length in 32 bits.
    range(
        "bus_message_bytes",
        limits.bus_message_bytes as u64,
        65_536,
        1 << 30,
    );
    // A request has to fit into one bus message, and a bus message into a link.
    let (bus, link) = (limits.bus_message_bytes as u64, limits.link_bytes as u64);
    range("http_body_bytes", limits.http_body_bytes as u64, 1024, bus);
    range(
        "event_data_bytes",
        limits.event_data_bytes as u64,
        1,
        bus / 4,
    );
    // What was missed goes beside a roster.
    let missed = limits.recover_bytes as u64;
    range("recover_bytes", missed, 1024, bus / 4);
    // So does the roster of a full presence channel; 16 bytes for the lengths of its fields.
    let member = limits.presence_member_bytes as u64 + limits.user_id_bytes as u64 + 16;
    let members = limits.presence_members as u64;
    range("presence_members", members, 1, bus / 2 / member);
    range("link_bytes", link, bus, u64::MAX);
}
