//! Jobs of every kind, as one store or the other has them done. Invariant: a job that meets what it
//! cannot do leaves nothing behind and the transaction as it was; only a database that does not work
//! fails.

use std::collections::BTreeSet;

use crate::push::delivery::jobs::{DeliveryJob, DeliveryOutcome};
use crate::push::devices::jobs::DeviceOutcome;
use crate::push::jobs::{Job, JobTicket, Outcome};
use crate::push::news::NewsOutcome;
use crate::push::notify::jobs::{NotifyJob, NotifyOutcome};
use crate::push::providers::credential::jobs::CredentialOutcome;
use crate::store::rows::{Fault, Result, Rows};
use crate::store::{credentials, deliveries, device_jobs, news, notifications};

/// Does the jobs of a commit in a transaction. When one fails, the transaction has to be rolled back. With
/// `apart`, one that is refused costs the others nothing, and each of them a savepoint: SQLite copies every
/// page that changes, PostgreSQL is asked twice more. So that is only done when one was refused.
pub fn run_all(
    on: &dyn Rows,
    jobs: &[(JobTicket, Job)],
    apart: bool,
) -> Result<Vec<(JobTicket, Outcome)>> {
    let run = if apart { run_apart } else { run };
    let done = jobs.iter();
    done.map(|(ticket, job)| Ok((*ticket, run(on, job)?)))
        .collect()
}

/// Does a job in a transaction. When it fails, the transaction has to be rolled back.
pub fn run(on: &dyn Rows, job: &Job) -> Result<Outcome> {
    match job {
        Job::Devices(job) => device_jobs::run(on, job).map(Outcome::Devices),
        Job::Notify(job) => notifications::run(on, job).map(Outcome::Notify),
        Job::Delivery(job) => deliveries::run(on, job).map(Outcome::Delivery),
        Job::News(job) => news::run(on, job).map(Outcome::News),
        Job::Credentials(job) => credentials::run(on, job).map(Outcome::Credentials),
    }
}

/// In a savepoint.
pub fn run_apart(on: &dyn Rows, job: &Job) -> Result<Outcome> {
    on.execute("SAVEPOINT job", &[])?;
    let done = match run(on, job) {
        Err(Fault::Refused(why)) => {
            on.execute("ROLLBACK TO job", &[])?;
            Ok(impossible(job, why))
        }
        done => done,
    }?;
    on.execute("RELEASE job", &[])?;
    Ok(done)
}

/// Locks the notifications that jobs name, all at once: of two transactions that change some of the
/// same, one waits for the other, and never both. What is claimed or due is found under a lock later, by
/// those who do not wait.
pub fn lock(on: &dyn Rows, jobs: &[(JobTicket, Job)]) -> Result<()> {
    let mut ids = BTreeSet::new();
    for (_, job) in jobs {
        match job {
            Job::Delivery(DeliveryJob::Settle { reports, .. }) => {
                ids.extend(reports.iter().map(|report| &report.notification));
            }
            Job::Notify(
                NotifyJob::Reached { id, .. }
                | NotifyJob::Answered { id, .. }
                | NotifyJob::Acknowledge { id, .. }
                | NotifyJob::Cancel { id, .. }
                | NotifyJob::Retry { id, .. },
            ) => {
                ids.insert(id);
            }
            _ => {}
        }
    }
    notifications::lock(on, &ids.into_iter().cloned().collect::<Vec<_>>())
}

fn impossible(job: &Job, why: String) -> Outcome {
    match job {
        Job::Devices(_) => Outcome::Devices(DeviceOutcome::Impossible(why)),
        Job::Notify(_) => Outcome::Notify(NotifyOutcome::Impossible(why)),
        Job::Delivery(_) => Outcome::Delivery(DeliveryOutcome::Impossible(why)),
        Job::News(_) => Outcome::News(NewsOutcome::Impossible(why)),
        Job::Credentials(_) => Outcome::Credentials(CredentialOutcome::Impossible(why)),
    }
}
