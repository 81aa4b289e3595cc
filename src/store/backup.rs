//! A copy of the SQLite file as it is at one moment, while others write to the original (SQLite's
//! online backup). Knows nothing of what is in it. Invariant: a file of the asked name is a whole
//! copy that is on the disk, or was there before; whoever is interrupted leaves `NAME.part`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

/// Between two words about how far it is; 4 MiB.
const PAGES: i32 = 1024;
/// A predecessor that is just ending may hold the file.
const BUSY: Duration = Duration::from_secs(5);

/// Writes a copy of `from` to `to`, which must not be there; only its owner can read it. `progress` is
/// told how many pages are done, and of how many. Returns how many bytes the copy has.
pub fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> io::Result<u64> {
    if to.try_exists()? {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let part = beside(to);
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&part)
        .map_err(|error| named(&part, error))?;
    let done = fill(from, &part, progress).and_then(|()| put_in_place(&part, to));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

/// Opens a file to read it only, and never makes one.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let file = Connection::open_with_flags(path, flags)?;
    file.busy_timeout(BUSY)?;
    Ok(file)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".part");
    PathBuf::from(name)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn fill(from: &Path, part: &Path, mut progress: impl FnMut(u64, u64)) -> io::Result<()> {
    let fail = |error: rusqlite::Error| io::Error::other(error.to_string());
    let source = open(from).map_err(|error| named(from, fail(error)))?;
    // As long as this transaction is open the source reads as of its beginning. Without it, a commit
    // of the courier between two steps would make the copy begin anew, for ever under load.
    let snapshot = source.unchecked_transaction().map_err(fail)?;
    snapshot
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(|error| named(from, fail(error)))?;
    let mut copy = Connection::open(part).map_err(fail)?;
    let backup = Backup::new(&snapshot, &mut copy).map_err(fail)?;
    loop {
        let step = backup.step(PAGES).map_err(fail)?;
        let told = backup.progress();
        progress(
            (told.pagecount - told.remaining) as u64,
            told.pagecount as u64,
        );
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            _ => return Err(named(from, ErrorKind::ResourceBusy.into())),
        }
    }
    drop(backup);
    // One file, which is read without leaving others beside it. The courier changes it back.
    copy.pragma_update(None, "journal_mode", "DELETE")
        .map_err(fail)
}

fn put_in_place(part: &Path, to: &Path) -> io::Result<u64> {
    let file = File::open(part)?;
    file.sync_all()?;
    // A renaming would take the place of a file that came meanwhile.
    match fs::hard_link(part, to) {
        Ok(()) => fs::remove_file(part)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        // Some file systems have no links.
        Err(_) => fs::rename(part, to)?,
    }
    let dir = to.parent().filter(|dir| *dir != Path::new(""));
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn original(path: &Path, rows: u32) -> Connection {
        let file = Connection::open(path).expect("a file");
        file.pragma_update(None, "journal_mode", "WAL")
            .expect("a log");
        let table = "CREATE TABLE t (n INTEGER PRIMARY KEY, filling TEXT NOT NULL)";
        file.execute_batch(table).expect("a table");
        for _ in 0..rows {
            insert(&file);
        }
        file
    }

    fn insert(file: &Connection) {
        let sql = "INSERT INTO t (filling) VALUES (hex(randomblob(50000)))";
        file.execute(sql, []).expect("a row");
    }

    fn rows(path: &Path) -> u32 {
        let file = open(path).expect("a copy");
        let count = file.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        count.expect("a table")
    }

    #[test]
    fn a_copy_is_of_one_moment_though_somebody_writes_between_its_steps() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let writer = original(&from, 100);
        let mut told = Vec::new();
        let bytes = copy(&from, &to, |done, of| {
            insert(&writer);
            told.push((done, of));
        });
        assert!(told.len() > 1, "{told:?}");
        assert!(told.is_sorted() && told.last().is_some_and(|(done, of)| done == of));
        assert_eq!(rows(&to), 100);
        assert_eq!(rows(&from), 100 + told.len() as u32);
        let found = fs::metadata(&to).expect("the copy");
        assert_eq!(found.len(), bytes.expect("it is done"));
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        let names = fs::read_dir(dir.path()).expect("a directory");
        let names = names.map(|it| it.expect("a name").file_name());
        let ours = names.filter(|name| name.to_string_lossy().starts_with("b.db"));
        assert_eq!(ours.count(), 1, "nothing stays beside it");
    }

    #[test]
    fn what_is_there_is_not_written_over_and_what_failed_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let kind = |done: io::Result<u64>| done.expect_err("it fails").kind();
        copy(&from, &to, |_, _| {}).expect_err("there is nothing to copy");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
        drop(original(&from, 1));
        fs::write(&to, "something else").expect("a file");
        assert_eq!(kind(copy(&from, &to, |_, _| {})), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("the file"), b"something else");
        fs::remove_file(&to).expect("the file");
        // It comes while the copy is made.
        let late = copy(&from, &to, |_, _| {
            fs::write(&to, "something else").expect("a file");
        });
        assert_eq!(kind(late), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("the file"), b"something else");
        fs::write(&from, "no database at all, and long enough to be one").expect("a file");
        fs::remove_file(&to).expect("the file");
        let why = copy(&from, &to, |_, _| {}).expect_err("no database");
        assert!(why.to_string().contains("not a database"), "{why}");
    }
}
