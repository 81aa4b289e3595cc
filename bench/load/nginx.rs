//! nginx as a peer: one worker process, with a configuration of its own that
//! answers /healthz and serves one directory.
//!
//! What it says is what a careful operator would say for speed: connections
//! are kept, nothing is logged for a request, files are sent by the kernel
//! where that is possible, tickets are given out.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::Fallible;
use crate::options::TargetOptions;
use crate::target::{self, Site, Target};

pub fn start(options: &TargetOptions, site: Site) -> Fallible<Target> {
    let port = target::free_port()?;
    let text = configuration(&site, port);
    let path = site.path("nginx.conf");
    fs::write(&path, text)?;
    let words = [
        "nginx".to_owned(),
        "-e".into(),
        "stderr".into(),
        "-p".into(),
        site.path("").to_string_lossy().into_owned(),
        "-c".into(),
        path.to_string_lossy().into_owned(),
    ];
    let mut target = target::spawn(options, &options.server, &words, port, site)?;
    let address = target.address;
    target.wait_until(|| TcpStream::connect(address).is_ok())?;
    Ok(target)
}

fn configuration(site: &Site, port: u16) -> String {
    let quoted = |path: &Path| format!("\"{}\"", path.to_string_lossy());
    let (tls, secured) = match &site.identity {
        None => ("", String::new()),
        Some(identity) => (
            " ssl",
            format!(
                "ssl_certificate {};\n        ssl_certificate_key {};\n        \
                 ssl_protocols TLSv1.3;\n        ssl_session_tickets on;",
                quoted(&identity.certificate),
                quoted(&identity.key)
            ),
        ),
    };
    let root = quoted(&site.path(""));
    format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr crit;
pid nginx.pid;
events {{
    worker_connections 16384;
    multi_accept on;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    open_file_cache max=16;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
    server {{
        listen 127.0.0.1:{port}{tls} backlog=4096;
        {secured}
        root {root};
        location = /healthz {{
            default_type text/plain;
            return 200 \"ok\\n\";
        }}
    }}
}}
"
    )
}
