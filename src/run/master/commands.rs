//! What the command line asks of the master: the status, the connections, and the verbs that
//! change something. Gathers from the reactors and answers when all have spoken or had the time
//! to. Invariant: a reactor that is busy costs a moment, not the answer.

use std::time::Duration;

use crate::base::counters::Counters;
use crate::base::now::Moment;
use crate::run::children::{Child, Duty, End, Phase, Role};
use crate::run::client::COURIER_AWAY;
use crate::run::connections::{Connections, FILTER_BYTES_MAX, Found, Id, LIMIT_MAX};
use crate::run::control::{Called, Command, Done, Failed, Stopping};
use crate::run::exit::Exit;
use crate::run::link::Link;
use crate::run::log::timestamp;
use crate::run::master::Master;
use crate::run::os;
use crate::run::site::Process;
use crate::run::status::{MasterStatus, ProcessStatus, State, Status, named};
use crate::wire::control::{COLUMNS, Wanted};
use crate::wire::courier_bus;
use crate::wire::gateway::GatewayCall;

/// How long `status` waits for reactors that are busy.
const SURVEY_PATIENCE: Duration = Duration::from_millis(500);
/// A list of many connections takes a reactor longer than its numbers.
const GATHER_PATIENCE: Duration = Duration::from_secs(2);

/// A page of devices may wait for a disk that is busy.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// Somebody asked for the status, and the reactors were asked for theirs.
pub(super) struct Survey {
    pub callers: Vec<usize>,
    pub due: Moment,
}

/// Somebody asked for connections, or to close one.
pub(super) struct Gathering {
    caller: usize,
    pub due: Moment,
    what: Gathered,
}

enum Gathered {
    List(Wanted),
    Closing(Id),
}

impl Master {
    pub(super) fn handle_command(&mut self, caller: usize, command: Command, now: Moment) {
        match command {
            Command::Status => self.begin_survey(Some(caller), now),
            Command::Stop { graceful } => {
                let within = if graceful {
                    self.config.drain
                } else {
                    Duration::ZERO
                };
                let answer = Stopping {
                    pid: std::process::id(),
                    within_seconds: within.as_secs(),
                };
                self.control.answer(caller, &answer, now);
                self.control.keep(caller);
                if graceful {
                    self.stop_gracefully("lineman stop -g", now);
                } else {
                    self.stop("lineman stop", now);
                }
            }
            Command::Reload { graceful } => {
                self.reload("lineman reload", graceful, Some(caller), now)
            }
            Command::Upgrade { graceful } => self.upgrade(graceful, caller, now),
            Command::Reopen => {
                let done = match self.reopen_log() {
                    Ok(true) => "the log goes on in a new file".to_string(),
                    Ok(false) => "the log's file is the one it was".to_string(),
                    Err(why) => return self.refuse(caller, &why, now),
                };
                self.control.answer(caller, &Done { done }, now);
            }
            Command::Connections {
                limit,
                sort,
                filter,
            } => {
                let sort = COLUMNS.iter().position(|name| *name == sort);
                if limit > LIMIT_MAX || filter.len() > FILTER_BYTES_MAX {
                    return self.refuse(caller, "the limit or the filter is too long", now);
                }
                let Some(sort) = sort.and_then(|place| u8::try_from(place).ok()) else {
                    return self.refuse(caller, "there is no such column", now);
                };
                let wanted = Wanted {
                    limit,
                    sort,
                    filter,
                };
                self.gather(caller, Gathered::List(wanted), now);
            }
            call @ Command::Call { .. } => self.take_call(caller, call, now),
            Command::Close { id } => match Id::parse(&id) {
                Some(id) => self.gather(caller, Gathered::Closing(id), now),
                None => self.refuse(caller, "that is no id of a connection", now),
            },
        }
    }

    fn take_call(&mut self, caller: usize, call: Command, now: Moment) {
        let Command::Call {
            method,
            app_id,
            segments,
            query,
            body,
        } = call
        else {
            return;
        };
        let app_id = match &self.config.apps[..] {
            [only] if app_id.is_empty() => only.id.clone(),
            _ => app_id,
        };
        let query = query.iter().map(|(name, value)| (&**name, &**value));
        let call = GatewayCall {
            app_id: &app_id,
            key: "operator",
            method: &method,
            segments: segments.iter().map(String::as_str).collect(),
            query: query.collect(),
            body: body.as_bytes(),
        };
        self.pass_call(caller, call, now);
    }

