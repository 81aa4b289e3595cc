//! What goes wrong with PostgreSQL as a `Fault`. Invariant: no message shows a value that was to be
//! stored, or a password.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::store::rows::Fault;

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let Some(told) = error.as_db_error() else {
            let why = words(&error);
            // Of these another attempt makes nothing better.
            let text = error.to_string();
            let ours = [
                "error serializing",
                "error deserializing",
                "error performing TLS",
                "invalid configuration",
            ];
            let is_ours = ours.iter().any(|start| text.starts_with(start));
            return match is_ours {
                true => Fault::Refused(why),
                false => Fault::Lost(why),
            };
        };
        // Not its details: they quote what was to be stored.
        let why = format!("{} ({})", told.message(), told.code().code());
        let code = told.code();
        let ends = [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ];
        let passes = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        // A login that is refused, a database that is not there.
        let is_final = code.code().starts_with("28") || code.code().starts_with("3D");
        if is_final {
            Fault::Refused(why)
        } else if ends.contains(code) || matches!(told.severity(), "FATAL" | "PANIC") {
            Fault::Lost(why)
        } else if passes.contains(code) {
            Fault::Again(why)
        } else {
            Fault::Refused(why)
        }
    }
}

/// With the causes, which the library leaves out.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}
