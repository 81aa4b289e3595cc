//! Plain numbers about one reactor: what it holds and what it did. They travel as a list in the
//! order declared here, add up over reactors, and carry the same names in `status` and the docs.

macro_rules! counters {
    ($($name:ident: $help:literal;)*) => {
        /// One reactor's numbers, or the sum over several.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Counters {
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// In the order of `NAMES`.
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name,)*]
            }

            /// Reads what `values` wrote; missing ones stay zero, surplus ones are ignored.
            pub fn from_values(values: &[u64]) -> Counters {
                let mut values = values.iter().copied();
                Counters { $($name: values.next().unwrap_or(0),)* }
            }

            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    connections: "Client connections open now.";
    subscriptions: "Subscriptions held now.";
    accepted: "Client connections accepted.";
    closed: "Client connections ended.";
    messages_in: "Messages received from clients: WebSocket messages, lines, frames.";
    messages_out: "Messages sent to clients.";
    bytes_in: "Bytes received from clients.";
    bytes_out: "Bytes sent to clients.";
    http_requests: "HTTP requests received.";
    events_published: "Events accepted for publishing.";
    events_refused: "Publishing calls over HTTP answered 503.";
    events_dropped: "Events of channels that were left out for clients reading too slowly, with the outbox_policy drop.";
    closed_slow: "Connections cut because more waited for them than limits.outbox_bytes.";
    closed_unread: "Connections cut because they did not take an HTTP answer, or their last bytes, within limits.write_seconds.";
    closed_violation: "Connections ended because they broke the protocol.";
    closed_unheard: "Connections ended because they were silent for too long or did not answer a PING.";
    late_requests: "Connections ended because a request head or body did not arrive in time.";
    late_introductions: "Connections of text:// and frame:// ended because no pusher:connect came in time.";
    late_closes: "WebSockets cut because the Close frame was not answered in time.";
    throttled: "Times a client was not read from for a while because it passed limits.messages_per_second.";
    accept_pauses: "Times accepting paused for want of descriptors or at the connection limit.";
    listener_full: "Times a listener rested because it had as many connections as it may.";
    listener_paced: "Times a listener rested because of its accept_rate.";
    refused_connections: "Clients turned away because of limits.connections_per_address.";
    refused_rate: "Clients turned away because of limits.accepts_per_address_per_second.";
    tls_handshakes: "TLS handshakes completed.";
    tls_resumed: "Of these, handshakes that resumed an earlier session.";
    tls_failed: "TLS handshakes that failed or took too long.";
    tls_late: "Of these, handshakes that took too long.";
    proxy_untrusted: "Connections refused because they came from elsewhere than trusted_proxies.";
    proxy_failed: "Connections ended because no PROXY header came, or not in time.";
    links: "Workers' links to the switchboard, open now; the switchboard counts them.";
    link_losses: "Such links that ended or broke.";
    slow_turns: "Reactor turns longer than 20 ms.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_trip_and_add_up() {
        let mut one = Counters {
            connections: 3,
            slow_turns: 1,
            ..Counters::default()
        };
        let two = Counters::from_values(&one.values());
        assert_eq!(one, two);
        one.add(&two);
        assert_eq!((one.connections, one.slow_turns), (6, 2));
        assert_eq!(Counters::NAMES.len(), one.values().len());
    }
}
