//! Plain numbers about one reactor: what it holds and what it did. They travel as a list in the
//! order declared here, add up over reactors, and carry the same names in `status` and the docs.
//!
//! A number is one row: its name and what it counts. Unless the row says otherwise it counts up and
//! is the metric `lineman_NAME_total` of the workers. `=>` gives it another name there, perhaps with
//! a label; a name without `_total` is that of a number that goes up and down. `by` says which
//! processes have it. `=> ""` keeps it out of the metrics.

use std::time::Duration;

use crate::base::close::Close;
use crate::base::histogram::Histogram;

/// Which processes have a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Workers,
    Switchboard,
    Courier,
    /// Workers and switchboard.
    Both,
    /// The master too.
    All,
}

/// What a number is.
pub struct CounterRow {
    /// In `status`.
    pub name: &'static str,
    /// The metric, without `lineman_`, with its label if it has one; empty when it is none.
    pub metric: &'static str,
    pub by: By,
    pub help: &'static str,
}

impl CounterRow {
    /// The metric without its label.
    pub fn family(&self) -> &'static str {
        self.metric
            .split_once('{')
            .map_or(self.metric, |(it, _)| it)
    }

    /// The label, as in `reason="slow"`; empty without one.
    pub fn label(&self) -> &'static str {
        let label = self.metric.split_once('{');
        label.map_or("", |(_, label)| label.trim_end_matches('}'))
    }

    /// Whether it only ever counts up; one that is no metric does.
    pub fn counts_up(&self) -> bool {
        self.metric.is_empty() || self.family().ends_with("_total")
    }
}

macro_rules! by {
    () => {
        By::Workers
    };
    ($by:ident) => {
        By::$by
    };
}

macro_rules! metric {
    ($name:ident) => {
        concat!(stringify!($name), "_total")
    };
    ($name:ident $metric:literal) => {
        $metric
    };
}

macro_rules! counters {
    (
        $($name:ident: $help:literal $(=> $metric:literal)? $(by $by:ident)?;)*
        [histograms]
        $($histogram:ident: $explained:literal $(by $whose:ident)?;)*
    ) => {
        /// One reactor's numbers, or the sum over several.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $name: u64,)*
            $(#[doc = $explained] pub $histogram: Histogram,)*
        }

        impl Counters {
            pub const ROWS: &'static [CounterRow] = &[$(CounterRow {
                name: stringify!($name),
                metric: metric!($name $($metric)?),
                by: by!($($by)?),
                help: $help,
            },)*];

            /// Their metrics end in `_seconds`.
            pub const HISTOGRAMS: &'static [CounterRow] = &[$(CounterRow {
                name: stringify!($histogram),
                metric: stringify!($histogram),
                by: by!($($whose)?),
                help: $explained,
            },)*];

            /// Those of `ROWS` in their order, then those of each histogram.
            pub fn values(&self) -> Vec<u64> {
                let mut values = vec![$(self.$name,)*];
                $(self.$histogram.write(&mut values);)*
                values
            }

            /// Reads what `values` wrote; missing ones stay zero, surplus ones are ignored.
            pub fn from_values(values: &[u64]) -> Counters {
                let mut values = values.iter().copied();
                Counters {
                    $($name: values.next().unwrap_or(0),)*
                    $($histogram: Histogram::read(&mut values),)*
                }
            }

            /// In the order of `HISTOGRAMS`.
            pub fn histograms(&self) -> Vec<&Histogram> {
                vec![$(&self.$histogram,)*]
            }

            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
                $(self.$histogram.add(&other.$histogram);)*
            }
        }
    };
}

