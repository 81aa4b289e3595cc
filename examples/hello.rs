//! The smallest HTTP server.

use lineman::{Callbacks, Response, Server};

fn main() -> std::process::ExitCode {
    Server::new()
        .listen("http://127.0.0.1:8081", || {
            Callbacks::new().on_request(|conn, request| {
                let worker = conn.worker().number();
                match request.path() {
                    "/" => Response::text(200, format!("Hello from worker {worker}.\n")),
                    _ => Response::text(404, "There is nothing here.\n"),
                }
            })
        })
        .run()
}
