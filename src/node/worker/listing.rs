//! What a worker tells of its connections, and closing one by its id. Does not know who asks.
//! Invariant: an answer fits the bounds of a message, and says how many fitted the question.

use std::net::SocketAddr;

use crate::app::handler::Handler;
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::worker::seats::Seat;
use crate::session::Session;
use crate::wire::control::{COLUMNS, ConnectionRow, DIALLED, Report, Wanted};
use crate::wire::protocol::Protocol;

/// All rows of one answer. A row is some hundred bytes, so a thousand of them always fit.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A row without its words, at most.
const ROW_BYTES: usize = 80;

impl Worker {
    pub(super) fn list(&self, wanted: &Wanted, now: Now) -> Report {
        let ids = self.seats.ids().into_iter();
        let rows = ids.filter_map(|conn| self.row(conn, self.seats.get(conn)?, now));
        choose(rows, wanted)
    }

    /// Whether it is there. Our own links are not to be closed.
    pub(super) fn close_one(&mut self, conn: ConnId, now: Now) -> bool {
        let seat = self.seats.get(conn).filter(|seat| !seat.ended);
        let client =
            seat.is_some_and(|seat| !matches!(seat.session, Session::Uplink | Session::Master));
        if client {
            self.shut(conn, Close::Dismissed, now);
            self.carry_out(now);
        }
        client
    }

    fn framing_word(&self, seat: &Seat) -> &'static str {
        let listener = self.listeners.get(usize::from(seat.facts.listener));
        match listener.map(|listener| listener.protocol) {
            Some(Protocol::Lines) => "lines",
            Some(Protocol::Frames) => "frames",
            _ => "raw",
        }
    }

    fn row(&self, conn: ConnId, seat: &Seat, now: Now) -> Option<ConnectionRow> {
        let (protocol, status) = match &seat.session {
            Session::Uplink | Session::Master => return None,
            Session::Upgrading(_) => ("", "upgrading"),
            Session::Http(http) if http.is_answering() => ("http", "answering"),
            Session::Http(http) if http.is_resting() => ("http", "idle"),
            Session::Http(_) => ("http", "reading"),
            Session::Stream(_) if self.sessions.carries(conn) => ("http", "answering"),
            Session::Stream(_) => ("sse", "open"),
            Session::Framed(_) if conn.is_socketless() => ("sockjs", "open"),
            Session::Framed(_) => (self.framing_word(seat), "open"),
            _ if seat.handler == Handler::Channels => ("pusher", "open"),
            _ => ("websocket", "open"),
        };
        let unknown = matches!(seat.session, Session::Http(_) | Session::Upgrading(_));
        let status = match (seat.ended, seat.known || unknown) {
            (true, _) | (false, false) => "closing",
            (false, true) => status,
        };
        let dialled = self.dialled.get(&conn);
        let protocol = dialled.map_or(protocol, |dialled| dialled.scheme.client_word());
        let outgoing = &self.shared.outgoing.lines;
        let hub = &self.shared.hub;
        Some(ConnectionRow {
            conn: conn.to_u64(),
            listener: match dialled {
                Some(_) => DIALLED,
                None => u32::from(seat.facts.listener),
            },
            protocol: protocol.to_owned(),
            status: status.to_owned(),
            recv_queue: seat.leftover.len() as u64,
            send_queue: outgoing.waiting(conn) as u64,
            bytes_in: seat.facts.bytes_in,
            bytes_out: outgoing.written(conn),
            user: hub.user_of(conn).map(str::to_owned),
            channels: hub.channels_of(conn).count() as u32,
            age_ms: now.moment.since(seat.facts.since).as_millis() as u64,
            remote: match dialled {
                Some(dialled) => dialled.remote.clone(),
                None => seat.facts.address().map(shown).unwrap_or_default(),
            },
            via: match seat.facts.via() {
                None => String::new(),
                Some(proxy) => proxy.map_or_else(|| "unix".to_owned(), shown),
            },
        })
    }
}

/// Without a port that nobody told.
fn shown(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// The rows that fit the question, the first of them in its order.
fn choose(rows: impl Iterator<Item = ConnectionRow>, wanted: &Wanted) -> Report {
    let fits = |row: &ConnectionRow| wanted.filter.is_empty() || mentions(row, &wanted.filter);
    let mut rows: Vec<ConnectionRow> = rows.filter(fits).collect();
    let matched = rows.len() as u64;
    let column = COLUMNS.get(usize::from(wanted.sort)).copied();
    let order = |a: &ConnectionRow, b: &ConnectionRow| a.compare(b, column.unwrap_or("id"));
    let limit = wanted.limit as usize;
    if limit > 0 && rows.len() > limit {
        // All of them in order would cost a busy worker more than the question is worth.
        rows.select_nth_unstable_by(limit - 1, order);
    }
    rows.truncate(limit);
    rows.sort_unstable_by(order);
    let mut bytes = 0;
    let fitting = rows.iter().take_while(|row| {
        bytes += row_bytes(row);
        bytes <= ANSWER_BYTES_MAX
    });
    let fitting = fitting.count();
    rows.truncate(fitting);
    Report::Connections { matched, rows }
}

fn row_bytes(row: &ConnectionRow) -> usize {
    let user = row.user.as_ref().map_or(0, String::len);
    ROW_BYTES + row.protocol.len() + row.status.len() + row.remote.len() + row.via.len() + user
}

fn mentions(row: &ConnectionRow, text: &str) -> bool {
    let words = [&row.protocol, &row.status, &row.remote, &row.via];
    let user = row.user.as_deref().unwrap_or("");
    words.iter().any(|word| word.contains(text)) || user.contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> impl Iterator<Item = ConnectionRow> {
        (0..5000).map(|conn| ConnectionRow {
            conn,
            bytes_in: conn % 7,
            user: (conn == 3).then(|| "ann".to_owned()),
            remote: "192.0.2.1:5".to_owned(),
            ..ConnectionRow::default()
        })
    }

    fn ids(limit: u32, column: &str, filter: &str) -> (u64, Vec<u64>) {
        let sort = COLUMNS.iter().position(|name| *name == column);
        let wanted = Wanted {
            limit,
            sort: sort.expect("a column") as u8,
            filter: filter.to_owned(),
        };
        match choose(rows(), &wanted) {
            Report::Connections { matched, rows } => {
                (matched, rows.iter().map(|row| row.conn).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_in_the_order_asked_for_are_told_and_how_many_there_are() {
        assert_eq!(ids(3, "id", ""), (5000, vec![0, 1, 2]));
        assert_eq!(ids(2, "bytes-in", ""), (5000, vec![6, 13]));
        assert_eq!(ids(2, "user", ""), (5000, vec![3, 0]));
        assert_eq!(ids(9, "id", "ann"), (1, vec![3]));
        assert_eq!(ids(0, "id", "192.0"), (5000, vec![]));
        assert_eq!(ids(10_000, "age", "").1.len(), 5000);
    }

    #[test]
    fn an_answer_stays_below_its_bound() {
        let row = ConnectionRow {
            user: Some("x".repeat(10_000)),
            ..ConnectionRow::default()
        };
        let wanted = Wanted {
            limit: 1_000_000,
            ..Wanted::default()
        };
        let report = choose(std::iter::repeat_n(row, 1000), &wanted);
        assert!(report.encode().len() <= ANSWER_BYTES_MAX + 1024);
    }
}