counters! {
    connections: "Connections open now: those of clients and those that were dialled." => "connections";
    http_sessions: "Of these, clients that come by HTTP requests instead of a WebSocket." => "http_sessions";
    subscriptions: "Subscriptions held now." => "subscriptions";
    accepted: "Client connections accepted." => "connections_accepted_total";
    dialled: "Outgoing connections established." => "connections_dialled_total";
    dial_failed: "Outgoing connections that could not be established, or were given up before." => "dials_failed_total";
    closed: "Connections ended, accepted or dialled." => "";
    messages_in: "Messages received from clients: WebSocket messages, lines, frames." => "messages_received_total";
    messages_out: "Messages sent to clients." => "messages_sent_total";
    deliveries: "Messages sent to clients because of an event of the switchboard: one for each event and receiver.";
    bytes_in: "Bytes received from clients." => "received_bytes_total";
    bytes_out: "Bytes sent to clients." => "sent_bytes_total";
    outbox_bytes: "Bytes waiting for clients to take them." => "outbox_bytes";
    http_requests: "HTTP requests received.";
    events_published: "Events accepted for publishing.";
    events_refused: "Publishing calls over HTTP answered 503.";
    events_recovered: "Events of channels with history that were sent to clients coming back.";
    calls_limited: "Publishing calls answered 429 because of publishes_per_second of the app or the key.";
    calls_repeated: "Calls of the HTTP API answered 401 because of the replay_guard of their app.";
    calls_unauthorised: "Calls of the HTTP API answered 401.";
    calls_forbidden: "Calls of the HTTP API answered 403, because the key lacks the role.";
    signatures_refused: "Subscriptions and sign-ins refused because the signature was wrong.";
    client_events_limited: "Client events refused because of limits.client_events_per_second.";
    events_dropped: "Events of channels that were left out for clients reading too slowly, with the outbox_policy drop.";
    late_requests: "Connections ended because a request head or body did not arrive in time.";
    late_introductions: "Connections of text:// and frame:// ended because no pusher:connect came in time.";
    late_closes: "WebSockets cut because the Close frame was not answered in time.";
    throttled: "Times a client was not read from for a while because it passed limits.messages_per_second.";
    questions: "HTTP calls waiting for the switchboard." => "questions_waiting";
    closed_done: "Connections ended because their work was done." => r#"connections_closed_total{reason="done"}"#;
    closed_gone: "Connections that the peer ended, or the network." => r#"connections_closed_total{reason="peer_gone"}"#;
    closed_violation: "Connections ended because they broke the protocol." => r#"connections_closed_total{reason="violation"}"#;
    closed_slow: "Connections cut because more waited for them than limits.outbox_bytes." => r#"connections_closed_total{reason="too_slow"}"#;
    closed_unread: "Connections cut because they did not take an HTTP answer, or their last bytes, within limits.write_seconds." => r#"connections_closed_total{reason="unread"}"#;
    closed_late: "Connections ended because something was not sent in time." => r#"connections_closed_total{reason="too_late"}"#;
    closed_unheard: "Connections ended because they were silent for too long or did not answer a PING." => r#"connections_closed_total{reason="unheard"}"#;
    closed_leaving: "Connections ended because the server stopped or the worker was replaced." => r#"connections_closed_total{reason="going_away"}"#;
    closed_dismissed: "Connections that the operator closed." => r#"connections_closed_total{reason="dismissed"}"#;
    closed_chosen: "Connections that a service of the program closed." => r#"connections_closed_total{reason="chosen"}"#;
    closed_unknown: "Connections to an app, path or protocol version that does not exist." => r#"connections_closed_total{reason="unknown"}"#;
    closed_unauthorised: "Connections that were not allowed, or sent too many malformed messages." => r#"connections_closed_total{reason="unauthorised"}"#;
    closed_unsendable: "Connections ended because a message could not be sent on them." => r#"connections_closed_total{reason="unsendable"}"#;
    accept_pauses: "Times accepting paused for want of descriptors or at the connection limit.";
    listener_full: "Times a listener rested because it had as many connections as it may.";
    listener_paced: "Times a listener rested because of its accepts_per_second.";
    refused_connections: "Clients turned away because of limits.connections_per_address.";
    refused_rate: "Clients turned away because of limits.accepts_per_address_per_second.";
    tls_handshakes: "TLS handshakes completed.";
    tls_resumed: "Of these, handshakes that resumed an earlier session." => "tls_handshakes_resumed_total";
    tls_failed: "TLS handshakes that failed or took too long." => "tls_handshakes_failed_total";
    tls_late: "Of these, handshakes that took too long." => "tls_handshakes_late_total";
    proxy_untrusted: "Connections refused because they came from elsewhere than trusted_proxies." => "proxy_untrusted_total";
    proxy_failed: "Connections ended because no PROXY header came, or not in time." => "proxy_failed_total";
    deflated: "Messages that were compressed: a broadcast counts once for all who get the same." => "deflated_messages_total";
    deflated_in: "Bytes of these before." => "deflated_input_bytes_total";
    deflated_out: "Bytes of these after." => "deflated_output_bytes_total";
    channels: "Channels with subscribers, as the switchboard knows them." => "channels" by Switchboard;
    links: "Workers' links to the switchboard, open now; the switchboard counts them." => "links" by Switchboard;
    link_losses: "Such links that ended or broke." by Switchboard;
    history_events: "Events kept in the history of channels." => "history_events" by Switchboard;
    history_bytes: "Bytes these take." => "history_bytes" by Switchboard;
    reports_lost: "Events for webhooks that the switchboard did not keep because the courier was too far behind." by Switchboard;
    cluster_joined: "1 while this server is joined to its cluster, 0 while it is away." => "cluster_joined" by Switchboard;
    cluster_teller: "1 while this server tells the webhooks of its cluster." => "cluster_teller" by Switchboard;
    cluster_outages: "Times this server lost its cluster: Redis refused, was silent or had lost the lease." by Switchboard;
    cluster_events_out: "Events passed on to other servers of the cluster." => "cluster_events_sent_total" by Switchboard;
    cluster_events_in: "Events of other servers that subscribers here were given." => "cluster_events_received_total" by Switchboard;
    cluster_local_publishes: "Publishing calls answered without a word of Redis." by Switchboard;
    cluster_waiting_bytes: "Bytes waiting for Redis to take them." => "cluster_waiting_bytes" by Switchboard;
    webhooks_sent: "Webhooks delivered: requests answered with 2xx." by Courier;
    webhooks_failed: "Attempts to deliver a webhook that failed." by Courier;
    webhooks_given_up: "Webhooks given up because no attempt succeeded in time, or because their endpoint is not configured any more." by Courier;
    webhooks_dropped: "Events that were not taken for an endpoint for which too much waits." by Courier;
    webhooks_waiting: "Webhooks stored and not delivered yet." => "webhooks_waiting" by Courier;
    devices_ios: "Registrations of iOS devices that were taken, new or again." => "device_registrations_total{platform=\"ios\"}" by Courier;
    devices_android: "The same of Android devices." => "device_registrations_total{platform=\"android\"}" by Courier;
    devices_web: "The same of browsers." => "device_registrations_total{platform=\"web\"}" by Courier;
    devices_updated: "Updates of devices that were taken, topics included." by Courier;
    devices_removed: "Devices removed because somebody asked for it." by Courier;
    devices_replaced: "Devices retired because another one registered with their token." by Courier;
    devices_expired: "Devices retired because their token expired." by Courier;
    devices_forgotten: "Devices removed because they had been inactive for keep_inactive_days." by Courier;
    devices_refused: "Calls about devices that were answered with an error of the caller." by Courier;
    devices_limited: "Calls about devices answered 429 because of the app's rate or the user's." => "device_calls_limited_total" by Courier;
    devices_active: "Devices that notifications can reach, as last counted: at the start, then every minute, or less often if there are so many that counting takes long. Servers that share a database count the same ones." => "devices{state=\"active\"}" by Courier;
    devices_inactive: "Those that they cannot reach." => "devices{state=\"inactive\"}" by Courier;
    devices_expiring: "Of the active ones, those whose token ends within seven days, as last counted." => "devices_expiring" by Courier;
    devices_overdue: "Of the active ones, those whose token has ended, as last counted: upkeep has them before it." => "devices_overdue" by Courier;
    located_africa: "Africa." => "devices_located{region=\"africa\"}" by Courier;
    located_antarctica: "Antarctica." => "devices_located{region=\"antarctica\"}" by Courier;
    located_asia: "Asia." => "devices_located{region=\"asia\"}" by Courier;
    located_europe: "Europe." => "devices_located{region=\"europe\"}" by Courier;
    located_north_america: "North America." => "devices_located{region=\"north_america\"}" by Courier;
    located_oceania: "Oceania." => "devices_located{region=\"oceania\"}" by Courier;
    located_south_america: "South America." => "devices_located{region=\"south_america\"}" by Courier;
    located_elsewhere: "Oceans and small islands." => "devices_located{region=\"elsewhere\"}" by Courier;
    registered_africa: "Africa." => "device_registrations_located_total{region=\"africa\"}" by Courier;
    registered_antarctica: "Antarctica." => "device_registrations_located_total{region=\"antarctica\"}" by Courier;
    registered_asia: "Asia." => "device_registrations_located_total{region=\"asia\"}" by Courier;
    registered_europe: "Europe." => "device_registrations_located_total{region=\"europe\"}" by Courier;
    registered_north_america: "North America." => "device_registrations_located_total{region=\"north_america\"}" by Courier;
    registered_oceania: "Oceania." => "device_registrations_located_total{region=\"oceania\"}" by Courier;
    registered_south_america: "South America." => "device_registrations_located_total{region=\"south_america\"}" by Courier;
    registered_elsewhere: "Oceans and small islands." => "device_registrations_located_total{region=\"elsewhere\"}" by Courier;
    tokens_sealed: "Device tokens encrypted." by Courier;
    tokens_opened: "Device tokens decrypted." by Courier;
    tokens_unreadable: "Device tokens that did not decrypt: altered, or of a key that is lost." by Courier;
    notifications_accepted: "Notifications that were accepted." by Courier;
    notifications_limited: "Notifications answered 429 because of the app's rate or a user's." by Courier;
    notifications_acknowledged: "Acknowledgements of notifications by their users." by Courier;
    notifications_queued: "Deliveries of notifications that were queued for devices." by Courier;
    push_accepted: "Answers of push providers, and requests without one, by what follows for the notification." => "push_outcomes_total{outcome=\"accepted\"}" by Courier;
    push_token_dead: "The same: the token will never work again." => "push_outcomes_total{outcome=\"token_dead\"}" by Courier;
    push_token_suspect: "The same: the token is wrong, or we are." => "push_outcomes_total{outcome=\"token_suspect\"}" by Courier;
    push_bad_request: "The same: the notification is wrong." => "push_outcomes_total{outcome=\"bad_request\"}" by Courier;
    push_auth_broken: "The same: the credential is refused." => "push_outcomes_total{outcome=\"auth_broken\"}" by Courier;
    push_retry_after: "The same: again when the provider said." => "push_outcomes_total{outcome=\"retry_after\"}" by Courier;
    push_retry: "The same: again later." => "push_outcomes_total{outcome=\"retry\"}" by Courier;
    push_never_sent: "The same: the provider has not looked at it." => "push_outcomes_total{outcome=\"never_sent\"}" by Courier;
    push_unknown: "The same: sent, and nobody knows whether it arrived." => "push_outcomes_total{outcome=\"unknown\"}" by Courier;
    push_apns: "Requests sent to push providers, by provider." => "push_requests_total{provider=\"apns\"}" by Courier;
    push_fcm: "The same to FCM." => "push_requests_total{provider=\"fcm\"}" by Courier;
    push_webpush: "The same to Web Push services." => "push_requests_total{provider=\"webpush\"}" by Courier;
    push_azure: "The same to hubs of Azure." => "push_requests_total{provider=\"azure\"}" by Courier;
    push_uncertain: "Deliveries that a courier had in hand when it died, or for too long: they may have been sent, and are sent again." by Courier;
    push_unfit: "Deliveries that no request could be made of." by Courier;
    push_expired: "Deliveries that nobody wanted to see any more." by Courier;
    push_retired: "Devices retired because their provider called their token dead or wrong." by Courier;
    push_in_hand: "Deliveries claimed from the store and not settled yet." => "push_in_hand" by Courier;
    push_paused: "Providers that are left alone now because they fail, refuse a credential or asked for it; each origin of each credential is one." => "push_paused" by Courier;
    push_connections: "Connections to push providers." => "push_connections" by Courier;
    slow_turns: "Reactor turns longer than 20 ms." by Both;
    log_lines_dropped: "Lines of the log that nobody took." by All;
    [histograms]
    turn_seconds: "How long the turns of the reactors took, the waiting left out." by Both;
    fan_out_seconds: "How long deliveries took: from the start of the turn in which the event came from the switchboard to the end of the turn, mostly the same, in which the last socket that had room got its message. One observation for each delivery.";
    push_answer_seconds: "How long push providers took to answer." by Courier;
}