    /// An operator's call goes to the courier; the answer finds the caller by its ticket.
    fn pass_call(&mut self, caller: usize, call: GatewayCall<'_>, now: Moment) {
        if self.config.push.is_none() {
            return self.refuse(caller, "there is no [push] in the configuration", now);
        }
        let ticket = caller as u64;
        let frame = courier_bus::Report::Call { ticket, call }.encode();
        let rows = self.children.rows().iter().zip(&mut self.processes);
        let mut couriers =
            rows.filter(|(row, _)| row.role == Role::Courier && row.phase == Phase::Running);
        let process = couriers.find_map(|(_, process)| process.as_mut());
        let link = process.and_then(|process| process.links.first_mut());
        if !link.is_some_and(|link| link.call(frame)) {
            let why = format!("{COURIER_AWAY}is not there; try again");
            return self.refuse(caller, &why, now);
        }
        self.calls.insert(caller, now + CALL_PATIENCE);
    }

    pub(super) fn answer_call(&mut self, (ticket, status, body): (u64, u16, String), now: Moment) {
        let caller = ticket as usize;
        if self.calls.remove(&caller).is_some() {
            self.control.answer(caller, &Called { status, body }, now);
        }
    }

    /// A courier that has ended answers nobody.
    pub(super) fn refuse_late_calls(&mut self, now: Moment) {
        while let Some((&caller, _)) = self.calls.iter().find(|(_, due)| **due <= now) {
            self.calls.remove(&caller);
            let why = format!("{COURIER_AWAY}does not answer; what was asked may be done");
            self.refuse(caller, &why, now);
        }
    }

    pub(super) fn refuse(&mut self, caller: usize, why: &str, now: Moment) {
        let failed = Failed {
            error: why.to_string(),
            exit: Exit::Failed as u8,
        };
        self.control.answer(caller, &failed, now);
    }

    /// One for all who ask meanwhile.
    pub(super) fn begin_survey(&mut self, caller: Option<usize>, now: Moment) {
        if let Some(survey) = &mut self.survey {
            survey.callers.extend(caller);
            return;
        }
        for process in self.processes.iter_mut().flatten() {
            process.links.iter_mut().for_each(Link::ask);
        }
        self.survey = Some(Survey {
            callers: caller.into_iter().collect(),
            due: now + SURVEY_PATIENCE,
        });
    }

    pub(super) fn answer_survey(&mut self, now: Moment) {
        let waiting = self.processes.iter().flatten().any(owes_answer);
        let Some(survey) = self.survey.take_if(|survey| !waiting || survey.due <= now) else {
            return;
        };
        self.answer_scrapes(now);
        if survey.callers.is_empty() {
            return;
        }
        let status = self.status(now);
        for caller in survey.callers {
            self.control.answer(caller, &status, now);
        }
    }

    /// One such question at a time: its answers would be mixed up otherwise.
    fn gather(&mut self, caller: usize, what: Gathered, now: Moment) {
        if self.gathering.is_some() {
            return self.refuse(caller, "somebody else is asking; try again", now);
        }
        for (row, process) in self.children.rows().iter().zip(&mut self.processes) {
            let Some(process) = process.as_mut().filter(|_| row.role == Role::Worker) else {
                continue;
            };
            match &what {
                Gathered::List(wanted) => process.links.iter_mut().for_each(|it| it.list(wanted)),
                Gathered::Closing(id) if id.pid == process.child.id() => {
                    let first = self.site.slots_of(row.number).start;
                    let place = id.slot.checked_sub(first).map(|place| place as usize);
                    if let Some(link) = place.and_then(|place| process.links.get_mut(place)) {
                        link.close(id.conn);
                    }
                }
                Gathered::Closing(_) => {}
            }
        }
        let due = now + GATHER_PATIENCE;
        self.gathering = Some(Gathering { caller, due, what });
    }

