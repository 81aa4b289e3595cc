//! How often something may be done for an app, and how often for one of its users. Invariant: what
//! is kept is bounded; beyond, a user is not counted until others have been quiet for a second.

use std::collections::BTreeMap;

use crate::base::now::Now;
use crate::base::quota::Quota;

const USERS_MAX: usize = 20_000;

/// In a second, after a burst of as many; 0 sets no limit.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    pub per_app: u32,
    pub per_user: u32,
}

/// See the file's head.
#[derive(Default)]
pub(super) struct Rates {
    apps: BTreeMap<String, Quota>,
    /// By app and user.
    users: BTreeMap<(String, String), Quota>,
}

impl Rates {
    /// Counts so many for this app, and one for each of these users, or says whose rate it is too much
    /// for; then nothing is counted. More than an app may do in a second counts as just that, and of
    /// none its rate is not asked.
    pub fn take(
        &mut self,
        (app_id, count): (&str, usize),
        users: &[String],
        allowed: Allowed,
        now: Now,
    ) -> Result<(), String> {
        let is_for_app = allowed.per_app > 0 && count > 0;
        if is_for_app {
            let fresh = || Quota::new(allowed.per_app, now.moment);
            let app = self.apps.entry(app_id.to_string()).or_insert_with(fresh);
            if !app.has(count, now.moment) {
                return Err("this app".to_string());
            }
        }
        if allowed.per_user > 0 {
            self.take_users(app_id, users, allowed.per_user, now)?;
        }
        if let Some(app) = self.apps.get_mut(app_id).filter(|_| is_for_app) {
            app.take_many(count);
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

    const ALLOWED: Allowed = Allowed {
        per_app: 3,
        per_user: 1,
    };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|it| it.to_string()).collect()
    }

    #[test]
    fn an_app_and_each_user_have_their_own_rate_and_who_is_refused_spends_nothing() {
        let (mut rates, mut now) = (Rates::default(), Now::default());
        let mut take =
            |app: &str, users: &[&str], now| rates.take((app, 1), &names(users), ALLOWED, now);
        assert_eq!(take("a", &["u"], now), Ok(()));
        assert_eq!(take("a", &["v", "u"], now), Err("the user u".into()));
        assert_eq!(take("a", &["v"], now), Ok(()), "v was not counted");
        assert_eq!(take("b", &["u"], now), Ok(()), "of another app");
        assert_eq!(take("a", &[], now), Ok(()));
        assert_eq!(take("a", &[], now), Err("this app".into()));
        now.moment = now.moment + Duration::from_secs(1);
        assert_eq!(take("a", &["u"], now), Ok(()));
    }

    #[test]
    fn what_is_more_than_a_second_s_worth_is_let_through_after_a_second_of_nothing() {
        let (mut rates, mut now) = (Rates::default(), Now::default());
        let mut take = |count, now| rates.take(("a", count), &[], ALLOWED, now);
        assert_eq!(take(1, now), Ok(()));
        assert_eq!(take(100, now), Err("this app".into()));
        now.moment = now.moment + Duration::from_secs(1);
        assert_eq!(take(100, now), Ok(()));
        assert_eq!(take(1, now), Err("this app".into()));
    }
}
