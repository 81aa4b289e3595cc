//! The add-on for pusher-js, as pages load it: at `/lineman.js` for a script element and for bundlers,
//! at `/lineman.mjs` as a module. What it does stands in the script itself.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::app::files::lists;
use crate::app::media::media_type;
use crate::app::probe::{READ_METHODS, method_not_allowed};
use crate::wire::http::{Request, Response};

pub const SCRIPT_PATH: &str = "/lineman.js";
pub const MODULE_PATH: &str = "/lineman.mjs";

const SCRIPT: &str = include_str!("lineman.js");
const MODULE: &str = concat!(include_str!("lineman.js"), "export default lineman;\n");

/// `None` for any other path.
pub fn answer(request: &Request<'_>) -> Option<Response> {
    let text = match request.path() {
        SCRIPT_PATH => SCRIPT,
        MODULE_PATH => MODULE,
        _ => return None,
    };
    if !matches!(request.method, "GET" | "HEAD") {
        return Some(method_not_allowed(READ_METHODS));
    }
    // The same in every worker of one build.
    let tag = format!("\"{:x}\"", FixedState::with_seed(0).hash_one(text));
    let tags = request.header("if-none-match");
    let known = tags.is_some_and(|tags| tags.trim() == "*" || lists(tags, &tag, true));
    let response = match known {
        true => Response::empty(304),
        false => Response::new(200, media_type(request.path()), text)
            .with_header("X-Content-Type-Options", "nosniff"),
    };
    let response = response.with_header("Cache-Control", "public, max-age=3600");
    Some(response.with_header("ETag", tag))
}
