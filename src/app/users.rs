//! Signed-in users: which user a connection acts for, and what it is told of others. A user is
//! reached by a channel of his own, to which a connection subscribes by signing in; so events,
//! counting and healing are those of any channel.

use std::collections::BTreeSet;

use crate::app::application::{Cx, Message, Unavailable};
use crate::app::client::{self, Client};
use crate::app::gateway;
use crate::base::close::Close;
use crate::base::ids::ConnId;
use crate::base::names::{ChannelKey, is_name, user_of};
use crate::base::quota::Quota;
use crate::base::uuid::is_lower_uuid;
use crate::realtime::hub::{NotSubscribed, Presence};
use crate::realtime::watchlists::Changes;
use crate::wire::pusher::{self, SignIn, UserData};
use crate::wire::sign::user_text;

/// Acknowledgements of one connection in a second; each makes the courier write.
const ACKNOWLEDGEMENTS: u32 = 50;
/// After so many sign-ins without success the connection is closed.
const FAILURES_MAX: u32 = 3;

/// Whom a connection signed in as.
pub struct User {
    id: String,
    /// JSON.
    user_info: String,
    acknowledgements: Quota,
    /// Until the switchboard has counted him.
    asked: Option<Asked>,
}

/// What success has to tell.
struct Asked {
    user_data: String,
    watchlist: Vec<ChannelKey>,
    /// The watchlist was longer than it may be.
    cut: bool,
}

impl User {
    pub fn is(&self, user_id: &str) -> bool {
        self.asked.is_none() && self.id == user_id
    }

    /// As which he is in presence channels, unless the client says otherwise.
    pub fn presence(&self) -> Presence {
        Presence {
            user_id: self.id.clone(),
            user_info: self.user_info.clone(),
        }
    }
}

impl Client {
    pub(super) fn sign_in(&mut self, conn: ConnId, signin: &SignIn, cx: &mut Cx<'_>) {
        let Err(text) = self.try_sign_in(conn, signin, cx) else {
            return;
        };
        self.failed_signins += 1;
        if self.failed_signins >= FAILURES_MAX {
            let reason = Close::Unauthorised("Too many failed sign-ins");
            return client::close(conn, reason, self.protocol(), cx);
        }
        self.complain(conn, Some(4009), &text, cx);
    }

    fn try_sign_in(
        &mut self,
        conn: ConnId,
        signin: &SignIn,
        cx: &mut Cx<'_>,
    ) -> Result<(), String> {
        let SignIn { auth, user_data } = signin;
        let bytes_max = cx.limits.user_data_bytes;
        if user_data.len() > bytes_max {
            return Err(format!("user_data is longer than {bytes_max} bytes"));
        }
        let text = user_text(&self.socket_id().to_string(), user_data);
        if !self.is_signed(conn, (auth, &text), "pusher:signin", cx) {
            return Err("Invalid signature for this socket, user and key".to_owned());
        }
        let data = pusher::parse_user_data(user_data);
        let id_max = cx.limits.user_id_bytes;
        let Some(data) = data.filter(|data| is_name(&data.id, id_max)) else {
            return Err(format!(
                "user_data must be a JSON string with an id of 1 to {id_max} letters, digits and _-=@,.;"
            ));
        };
        match &self.user {
            Some(user) if user.id != data.id => Err("Already signed in as another user".to_owned()),
            Some(user) => {
                if user.asked.is_none() {
                    let success = pusher::signin_success(user_data);
                    cx.outlet.send(conn, Message::Text(&success));
                }
                Ok(())
            }
            None => self.ask(conn, data, user_data, cx),
        }
    }

    fn ask(
        &mut self,
        conn: ConnId,
        data: UserData,
        user_data: &str,
        cx: &mut Cx<'_>,
    ) -> Result<(), String> {
        let app_id = &self.app.id;
        let key = ChannelKey::of_user(app_id, &data.id);
        if let Err(NotSubscribed::TooMany) = cx.subscribe(conn, &key, None) {
            return Err("The connection has too many subscriptions to sign in".to_owned());
        }
        let mut seen = BTreeSet::new();
        let mut watchlist = data.watchlist;
        watchlist.retain(|id| {
            let is_id = is_name(id, cx.limits.user_id_bytes);
            self.app.watchlists && is_id && seen.insert(id.clone())
        });
        let cut = watchlist.len() > cx.limits.watchlist_users;
        watchlist.truncate(cx.limits.watchlist_users);
        let watched = watchlist.iter();
        let watched = watched.map(|id| ChannelKey::of_user(app_id, id));
        self.user = Some(Box::new(User {
            id: data.id,
            user_info: data.user_info,
            acknowledgements: Quota::new(ACKNOWLEDGEMENTS, cx.now.moment),
            asked: Some(Asked {
                user_data: user_data.to_owned(),
                watchlist: watched.collect(),
                cut,
            }),
        }));
        Ok(())
    }

    /// The switchboard counts the connection among its user's.
    pub fn signed_in(&mut self, conn: ConnId, cx: &mut Cx<'_>) {
        let Some(asked) = self.user.as_mut().and_then(|user| user.asked.take()) else {
            return;
        };
        let success = pusher::signin_success(&asked.user_data);
        cx.outlet.send(conn, Message::Text(&success));
        if asked.cut {
            let text = format!(
                "Watchlist limit: only {} users are watched",
                cx.limits.watchlist_users
            );
            self.complain(conn, Some(4302), &text, cx);
        }
        if !asked.watchlist.is_empty() {
            let known = cx.watch(conn, asked.watchlist);
            tell_changes(conn, &known, cx);
        }
    }
}

impl Client {
    /// The user has seen a notification; whether it was his own is for whoever keeps it.
    pub(super) fn acknowledge(&mut self, conn: ConnId, id: &str, cx: &mut Cx<'_>) {
        let user = self.user.as_mut().filter(|user| user.asked.is_none());
        let Some(user) = user else {
            let text = "Only a user who has signed in can acknowledge a notification";
            return self.complain(conn, Some(4009), text, cx);
        };
        let refused = if !is_lower_uuid(id) {
            Some("That is no id of a notification")
        } else if !user.acknowledgements.take(cx.now.moment) {
            Some("Too many acknowledgements; try again")
        } else {
            let call = gateway::acknowledgement(&self.app.id, id, &user.id);
            let sent = cx.outlet.call(call.as_call());
            sent.err()
                .map(|Unavailable| "The acknowledgement could not be passed on; try again")
        };
        if let Some(text) = refused {
            self.complain(conn, None, text, cx);
        }
    }
}

/// Tells a connection who of its watchlist came and who went.
pub fn tell_changes(conn: ConnId, changes: &Changes, cx: &mut Cx<'_>) {
    if changes.is_empty() {
        return;
    }
    fn ids(keys: &[ChannelKey]) -> Vec<&str> {
        keys.iter()
            .filter_map(|key| user_of(key.channel()))
            .collect()
    }
    let text = pusher::watchlist_events(&ids(&changes.online), &ids(&changes.offline));
    cx.outlet.send(conn, Message::Text(&text));
}
