//! A database as the jobs see it: statements with values, rows with columns. Most of a job is what
//! follows from what was found, and is the same everywhere; so each job is written once, in SQL that
//! SQLite and PostgreSQL both read, with `?1` or `?` for its values. Where they differ, `Rows` has the
//! words: for a list of values, for an index, for rows that are locked. Owns what a value and a fault
//! are; knows no table and neither library.
//!
//! SQLite has one writer, and nothing to lock. Where others write at the same time, a job locks what
//! it reads to change (`locked`), and leaves alone what others have taken in hand (`free`).

use std::fmt;
use std::sync::Arc;

/// What goes wrong, sorted by what can be done about it. No message shows a value that was to be
/// stored, or a password.
#[derive(Debug)]
pub enum Fault {
    /// The file or the connection does not work. What was under way may have been done.
    Lost(String),
    /// Another transaction was in the way: nothing was done, and the same may work now.
    Again(String),
    /// What was asked for cannot be: nothing was done, and another attempt makes nothing better.
    Refused(String),
}

impl Fault {
    pub fn text(self) -> String {
        match self {
            Fault::Lost(why) | Fault::Again(why) | Fault::Refused(why) => why,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Lost(why) | Fault::Again(why) | Fault::Refused(why) => f.write_str(why),
        }
    }
}

pub type Result<T> = std::result::Result<T, Fault>;

/// What a statement is given, and what a column holds. Truth values are 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    /// Lists are given only, for `among`.
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

/// Something with tables. All of it happens in a transaction that whoever calls has begun.
pub trait Rows {
    /// The rows that a statement gives.
    fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>>;

    /// How many rows a statement has changed.
    fn execute(&self, sql: &str, values: &[Value]) -> Result<u64>;

    /// The same statement with each of these; how many rows each has changed.
    fn execute_each(&self, sql: &str, values: &[Vec<Value>]) -> Result<Vec<u64>> {
        let each = values.iter().map(|values| self.execute(sql, values));
        each.collect()
    }

    /// The rows that a statement gives with each of these, in their order.
    fn query_each(&self, sql: &str, values: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        let each = values.iter().map(|values| self.query(sql, values));
        each.collect()
    }

    /// Whether others may write at the same time.
    fn is_shared(&self) -> bool;
}

impl dyn Rows + '_ {
    /// The first row.
    pub fn first(&self, sql: &str, values: &[Value]) -> Result<Option<Row>> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// Waits until nobody else has taken this turn; it is ours until the transaction ends.
    pub fn take_turn(&self, name: &str) -> Result<()> {
        let sql = "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended('lineman/' || ?, 0))";
        if self.is_shared() {
            self.query(sql, &values![name])?;
        }
        Ok(())
    }

    /// At the end of a SELECT whose rows are going to be changed: waits for whoever changes them now.
    pub fn locked(&self) -> &'static str {
        match self.is_shared() {
            true => " FOR UPDATE",
            false => "",
        }
    }

    /// The same, but takes only what nobody else has. With the names of tables, only their rows.
    pub fn free(&self, of: &str) -> String {
        let of = match of {
            "" => String::new(),
            tables => format!(" OF {tables}"),
        };
        match self.is_shared() {
            true => format!(" FOR UPDATE{of} SKIP LOCKED"),
            false => String::new(),
        }
    }

    /// Behind a column: that it is one of a list, which is the value of this number.
    pub fn among(&self, number: u8) -> String {
        match self.is_shared() {
            true => format!("= ANY (?{number})"),
            false => format!("IN (SELECT value FROM json_each(?{number}))"),
        }
    }

    /// Behind a table's name: the index that a planner without statistics might overlook.
    pub fn by(&self, index: &str) -> String {
        match self.is_shared() {
            true => String::new(),
            false => format!(" INDEXED BY {index}"),
        }
    }
}

/// One row that was found.
#[derive(Clone, Debug)]
pub struct Row {
    pub names: Arc<[String]>,
    pub values: Vec<Value>,
}

impl Row {
    /// A column by its name, or by its place from 0. Refused: it is not of that type.
    pub fn get<T: Column>(&self, at: impl Place) -> Result<T> {
        let place = at.find(self);
        let value = place.and_then(|place| self.values.get(place));
        let read = value.and_then(T::read);
        read.ok_or_else(|| {
            let name = place.and_then(|place| self.names.get(place));
            damaged(name.map_or("a column", String::as_str))
        })
    }
}

/// A row that another program has been at.
pub fn damaged(column: &str) -> Fault {
    Fault::Refused(format!("{column} holds what this program did not write"))
}

pub trait Place {
    fn find(&self, row: &Row) -> Option<usize>;
}

impl Place for usize {
    fn find(&self, _: &Row) -> Option<usize> {
        Some(*self)
    }
}

impl Place for &str {
    fn find(&self, row: &Row) -> Option<usize> {
        row.names.iter().position(|name| name == self)
    }
}

/// What a column can be read as.
pub trait Column: Sized {
    fn read(from: &Value) -> Option<Self>;
}

impl<T: Column> Column for Option<T> {
    fn read(from: &Value) -> Option<Option<T>> {
        match from {
            Value::Null => Some(None),
            value => T::read(value).map(Some),
        }
    }
}

impl Column for String {
    fn read(from: &Value) -> Option<String> {
        match from {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Column for f64 {
    fn read(from: &Value) -> Option<f64> {
        match from {
            Value::Real(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        }
    }
}

impl Column for bool {
    fn read(from: &Value) -> Option<bool> {
        match from {
            Value::Int(number) => Some(*number != 0),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Int(is.into())
    }
}

impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Value {
        Value::Texts(list)
    }
}

impl From<Vec<i64>> for Value {
    fn from(list: Vec<i64>) -> Value {
        Value::Ints(list)
    }
}

impl<T> From<Option<T>> for Value
where
    Value: From<T>,
{
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Value::from)
    }
}

/// Counts, numbers and times; none of them comes near what an `i64` holds.
macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl Column for $kind {
            fn read(from: &Value) -> Option<$kind> {
                match from {
                    Value::Int(number) => <$kind>::try_from(*number).ok(),
                    _ => None,
                }
            }
        }

        impl From<$kind> for Value {
            fn from(number: $kind) -> Value {
                Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

whole_numbers!(u8, u32, u64, i64);

/// The values of a statement, each of another type.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::store::rows::Value::from($value)),*]
    };
}
pub(crate) use values;
