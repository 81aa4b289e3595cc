//! Two processes in one slot, as while a worker is replaced, in the simulated world and in every
//! order in which chance delivers what is said. The random walk of `sim` seldom comes here.

mod world;

use std::time::Duration;

use lineman::base::limits::Limits;
use serde_json::json;
use world::client::{call, subscribe, upgrade};
use world::{APP_ID, KEY, World};

const SEEDS: u64 = 64;

/// A client of the worker that has joined the room.
fn join(world: &mut World, worker: usize, user: &str) -> usize {
    let client = world.connect(worker, 0);
    world.send(client, &upgrade(&format!("/app/{KEY}?protocol=7")));
    world.pass(Duration::from_millis(50));
    let socket_id = world.clients[client].socket_id.clone().expect("a greeting");
    let bytes = subscribe(&socket_id, "presence-room", Some(user));
    world.send(client, &bytes);
    world.pass(Duration::from_millis(50));
    client
}

/// Everybody has dialled, and the publish waits on a link, when the next switchboard comes.
#[test]
fn a_new_switchboard_knows_the_clients_of_every_worker_in_a_slot() {
    for seed in 0..SEEDS {
        let mut world = World::new(2, Limits::default(), seed, true);
        world.pass(Duration::from_secs(2));
        let watcher = join(&mut world, 0, "u");
        let successor = world.succeed(0);
        world.pass(Duration::from_millis(500));
        let switchboard = world.switchboard();
        world.kill(switchboard);
        world.carry_all();
        world.pass(Duration::from_millis(500));
        let publisher = world.connect(successor, 0);
        let body = json!({"name": "n", "channel": "presence-room", "data": "1"}).to_string();
        let path = format!("/apps/{APP_ID}/events");
        world.send(publisher, &call("POST", &path, &body));
        world.carry_all();
        world.start(switchboard);
        world.carry_all();
        world.pass(Duration::from_secs(10));
        assert_eq!(world.clients[publisher].answers[0].0, 200, "seed {seed}");
        let mut events = world.clients[watcher].events.iter();
        assert!(events.any(|event| event["event"] == "n"), "seed {seed}");
    }
}

#[test]
fn a_user_who_comes_back_through_the_successor_was_never_away() {
    for seed in 0..SEEDS {
        let mut world = World::new(2, Limits::default(), seed, true);
        world.pass(Duration::from_secs(2));
        let watcher = join(&mut world, 1, "watcher");
        let first = join(&mut world, 0, "u");
        let successor = world.succeed(0);
        world.pass(Duration::from_millis(500));
        world.order_drain(0, Duration::from_millis(100));
        world.pass(Duration::from_millis(200));
        assert_eq!(world.clients[first].close_code, Some(4200));
        join(&mut world, successor, "u");
        world.pass(Duration::from_secs(20));
        assert!(!world.is_alive(0), "it has ended by itself");
        let names: Vec<&str> = world.clients[watcher]
            .events
            .iter()
            .filter_map(|event| event["event"].as_str())
            .filter(|name| name.contains("member"))
            .collect();
        assert_eq!(names, ["pusher_internal:member_added"], "seed {seed}");
    }
}
