//! What `rows` asks for, of SQLite. Lists are given as JSON, and statements stay prepared.

use std::sync::Arc;

use rusqlite::types::{Null, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use crate::store::rows::{Fault, Result, Row, Rows, Value, damaged};

impl Rows for Connection {
    fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        let mut statement = self.prepare_cached(sql)?;
        let names = statement.column_names().map(str::to_string);
        let names: Arc<[String]> = names.collect();
        let mut found = statement.query(params_from_iter(values))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let columns = 0..names.len();
            let values = columns.map(|at| read(row.get_ref(at)?, &names[at]));
            rows.push(Row {
                values: values.collect::<Result<_>>()?,
                names: Arc::clone(&names),
            });
        }
        Ok(rows)
    }

    fn execute(&self, sql: &str, values: &[Value]) -> Result<u64> {
        let mut statement = self.prepare_cached(sql)?;
        Ok(statement.execute(params_from_iter(values))? as u64)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

fn read(value: ValueRef<'_>, name: &str) -> Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|_| damaged(name))?;
            Value::Text(text.to_string())
        }
        ValueRef::Blob(_) => return Err(damaged(name)),
    })
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let json = |list: serde_json::Result<String>| {
            let fail =
                |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
            list.map(ToSqlOutput::from).map_err(fail)
        };
        match self {
            Value::Null => Ok(ToSqlOutput::from(Null)),
            Value::Int(number) => Ok(ToSqlOutput::from(*number)),
            Value::Real(number) => Ok(ToSqlOutput::from(*number)),
            Value::Text(text) => Ok(ToSqlOutput::from(text.as_str())),
            Value::Ints(list) => json(serde_json::to_string(list)),
            Value::Texts(list) => json(serde_json::to_string(list)),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        let is_ours = match error.sqlite_error_code() {
            Some(code) => code == ErrorCode::ConstraintViolation,
            None => matches!(
                error,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
            ),
        };
        match is_ours {
            true => Fault::Refused(error.to_string()),
            false => Fault::Lost(error.to_string()),
        }
    }
}
