//! How a worker's connections end and when they are looked at without having said anything:
//! closing, deadlines, and the farewell to everybody.

use std::time::Duration;

use crate::app::application::Application;
use crate::app::handler::Handler;
use crate::base::close::Close;
use crate::base::counters::Counters;
use crate::base::ids::ConnId;
use crate::base::now::Now;
use crate::node::worker::Worker;
use crate::node::{Ending, Output};
use crate::session::Session;
use crate::session::framed::FramedDue;
use crate::session::websocket::Shut;
use crate::wire::control::Report;
use crate::wire::protocol::Protocol;
use crate::wire::sockjs;

/// How long connections get to take their Close frames when the worker stops.
const FAREWELL: Duration = Duration::from_millis(500);

impl Worker {
    /// Ends a connection as its protocol wants it; the application hears of it at once.
    pub(super) fn shut(&mut self, conn: ConnId, close: Close, now: Now) {
        self.retire(conn, &close, now);
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        let Some(out) = self.shared.outgoing.lines.outbox(conn) else {
            return;
        };
        match &mut seat.session {
            Session::WebSocket(websocket) => match websocket.shut(&close, out, now) {
                Shut::Wait => {
                    self.count(conn, &close);
                    self.shared.outgoing.lines.touch(conn);
                    self.arm(conn);
                }
                Shut::Cut => self.end(conn, close, now),
            },
            _ => self.end(conn, close, now),
        }
    }

    /// Nothing more is taken from the connection; what is queued is still written unless the
    /// peer would not take it.
    pub(super) fn end(&mut self, conn: ConnId, close: Close, now: Now) {
        self.retire(conn, &close, now);
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        seat.ended = true;
        seat.leftover = Vec::new();
        let handler = seat.handler;
        if close == Close::TooLate {
            count_late(&seat.session, &mut self.shared.counters);
        }
        self.count(conn, &close);
        let mut ending = match close {
            Close::TooSlow | Close::Unread => Ending::Cut,
            _ => Ending::Flushed,
        };
        if ending == Ending::Flushed && !self.say_last_words(conn, handler, &close) {
            ending = Ending::Cut;
        }
        if conn.is_socketless() {
            return self.end_session(conn, &close, ending, now);
        }
        self.lose_carrier(conn, now);
        self.shared.outgoing.lines.touch(conn);
        self.outputs.push_back(Output::Close(conn, ending));
    }

    /// Tells a connection without Close frames why it ends; false when there was no room.
    fn say_last_words(&mut self, conn: ConnId, handler: Handler, close: &Close) -> bool {
        let lines = &mut self.shared.outgoing.lines;
        let mut message = Vec::new();
        match (lines.protocol(conn), close.websocket()) {
            (Protocol::SockJs, Some((code, text))) => message = sockjs::closing(code, &text),
            (protocol, _) => {
                let Some(framing) = protocol.framing() else {
                    return true;
                };
                let text = self.handlers.of(handler).last_words(close);
                let said = text.map(|text| framing.encode(text.as_bytes(), &mut message));
                if said != Some(Ok(())) {
                    return true;
                }
            }
        }
        lines.push(conn, |out| out.push(&message)).is_ok()
    }

    /// The first reason counts: what a Close frame is answered with follows from it.
    fn count(&mut self, conn: ConnId, close: &Close) {
        if let Some(seat) = self.seats.get_mut(conn).filter(|seat| !seat.counted) {
            seat.counted = seat.session.is_foreign();
            self.shared.counters.close(close);
        }
    }

    /// The application forgets the connection, and so does every channel.
    pub(super) fn retire(&mut self, conn: ConnId, close: &Close, now: Now) {
        if let Some(seat) = self.seats.get_mut(conn).filter(|seat| seat.known) {
            seat.known = false;
            let application = self.handlers.of(seat.handler);
            application.closed(conn, close, &mut self.shared.cx(now));
            self.part(conn, now);
        }
        if let Some(seat) = self.seats.get(conn)
            && matches!(seat.session, Session::Upgrading(_))
            && let Some(dialled) = self.dialled.get(&conn)
        {
            let why = "the connection ended before the WebSocket handshake was done";
            self.dial_failed(dialled.dial, why, now);
        }
    }

