//! A call of the HTTP API that the courier answers, on its way there: what was asked for in which
//! app, by which key, and the answer. The switchboard passes both on unread. Knows no path: workers
//! and courier agree on those (`app/gateway`, `node/courier/gateway`).

use std::fmt;

use crate::wire::bus_codec::{Garbled, Reader, Writer};

/// See the file's head. The body may hold tokens, and the path a user's id, so only the method and the
/// app are shown.
#[derive(Clone, PartialEq, Eq)]
pub struct GatewayCall<'a> {
    pub app_id: &'a str,
    /// The public half of the key that the caller has shown to hold; empty for a client of its own.
    pub key: &'a str,
    pub method: &'a str,
    /// What follows `/apps/ID/` in the path, decoded.
    pub segments: Vec<&'a str>,
    /// Without the parameters of a signature.
    pub query: Vec<(&'a str, &'a str)>,
    pub body: &'a [u8],
}

/// What the courier answers: a status of HTTP and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAnswer<'a> {
    pub status: u16,
    pub body: &'a str,
    /// For `Retry-After`.
    pub retry_seconds: Option<u32>,
}

impl fmt::Debug for GatewayCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayCall({} of {}, …)", self.method, self.app_id)
    }
}

impl<'a> GatewayCall<'a> {
    /// The value of the first parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let found = self.query.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| *value)
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.text(self.app_id).text(self.key).text(self.method);
        to.list(&self.segments, |to, segment| {
            to.text(segment);
        });
        to.list(&self.query, |to, (name, value)| {
            to.text(name).text(value);
        });
        to.bytes(self.body);
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<GatewayCall<'a>, Garbled> {
        Ok(GatewayCall {
            app_id: from.text()?,
            key: from.text()?,
            method: from.text()?,
            segments: from.list(Reader::text)?,
            query: from.list(|from| Ok((from.text()?, from.text()?)))?,
            body: from.bytes()?,
        })
    }
}

impl<'a> GatewayAnswer<'a> {
    pub(super) fn write(&self, to: &mut Writer) {
        to.u32(u32::from(self.status)).text(self.body);
        to.option(self.retry_seconds, |to, seconds| {
            to.u32(seconds);
        });
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Result<GatewayAnswer<'a>, Garbled> {
        let status = u16::try_from(from.u32()?).map_err(|_| Garbled)?;
        Ok(GatewayAnswer {
            status,
            body: from.text()?,
            retry_seconds: from.option(Reader::u32)?,
        })
    }
}
