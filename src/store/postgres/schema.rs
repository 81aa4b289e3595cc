//! Brings a database to the newest schema. Owns the order of the steps; whoever comes at the same time
//! waits. Invariant: a step is done whole and once, and a database that a newer program wrote is left
//! alone.

use crate::store::postgres::session::Session;
use crate::store::rows::Fault;

/// Each is run once, in its order; the table `schema_version` counts them.
const STEPS: [&str; 6] = [
    include_str!("../schema/postgres/0001.sql"),
    include_str!("../schema/postgres/0002.sql"),
    include_str!("../schema/postgres/0003.sql"),
    include_str!("../schema/postgres/0004.sql"),
    include_str!("../schema/postgres/0005.sql"),
    // What both stores read in the same words stands once.
    include_str!("../schema/0006.sql"),
];

/// Holds others back until the transaction ends. The number says `lineman`.
const BEGIN: &str = "
    BEGIN;
    SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = 0;
    SELECT pg_advisory_xact_lock(30515220353737070)";

/// The schema is not made again where it is there, since that is a right we may not have.
const FOUNDATION: &str = "
    DO $$ BEGIN
        IF to_regnamespace('lineman') IS NULL THEN CREATE SCHEMA lineman; END IF;
    END $$;
    CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)";

pub fn migrate(session: &mut Session) -> Result<(), Fault> {
    if version(session)? == Some(STEPS.len()) {
        return Ok(());
    }
    session.migrate(BEGIN)?;
    session.batch(FOUNDATION)?;
    let done = version(session)?.unwrap_or(0);
    if done > STEPS.len() {
        session.batch("ROLLBACK")?;
        let why = "a newer version of lineman wrote this database".to_string();
        return Err(Fault::Refused(why));
    }
    for step in &STEPS[done..] {
        session.migrate(step)?;
    }
    session.batch(&format!(
        "DELETE FROM schema_version; INSERT INTO schema_version VALUES ({}); COMMIT",
        STEPS.len()
    ))
}

fn version(session: &mut Session) -> Result<Option<usize>, Fault> {
    let there = session.one(
        "SELECT to_regclass('lineman.schema_version') IS NOT NULL",
        &[],
    )?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = session.query("SELECT version FROM schema_version", &[])?;
    Ok(rows.first().map(|row| row.get::<_, i32>(0) as usize))
}
