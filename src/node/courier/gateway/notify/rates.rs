//! How often an app may notify, and how often one user may be notified. Invariant: what is kept is
//! bounded; beyond, a user is not counted until others have been quiet for a second.

use std::collections::BTreeMap;

use crate::base::limits::Limits;
use crate::base::now::Now;
use crate::base::quota::Quota;

const USERS_MAX: usize = 20_000;

/// See the file's head.
#[derive(Default)]
pub(super) struct Rates {
    apps: BTreeMap<String, Quota>,
    /// By app and user.
    users: BTreeMap<(String, String), Quota>,
}

impl Rates {
    /// Counts a notification of this app for these users, or says whose rate it is too much for; then
    /// nothing is counted.
    pub fn take(
        &mut self,
        app_id: &str,
        users: &[String],
        limits: &Limits,
        now: Now,
    ) -> Result<(), String> {
        let per_second = limits.notifications_per_second;
        if per_second > 0 {
            let fresh = || Quota::new(per_second, now.moment);
            let app = self.apps.entry(app_id.to_string()).or_insert_with(fresh);
            if !app.is_ready(now.moment) {
                return Err("this app".to_string());
            }
        }
        let per_user = limits.notifications_per_user_per_second;
        if per_user > 0 {
            self.take_users(app_id, users, per_user, now)?;
        }
        if let Some(app) = self.apps.get_mut(app_id).filter(|_| per_second > 0) {
            app.take(now.moment);
        }
        Ok(())
    }

    fn take_users(
        &mut self,
        app_id: &str,
        users: &[String],
        per_user: u32,
        now: Now,
    ) -> Result<(), String> {
        let key = |user: &String| (app_id.to_string(), user.clone());
        let spent = |user: &&String| {
            let quota = self.users.get_mut(&key(user));
            quota.is_some_and(|quota| !quota.is_ready(now.moment))
        };
        if let Some(user) = users.iter().find(spent) {
            return Err(format!("the user {user}"));
        }
        if self.users.len() + users.len() > USERS_MAX {
            self.users.retain(|_, quota| !quota.is_full(now.moment));
        }
        for user in users {
            let room = self.users.len() < USERS_MAX;
            if let Some(quota) = self.users.get_mut(&key(user)) {
                quota.take(now.moment);
            } else if room {
                let mut quota = Quota::new(per_user, now.moment);
                quota.take(now.moment);
                self.users.insert(key(user), quota);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_app_and_each_user_have_their_own_rate_and_who_is_refused_spends_nothing() {
        let limits = Limits {
            notifications_per_second: 3,
            notifications_per_user_per_second: 1,
            ..Limits::default()
        };
        let (mut rates, mut now) = (Rates::default(), Now::default());
        let users = |names: &[&str]| names.iter().map(|it| it.to_string()).collect::<Vec<_>>();
        let mut take =
            |app: &str, names: &[&str], now| rates.take(app, &users(names), &limits, now);
        assert_eq!(take("a", &["u"], now), Ok(()));
        assert_eq!(take("a", &["v", "u"], now), Err("the user u".into()));
        assert_eq!(take("a", &["v"], now), Ok(()), "v was not counted");
        assert_eq!(take("b", &["u"], now), Ok(()), "of another app");
        assert_eq!(take("a", &[], now), Ok(()));
        assert_eq!(take("a", &[], now), Err("this app".into()));
        now.moment = now.moment + Duration::from_secs(1);
        assert_eq!(take("a", &["u"], now), Ok(()));
    }
}
