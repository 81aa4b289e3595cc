//! A server of the simulation as far as it has a courier, and the provider that all of them send to.

use std::sync::{Arc, Mutex};

use lineman::base::dice::Dice;
use lineman::base::ids::ConnId;
use lineman::base::limits::Limits;
use lineman::base::now::{Moment, Now};
use lineman::mock::apns::{Apns, ApnsOptions};
use lineman::mock::script::Script;
use lineman::mock::{Kind, Mock};
use lineman::node::Origin;
use lineman::node::courier::Courier;
use lineman::node::mock::{MockNode, MockOptions};
use lineman::push::facts::StoreRequest;
use lineman::wire::courier_bus::{Report, VERSION};

use super::hand::Hand;
use super::sender::courier_options;

/// Of which a life has some; each ends what it does sooner or later.
const RULES: [&str; 12] = [
    "chance=0.05 reset=CANCEL",
    "chance=0.03 close",
    "chance=0.03 silence",
    "chance=0.05 answer=503",
    "chance=0.05 answer=429 retry-after=20",
    "chance=0.05 reset=REFUSED_STREAM",
    "chance=0.03 goaway=Shutdown",
    "chance=0.2 delay=3s",
    "chance=0.03 answer=InternalServerError",
    "nth=1-4 answer=ExpiredProviderToken",
    "token=02* chance=0.3 answer=Unregistered",
    "token=03* chance=0.3 answer=BadDeviceToken",
];
/// Only the first ones leave it open whether the request was acted on.
const UNCLEAR: usize = 3;

/// See the file's head.
pub struct Server {
    pub name: String,
    /// `None`: it is dead.
    pub courier: Option<Hand<Courier>>,
    pub link: ConnId,
    pub master: ConnId,
    pub under_way: Option<StoreRequest>,
    /// Until then the store cannot be reached from here.
    pub outage: Moment,
    /// Until then the courier does not notice anything.
    pub sleep: Moment,
    /// When the next courier begins, in steps.
    pub revived: u64,
    /// Couriers that there were.
    lives: u8,
}

impl Server {
    pub fn new(name: &str) -> Server {
        Server {
            name: name.to_string(),
            courier: None,
            link: ConnId::new(0, 1),
            master: ConnId::new(0, 1),
            under_way: None,
            outage: Moment::default(),
            sleep: Moment::default(),
            revived: 0,
            lives: 0,
        }
    }

    pub fn begin(&mut self, key: &str, dice: &mut Dice, now: Now) {
        self.lives += 1;
        // No two couriers make the same ids.
        let mut seed = [self.lives; 16];
        seed[0] = self.name.as_bytes()[0];
        let limits = Limits {
            notifications_per_user_per_second: 0,
            ..Limits::default()
        };
        let options = courier_options(&self.name, key, limits, dice, seed);
        let mut hand = Hand::new(Courier::new(options));
        hand.now = now;
        self.master = hand.open(Origin::Master);
        self.link = hand.open(Origin::Link);
        let version = VERSION;
        hand.receive(self.link, &Report::Calls { version }.encode());
        self.courier = Some(hand);
        self.sleep = now.moment;
    }

    /// The courier, if it lives and is awake.
    pub fn awake(&mut self, now: Now) -> Option<&mut Hand<Courier>> {
        self.courier.as_mut().filter(|_| self.sleep <= now.moment)
    }
}

/// A mock of APNs that does what some of the rules say; what it tells is kept.
pub fn mock(dice: &mut Dice, is_clear: bool, told: &Arc<Mutex<Vec<String>>>) -> MockNode {
    let mut script = Script::default();
    for rule in &RULES[if is_clear { UNCLEAR } else { 0 }..] {
        if dice.below(3) == 0 {
            script.add_text(Kind::Apns, rule).expect("a rule");
        }
    }
    let told = Arc::clone(told);
    MockNode::new(MockOptions {
        mock: Mock::new(
            Box::new(Apns::new(ApnsOptions::default())),
            script,
            Dice::new([dice.below(256) as u8; 16]),
            true,
        ),
        streams_max: 1 + dice.below(20) as u32,
        start_with_one: true,
        limits: Limits::default(),
        tell: Box::new(move |line| {
            told.lock().expect("nobody died").push(line);
            true
        }),
    })
}
