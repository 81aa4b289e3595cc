//! Many registrations in one call: NDJSON, a registration in each line, all in one transaction. A
//! line that is wrong costs the others nothing.

use serde_json::json;

use super::{Asker, Refused, Waiting};
use crate::base::now::Now;
use crate::node::courier::Courier;
use crate::push::devices::jobs::{DeviceJob, DeviceOutcome};

/// Of one call.
const LINES_MAX: usize = 1_000;

/// A call whose lines are read.
#[derive(Default)]
pub(in crate::node::courier::gateway) struct Import {
    /// The number in the call of each line that is stored now; the first is 1.
    lines: Vec<usize>,
    /// The number of each of the others, and why.
    refused: Vec<(usize, String)>,
}

impl Courier {
    pub(super) fn import_devices(
        &mut self,
        asker: Asker,
        body: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        let lines = lines(body);
        if lines.clone().count() > LINES_MAX {
            return Err((413, format!("There are more than {LINES_MAX} lines")));
        }
        let mut import = Import::default();
        let mut registrations = Vec::new();
        for (index, line) in lines {
            match self.sealed_registration(&asker.app_id, line, now) {
                Ok(registration) => {
                    import.lines.push(index + 1);
                    registrations.push(registration);
                }
                Err(fault) => import.refused.push((index + 1, fault.text())),
            }
        }
        let job = DeviceJob::Register {
            registrations,
            limits: self.device_limits(),
            now,
        };
        self.ask_devices(Waiting::Import(asker, import), job);
        Ok(())
    }

    pub(super) fn answer_import(
        &mut self,
        asker: &Asker,
        mut import: Import,
        outcome: DeviceOutcome,
    ) {
        let DeviceOutcome::Registered(done) = outcome else {
            let (status, why) = self.reason(&outcome);
            return self.refuse_devices(asker.ticket, status, &why);
        };
        let (mut registered, mut new) = (0, 0);
        for (line, done) in import.lines.iter().zip(done) {
            match done {
                Ok(done) => {
                    registered += 1;
                    new += u64::from(done.is_new);
                    self.count_registered(asker, &done);
                }
                Err(full) => {
                    let (_, why) = self.reason(&DeviceOutcome::Full(full));
                    import.refused.push((*line, why));
                }
            }
        }
        import.refused.sort();
        self.counters.devices_refused += import.refused.len() as u64;
        let (app, key, faulty) = (&*asker.app_id, &*asker.key, import.refused.len());
        log::info!(app, key, registered, new, refused = faulty; "devices imported");
        let refused = import.refused.iter();
        let refused = refused.map(|(line, why)| json!({ "line": line, "error": why }));
        let answer = json!({
            "registered": registered,
            "new": new,
            "refused": refused.collect::<Vec<_>>(),
        });
        self.answer_call(asker.ticket, 200, &answer.to_string());
    }
}

/// The lines with something in them, each with its place.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> + Clone {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii().is_empty())
}
