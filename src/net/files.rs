//! The files that are open for connections: opened below a listener's root, read piece by piece,
//! and looked at before each piece. Does not know what is answered with them. A read may wait for
//! the disk, as in every server without threads for that; a piece is small.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::time::UNIX_EPOCH;

use foldhash::fast::FixedState;

use crate::base::files::{FileFacts, FilePart, NoFile, PIECE_BYTES};
use crate::base::ids::ConnId;

/// Opens a path below one root, and nothing that leads out of it.
pub type OpenBelow = Box<dyn Fn(&str) -> io::Result<File> + Send>;

/// What one listener serves.
pub struct Root {
    pub open: OpenBelow,
    /// The file that stands for a directory.
    pub index: String,
}

struct Opened {
    file: File,
    facts: FileFacts,
}

pub struct Files {
    /// By listener.
    roots: Vec<Option<Root>>,
    open: HashMap<ConnId, Opened, FixedState>,
    piece: Vec<u8>,
}

impl Files {
    pub fn new(roots: Vec<Option<Root>>) -> Files {
        Files {
            roots,
            open: HashMap::default(),
            piece: Vec::new(),
        }
    }

    pub fn open(&mut self, conn: ConnId, listener: usize, path: &str) -> Result<FileFacts, NoFile> {
        let root = self.roots.get(listener).and_then(Option::as_ref);
        let root = root.ok_or(NoFile::Absent)?;
        let path = match path.is_empty() || path.ends_with('/') {
            true => format!("{path}{}", root.index),
            false => path.to_owned(),
        };
        let opened = (root.open)(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| why(&error))?;
        if metadata.is_dir() {
            return Err(NoFile::Directory);
        }
        if !metadata.is_file() {
            return Err(NoFile::Absent);
        }
        let name = path.rsplit('/').next().unwrap_or(&path);
        let facts = facts(name, &metadata);
        let opened = Opened {
            file,
            facts: facts.clone(),
        };
        self.open.insert(conn, opened);
        Ok(facts)
    }

    /// `None`: it is not the file that was opened any more, or cannot be read.
    pub fn read(&mut self, conn: ConnId, part: FilePart) -> Option<&[u8]> {
        let Opened { file, facts: then } = self.open.get(&conn)?;
        let now = facts(&then.name, &file.metadata().ok()?);
        if now != *then {
            return None;
        }
        self.piece.resize(part.length.min(PIECE_BYTES) as usize, 0);
        file.read_exact_at(&mut self.piece, part.offset).ok()?;
        Some(&self.piece)
    }

    pub fn close(&mut self, conn: ConnId) {
        if !self.open.is_empty() {
            self.open.remove(&conn);
        }
    }
}

fn facts(name: &str, metadata: &Metadata) -> FileFacts {
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
    FileFacts {
        name: name.to_owned(),
        length: metadata.len(),
        modified_unix_ns: modified.map_or(0, |it| it.as_nanos() as u64),
    }
}

/// Whoever asks is not told why a file may not be seen.
fn why(error: &io::Error) -> NoFile {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::PermissionDenied
        | ErrorKind::CrossesDevices
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput => NoFile::Absent,
        _ => NoFile::Busy,
    }
}
