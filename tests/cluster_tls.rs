//! A cluster whose Redis speaks TLS, with an authority of its own: servers that are told whom to trust
//! join, and whoever is not stays away and says why.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/redis.rs"]
mod redis;
mod support;
#[path = "support/talker.rs"]
mod talker;

use authority::Authority;
use redis::Redis;
use support::{Place, Server, get, wait_until};
use talker::{Talker, publish};

fn config(redis: &Redis, rest: &str) -> String {
    format!(
        "workers = 1\n[[listen]]\nurl = \"text://127.0.0.1:0\"\n\
         [[listen]]\nurl = \"http://127.0.0.1:0\"\n\
         [[apps]]\nid = \"demo\"\nkey = \"demo-key\"\nsecret = \"demo-secret\"\n\
         [cluster]\nredis_url = \"{}\"\n{rest}",
        redis.url()
    )
}

/// Trusts an authority, whose certificate is beside the configuration.
fn start(redis: &Redis, authority: &Authority) -> Server {
    let place = Place::new(&config(redis, "ca_file = \"ca.pem\"\n"));
    std::fs::write(place.path().join("ca.pem"), &authority.pem).expect("written");
    Server::start_in(place)
}

fn wait_for(server: &Server, state: &str) {
    let http = server.address(1);
    wait_until(&format!("a server is {state}"), || {
        get(&http, "/readyz").is_ok_and(|(_, body)| body.contains(state))
    });
}

#[test]
fn servers_that_trust_its_authority_meet_over_tls() {
    let authority = Authority::new();
    let redis = Redis::with_tls(authority.issue("localhost"));
    let (one, other) = (start(&redis, &authority), start(&redis, &authority));
    wait_for(&one, "joined");
    wait_for(&other, "joined");
    let mut client = Talker::connect(&one.address(0));
    client.subscribe("news");
    let (code, body) = publish(&other.address(1), "news", "1").expect("an answer");
    assert_eq!((code, body.to_string().as_str()), (200, "{}"));
    client.event("e", "news");
}

#[test]
fn a_certificate_that_cannot_be_trusted_keeps_a_server_away() {
    let trusted = Authority::new();
    let by_another = Authority::new().issue("localhost");
    let of_another = trusted.issue("elsewhere.example");
    for identity in [by_another, of_another] {
        let redis = Redis::with_tls(identity);
        let server = start(&redis, &trusted);
        wait_until("it says why", || {
            server.stderr().contains("the server's certificate")
        });
        wait_for(&server, "away");
    }
}
