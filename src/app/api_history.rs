//! The HTTP API's view of the past: a page of a channel's history, read and written. What is kept
//! and for how long is not known here.

use crate::app::api_body::{BadCall, check_channel};
use crate::app::application::{Asked, Cx, Unavailable};
use crate::base::ids::ConnId;
use crate::wire::bus::{Past, Position, Question};
use crate::wire::http::Response;
use crate::wire::pusher::{epoch_text, json_string, parse_epoch};
use crate::wire::sign::SignedRequest;

const PAGE_EVENTS: u32 = 100;
const PAGE_EVENTS_MAX: u32 = 1_000;

/// Asks for the page that the query describes: `limit` events after `epoch` and `after`, or the last
/// ones.
pub fn ask(
    conn: ConnId,
    (app_id, name): (&str, &str),
    signed: &SignedRequest<'_>,
    cx: &mut Cx<'_>,
) -> Result<Result<(), Unavailable>, BadCall> {
    let key = check_channel(app_id, name, cx.limits)?;
    let question = Question::History {
        channel: key.as_str(),
        after: parse_after(signed.parameter("epoch"), signed.parameter("after"))?,
        count: parse_limit(signed.parameter("limit"))?,
    };
    Ok(cx.outlet.ask(conn, Asked::Question(question), cx.now))
}

fn parse_limit(text: Option<&str>) -> Result<u32, BadCall> {
    let Some(text) = text else {
        return Ok(PAGE_EVENTS);
    };
    let limit = text.parse().ok();
    let limit = limit.filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit));
    let fault = || {
        BadCall::new(
            400,
            format!("limit is a number from 1 to {PAGE_EVENTS_MAX}"),
        )
    };
    limit.ok_or_else(fault)
}

fn parse_after(epoch: Option<&str>, offset: Option<&str>) -> Result<Option<Position>, BadCall> {
    let (epoch, offset) = match (epoch, offset) {
        (None, None) => return Ok(None),
        (Some(epoch), Some(offset)) => (parse_epoch(epoch), offset.parse().ok()),
        _ => {
            let text = "after goes with epoch: an offset means nothing without it";
            return Err(BadCall::new(400, text));
        }
    };
    match (epoch, offset) {
        (Some(epoch), Some(offset)) => Ok(Some(Position { epoch, offset })),
        _ => Err(BadCall::new(
            400,
            "epoch and after are not as they were told",
        )),
    }
}

/// The page that came.
pub fn page(position: Option<Position>, events: Option<&[Past<'_>]>) -> Response {
    let Some(position) = position else {
        return Response::error(404, "This channel keeps no history");
    };
    let Some(events) = events else {
        let text = "Some events after this position are not kept any more";
        return Response::error(410, text);
    };
    let events: Vec<String> = events.iter().map(event).collect();
    let fields = position_fields(position);
    Response::json(
        200,
        format!("{{{fields},\"events\":[{}]}}", events.join(",")),
    )
}

/// The fields of a JSON object that tell a position.
pub fn position_fields(Position { epoch, offset }: Position) -> String {
    format!("\"epoch\":\"{}\",\"offset\":{offset}", epoch_text(epoch))
}

fn event(past: &Past<'_>) -> String {
    let (offset, name, data) = (past.offset, past.name, past.data);
    let user_id = past.user_id.map(json_string);
    let user_id = user_id.map_or_else(String::new, |id| format!(",\"user_id\":{id}"));
    format!("{{\"offset\":{offset},\"name\":{name},\"data\":{data}{user_id}}}")
}