    /// Makes sure the wheel fires by the session's deadline.
    pub(super) fn arm(&mut self, conn: ConnId) {
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        let resume = seat.held_until();
        let deadline = match &seat.session {
            Session::Http(http) => http.deadline(&self.shared.limits),
            Session::WebSocket(websocket) => websocket.deadline(&self.websocket),
            Session::Framed(framed) => framed.deadline(self.framed.of(seat.handler)),
            Session::Stream(stream) => Some(stream.deadline()),
            Session::Upgrading(_) => {
                let dial = self.dialled.get(&conn).map(|dialled| dialled.dial);
                dial.and_then(|dial| self.shared.outgoing.dials.until(dial))
            }
            Session::Uplink | Session::Master => None,
        };
        let handing = self.sessions.due(conn);
        if let Some(deadline) = deadline.into_iter().chain(resume).chain(handing).min()
            && seat
                .armed
                .is_none_or(|armed| self.wheel.fires_at(deadline) < armed)
        {
            seat.armed = Some(self.wheel.fires_at(deadline));
            self.wheel.arm(conn, deadline);
        }
    }

    /// The wheel fired for the connection.
    pub(super) fn fired(&mut self, conn: ConnId, now: Now) {
        if self.session_elapsed(conn, now) {
            return;
        }
        let Some(seat) = self.seats.live(conn) else {
            return;
        };
        if seat.armed.is_some_and(|armed| armed > now.moment) {
            // An entry from before the deadline moved; the one that counts is still to come.
            return;
        }
        seat.armed = None;
        if seat.held_until().is_some_and(|until| until <= now.moment) {
            seat.held_back = false;
            self.resumed.push(conn);
        }
        let Some(out) = self.shared.outgoing.lines.outbox(conn) else {
            return;
        };
        let close = match &mut seat.session {
            Session::Http(http) => http.elapsed(out, now, &self.shared.limits),
            Session::Stream(stream) => stream.elapsed(out, now),
            Session::WebSocket(websocket) => {
                let close = websocket.elapsed(out, now, &self.websocket);
                if websocket.is_doubted() {
                    self.shared.outgoing.deflating.forget(conn);
                }
                close
            }
            Session::Framed(framed) => match framed.elapsed(now, self.framed.of(seat.handler)) {
                Some(FramedDue::Close(close)) => Some(close),
                Some(FramedDue::Ask) => {
                    let application = self.handlers.of(seat.handler);
                    application.silent(conn, &mut self.shared.cx(now));
                    None
                }
                None => None,
            },
            Session::Upgrading(_) => return self.upgrade_elapsed(conn, now),
            Session::Uplink | Session::Master => None,
        };
        match close {
            Some(close) => self.end(conn, close, now),
            None => {
                self.shared.outgoing.lines.touch(conn);
                self.arm(conn);
            }
        }
    }

    /// Says goodbye to everybody.
    pub(super) fn stop(&mut self, now: Now) {
        if self.farewell.is_some() {
            return;
        }
        self.farewell = Some(now.moment + FAREWELL);
        self.tell_services(Application::stopping, now);
        self.outputs.push_back(Output::StopAccepting);
        self.give_up_dials(now);
        for conn in self.seats.ids() {
            let foreign = self.seats.get(conn).map(|seat| seat.session.is_foreign());
            if foreign == Some(true) {
                self.shut(conn, Close::GoingAway, now);
            }
        }
        self.quit_if_empty();
    }

    pub(super) fn quit_if_empty(&mut self) {
        let own = usize::from(self.shared.outgoing.uplink.conn().is_some())
            + usize::from(self.master.is_some());
        let leaving = self.farewell.is_some() || self.is_drained();
        // Whoever was accepted is served, unless nobody is any more.
        let awaited = self.farewell.is_none() && self.arriving > 0;
        if leaving && !awaited && self.seats.count() <= own {
            self.quit();
        }
    }

    /// Ends the reactor; the master is told the last numbers, so that none are lost.
    pub(super) fn quit(&mut self) {
        if let Some(master) = self.master {
            let values = self.stats().values();
            self.report(master, &Report::Stats(values));
        }
        self.outputs.push_back(Output::Quit);
    }
}

/// What a passed deadline was set for follows from what was spoken.
fn count_late(session: &Session, counters: &mut Counters) {
    match session {
        Session::Http(_) => counters.late_requests += 1,
        Session::WebSocket(_) => counters.late_closes += 1,
        Session::Framed(_) => counters.late_introductions += 1,
        Session::Stream(_) | Session::Upgrading(_) | Session::Uplink | Session::Master => {}
    }
}