/// What the metrics with labels count, all rows of one together.
pub const LABELLED: &[(&str, &str)] = &[
    (
        "connections_closed_total",
        "Client connections whose end was decided, by reason.",
    ),
    ("devices", "Devices that are registered, by state."),
    (
        "devices_located",
        "Active devices whose place is known, as last counted, by part of the world, roughly.",
    ),
    (
        "device_registrations_located_total",
        "Registrations of devices whose place is known, by part of the world, roughly.",
    ),
    (
        "device_registrations_total",
        "Registrations of devices that were taken, new or again.",
    ),
    (
        "push_outcomes_total",
        "What came of requests to push providers, by outcome.",
    ),
    (
        "push_requests_total",
        "Requests sent to push providers, by provider.",
    ),
];

/// A turn longer than this is counted.
const SLOW_TURN: Duration = Duration::from_millis(20);

impl Counters {
    /// A turn of the reactor ended.
    pub fn turned(&mut self, took: Duration) {
        self.turn_seconds.observe(took, 1);
        if took > SLOW_TURN {
            self.slow_turns += 1;
        }
    }

    /// So many deliveries are with the kernel, as far as it had room.
    pub fn fanned_out(&mut self, took: Duration, deliveries: u64) {
        self.fan_out_seconds.observe(took, deliveries);
    }

