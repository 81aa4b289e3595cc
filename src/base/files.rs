//! What is known of a file that is served, and what is wanted of it. Values only: `app` decides what
//! is answered, `net` opens and reads.

/// A file that was opened, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The last part of its path: of the index when a directory was asked for.
    pub name: String,
    /// In bytes.
    pub length: u64,
    /// When it was last changed, in nanoseconds since 1970; zero when that was before.
    pub modified_unix_ns: u64,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// It does not exist, may not be read, or lies outside of what is served.
    Absent,
    /// It is a directory, and was not asked for as one.
    Directory,
    /// The system cannot open it now.
    Busy,
}

/// Some bytes of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePart {
    pub offset: u64,
    pub length: u64,
}

/// Read at once, so held for a connection that takes nothing.
pub const PIECE_BYTES: u64 = 64 * 1024;
