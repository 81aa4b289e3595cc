//! What `rows` asks for, of PostgreSQL. A value becomes what the statement's parameter is, so that
//! truth values and numbers need no other SQL than in SQLite.

use std::cell::RefCell;
use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::store::postgres::session::Session;
use crate::store::rows::{Fault, Result, Row, Rows, Value, damaged};

/// The tables that a session sees.
pub struct Tables<'a>(pub RefCell<&'a mut Session>);

type Parameter<'a> = &'a (dyn ToSql + Sync);

fn parameters(values: &[Value]) -> Vec<Parameter<'_>> {
    values.iter().map(|value| value as Parameter<'_>).collect()
}

impl Rows for Tables<'_> {
    fn query(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        let found = self.0.borrow_mut().query(sql, &parameters(values))?;
        read_all(&found)
    }

    fn query_each(&self, sql: &str, values: &[Vec<Value>]) -> Result<Vec<Vec<Row>>> {
        let each: Vec<_> = values.iter().map(|values| parameters(values)).collect();
        let each: Vec<_> = each.iter().map(Vec::as_slice).collect();
        let found = self.0.borrow_mut().query_each(sql, &each)?;
        found.iter().map(|rows| read_all(rows)).collect()
    }

    fn execute(&self, sql: &str, values: &[Value]) -> Result<u64> {
        self.0.borrow_mut().execute(sql, &parameters(values))
    }

    fn execute_each(&self, sql: &str, values: &[Vec<Value>]) -> Result<Vec<u64>> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let each: Vec<_> = values.iter().map(|values| parameters(values)).collect();
        let each: Vec<_> = each.iter().map(Vec::as_slice).collect();
        self.0.borrow_mut().execute_each(sql, &each)
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn read_all(found: &[tokio_postgres::Row]) -> Result<Vec<Row>> {
    let Some(first) = found.first() else {
        return Ok(Vec::new());
    };
    let names = first.columns().iter().map(|it| it.name().to_string());
    let names: Arc<[String]> = names.collect();
    let rows = found.iter().map(|row| {
        let columns = 0..names.len();
        Ok(Row {
            values: columns.map(|at| read(row, at)).collect::<Result<_>>()?,
            names: Arc::clone(&names),
        })
    });
    rows.collect()
}

fn read(row: &tokio_postgres::Row, at: usize) -> Result<Value> {
    let column = &row.columns()[at];
    let value = match *column.type_() {
        Type::BOOL => row.try_get::<_, Option<bool>>(at).map(Value::from),
        Type::INT8 => row.try_get::<_, Option<i64>>(at).map(Value::from),
        Type::INT4 => {
            let number = row.try_get::<_, Option<i32>>(at);
            number.map(|number| Value::from(number.map(i64::from)))
        }
        Type::FLOAT8 => row.try_get::<_, Option<f64>>(at).map(Value::from),
        Type::TEXT => row.try_get::<_, Option<String>>(at).map(Value::from),
        _ => return Err(damaged(column.name())),
    };
    value.map_err(Fault::from)
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, kind) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Int(number), &Type::BOOL) => (*number != 0).to_sql(kind, out),
            (Value::Int(number), &Type::INT4) => i32::try_from(*number)?.to_sql(kind, out),
            (Value::Int(number), &Type::INT8) => number.to_sql(kind, out),
            (Value::Real(number), &Type::FLOAT8) => number.to_sql(kind, out),
            (Value::Text(text), &Type::TEXT) => text.to_sql(kind, out),
            (Value::Ints(list), &Type::INT8_ARRAY) => list.to_sql(kind, out),
            (Value::Texts(list), &Type::TEXT_ARRAY) => list.to_sql(kind, out),
            // Not the value: it may be secret.
            _ => Err(format!("a value is no {kind}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