    /// One connection ends for this reason.
    pub fn close(&mut self, close: &Close) {
        *match close {
            Close::Done => &mut self.closed_done,
            Close::PeerGone => &mut self.closed_gone,
            Close::Violation(_) => &mut self.closed_violation,
            Close::TooSlow => &mut self.closed_slow,
            Close::Unread => &mut self.closed_unread,
            Close::TooLate => &mut self.closed_late,
            Close::Unheard => &mut self.closed_unheard,
            Close::GoingAway | Close::Replaced => &mut self.closed_leaving,
            Close::Dismissed => &mut self.closed_dismissed,
            Close::Chosen(..) => &mut self.closed_chosen,
            Close::AppUnknown(_) | Close::PathUnknown | Close::VersionRefused(_) => {
                &mut self.closed_unknown
            }
            Close::Unauthorised(_) => &mut self.closed_unauthorised,
            Close::Unsendable => &mut self.closed_unsendable,
        } += 1;
    }

    /// What stays of a reactor that is no more: all that counts up.
    pub fn remains(&self) -> Counters {
        let mut values = self.values();
        for (row, value) in Counters::ROWS.iter().zip(&mut values) {
            if !row.counts_up() {
                *value = 0;
            }
        }
        Counters::from_values(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_trip_and_add_up() {
        let mut one = Counters {
            connections: 3,
            deliveries: 4,
            ..Counters::default()
        };
        one.turned(Duration::from_millis(21));
        one.fanned_out(Duration::from_millis(21), 4);
        let two = Counters::from_values(&one.values());
        assert_eq!(one, two);
        one.add(&two);
        assert_eq!((one.connections, one.slow_turns), (6, 2));
        assert_eq!(one.turn_seconds.count(), 2);
        assert_eq!(one.fan_out_seconds.count(), 8);
        let values = Counters::ROWS.len() + Counters::HISTOGRAMS.len() * Histogram::VALUES;
        assert_eq!(one.values().len(), values);
    }

    #[test]
    fn of_the_dead_stays_what_they_did_and_not_what_they_held() {
        let mut counters = Counters {
            connections: 3,
            accepted: 7,
            outbox_bytes: 1,
            ..Counters::default()
        };
        counters.turned(Duration::ZERO);
        let remains = counters.remains();
        assert_eq!((remains.connections, remains.outbox_bytes), (0, 0));
        assert_eq!((remains.accepted, remains.turn_seconds.count()), (7, 1));
    }

    #[test]
    fn a_row_says_what_metric_it_is() {
        let row = |name| Counters::ROWS.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("http_requests").metric, "http_requests_total");
        assert_eq!(row("closed_slow").family(), "connections_closed_total");
        assert_eq!(row("closed_slow").label(), "reason=\"too_slow\"");
        for row in Counters::ROWS.iter().filter(|row| !row.label().is_empty()) {
            let family = LABELLED.iter().find(|(name, _)| *name == row.family());
            assert!(family.is_some(), "{} is not explained", row.family());
        }
        assert!(row("closed_slow").counts_up() && !row("connections").counts_up());
        assert_eq!(
            (row("links").by, row("accepted").by),
            (By::Switchboard, By::Workers)
        );
    }
}
