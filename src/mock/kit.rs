//! What the tests of providers share: requests, a clock, a caller, and tables of answers.

use super::*;
use crate::base::now::Moment;

/// The clock's reading, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;

pub fn at(seconds: i64) -> Now {
    Now {
        moment: Moment::from_micros(0),
        unix_ms: (NOW + seconds) as u64 * 1000,
    }
}

pub fn caller(connection: u64) -> Caller {
    Caller {
        connection,
        version: 2,
    }
}

/// A request to `mock.example`.
pub fn asked(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Asked {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    Asked {
        method: method.to_string(),
        target: target.to_string(),
        authority: "mock.example".to_string(),
        fields: fields.collect(),
        body: body.as_bytes().to_vec(),
        whole: true,
    }
}

/// A provider with rules.
pub fn mock(provider: impl Provider + Send + 'static, rules: &[&str]) -> Mock {
    let mut script = Script::default();
    for rule in rules {
        script.add_text(provider.kind(), rule).expect("a rule");
    }
    Mock::new(Box::new(provider), script, Dice::new([3; 16]), true)
}

/// The answer, on the connection with number 1.
pub fn reply(mock: &mut Mock, asked: &Asked) -> Reply {
    match mock.hear(caller(1), asked, at(0)).act {
        Act::Answer(reply, None) => reply,
        other => panic!("{other:?}"),
    }
}

pub fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

impl Reply {
    /// The value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(own, _)| *own == name);
        all.next().map(|(_, value)| &**value)
    }
}
