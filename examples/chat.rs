//! A chat room for browsers: whatever one says, all see, in whatever worker they are.

use lineman::{Callbacks, Server};

fn main() -> std::process::ExitCode {
    Server::new()
        .listen("websocket://127.0.0.1:8080", || {
            Callbacks::new()
                .on_connect(|conn| conn.subscribe("room"))
                .on_message(|conn, message| conn.publish("room", message))
        })
        .run()
}