    pub(super) fn answer_gathering(&mut self, now: Moment) {
        let owes = |process: &Process| process.links.iter().any(Link::owes_listing);
        let waiting = self.processes.iter().flatten().any(owes);
        let Some(gathering) = self.gathering.take_if(|it| !waiting || it.due <= now) else {
            return;
        };
        match gathering.what {
            Gathered::List(wanted) => {
                let list = self.joined(&wanted);
                self.control.answer(gathering.caller, &list, now);
            }
            Gathered::Closing(_) => {
                let mut links = self
                    .processes
                    .iter_mut()
                    .flatten()
                    .flat_map(|it| &mut it.links);
                if links.any(|link| link.closed.take() == Some(true)) {
                    let done = "closed".to_string();
                    self.control.answer(gathering.caller, &Done { done }, now);
                } else {
                    self.refuse(gathering.caller, "there is no such connection", now);
                }
            }
        }
    }

    fn joined(&mut self, wanted: &Wanted) -> Connections {
        let mut list = Connections::default();
        let mut all = Vec::new();
        for (row, process) in self.children.rows().iter().zip(&mut self.processes) {
            let Some(process) = process.as_mut().filter(|_| row.role == Role::Worker) else {
                continue;
            };
            let (pid, slots) = (process.child.id(), self.site.slots_of(row.number));
            for (link, slot) in process.links.iter_mut().zip(slots) {
                let Some((matched, rows)) = link.listed.take() else {
                    list.missing.push(format!("{row} ({pid})"));
                    continue;
                };
                list.matched += matched;
                all.extend(rows.into_iter().map(|row| Found { pid, slot, row }));
            }
        }
        let listen = &self.about.banner.listen;
        let local = |index: u32| {
            let listen = listen.get(index as usize);
            listen.map_or(String::new(), |listen| listen.url.clone())
        };
        let column = COLUMNS.get(usize::from(wanted.sort)).copied();
        let limit = wanted.limit as usize;
        list.connections = Connections::join(all, column.unwrap_or("id"), limit, local);
        list
    }

    fn status(&self, now: Moment) -> Status {
        let mut total = Counters::default();
        let mut rows: Vec<(&Child, Option<&Process>)> = Vec::new();
        for (index, row) in self.children.rows().iter().enumerate() {
            if row.is_listed() {
                let process = self.processes.get(index).and_then(Option::as_ref);
                rows.push((row, process));
            }
        }
        rows.sort_by_key(|(row, _)| (row.role, row.number, row.duty));
        let processes = rows.into_iter();
        let processes = processes
            .map(|(row, process)| process_status(row, process, &mut total, now))
            .collect();
        let banner = &self.about.banner;
        Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            state: if self.children.is_stopping() {
                State::Stopping
            } else if self.children.all_running() {
                State::Running
            } else {
                State::Starting
            },
            config: banner.config_name.clone(),
            run_dir: self.about.run_dir.clone(),
            log_file: banner.log_file.clone(),
            store: self.site.store().map(|path| path.display().to_string()),
            user: banner.user.clone(),
            started_at: timestamp(self.started.unix_ms),
            uptime_seconds: now.since(self.started.moment).as_secs(),
            workers: banner.workers,
            threads: banner.threads,
            listen: self.listen_status(),
            master: MasterStatus {
                pid: std::process::id(),
                memory_bytes: os::resident_bytes(std::process::id()),
            },
            processes,
            total: named(&total),
            rates: None,
        }
    }
}

pub(super) fn owes_answer(process: &Process) -> bool {
    process.links.iter().any(Link::owes_answer)
}

fn process_status(
    row: &Child,
    process: Option<&Process>,
    total: &mut Counters,
    now: Moment,
) -> ProcessStatus {
    let mut counters = Counters::default();
    for link in process.iter().flat_map(|process| &process.links) {
        counters.add(&link.counters);
    }
    total.add(&counters);
    let pid = process.map(|process| process.child.id());
    let (state, wait_ms) = match row.phase {
        Phase::Waiting(at) => (State::Waiting, Some(at.since(now).as_millis() as u64)),
        Phase::Launching | Phase::Starting => (State::Starting, None),
        Phase::Running if process.is_some_and(owes_answer) => (State::Busy, None),
        Phase::Running => (State::Running, None),
        Phase::Draining => (State::Draining, None),
        Phase::Stopping | Phase::Gone => (State::Stopping, None),
    };
    let serves = row.duty == Duty::Serves;
    ProcessStatus {
        pid,
        role: row.role,
        number: row.number,
        state,
        wait_ms,
        memory_bytes: pid.and_then(os::resident_bytes),
        restarts: if serves { row.restarts } else { 0 },
        last_end: row.last_end.as_ref().filter(|_| serves).map(End::to_string),
        counters: named(&counters),
        rates: None,
    }
}
