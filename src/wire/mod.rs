//! Bytes to values and back, one file per format. Pure, and without memory of a conversation:
//! what a value means at this point of a connection is decided in `session` and `app`.

pub mod bus;
pub mod bus_codec;
pub mod bus_errands;
pub mod bus_parts;
pub mod control;
pub mod courier_bus;
pub mod deflate;
pub mod deflate_offer;
pub mod event_stream;
pub mod forwarded;
pub mod frames;
pub mod framing;
pub mod http;
pub mod http2;
pub mod http2_frames;
pub mod http_answer;
pub mod http_chunks;
pub mod http_date;
pub mod http_head;
pub mod lines;
pub mod numbers;
pub mod origin;
pub mod protocol;
pub mod proxy;
pub mod pusher;
pub mod query;
pub mod raw;
pub mod sign;
pub mod sockjs;
pub mod target;
pub mod websocket;
pub mod websocket_upgrade;
pub mod x509;
