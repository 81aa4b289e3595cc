//! How much of each rate has been used, over all workers. Does not know what the rates are for.
//!
//! Invariant: a rate is remembered only while some of it is used up, which is for a second at most.
//! So there are never more than one second's callers have named.

use std::collections::BTreeMap;

use crate::base::now::Moment;
use crate::base::quota::Quota;
use crate::wire::bus::Rate;

/// See the file's head.
#[derive(Default)]
pub struct Spending(BTreeMap<(String, u32), Quota>);

impl Spending {
    /// Takes `count` from each of the rates, or from none if one of them is used up; whether it
    /// did. More than a second's worth at once is taken from a rate that is untouched.
    pub fn spend(&mut self, rates: &[Rate], count: usize, now: Moment) -> bool {
        if rates.is_empty() {
            return true;
        }
        self.0.retain(|_, quota| !quota.is_full(now));
        let known = |rate: &Rate| (rate.name.clone(), rate.per_second);
        for rate in rates {
            let quota = self.0.entry(known(rate));
            let quota = quota.or_insert_with(|| Quota::new(rate.per_second, now));
            if !quota.has(count, now) {
                return false;
            }
        }
        for rate in rates {
            if let Some(quota) = self.0.get_mut(&known(rate)) {
                quota.take_many(count);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rate(name: &str, per_second: u32) -> Rate {
        Rate {
            name: name.into(),
            per_second,
        }
    }

    #[test]
    fn all_rates_allow_it_or_none_is_used() {
        let (app, key) = (rate("a", 3), rate("a/k", 1));
        let both = [app.clone(), key.clone()];
        let mut spending = Spending::default();
        let now = Moment::from_micros(5_000_000);
        assert!(spending.spend(&both, 1, now));
        assert!(!spending.spend(&both, 1, now));
        assert!(spending.spend(std::slice::from_ref(&app), 2, now));
        assert!(!spending.spend(&[app], 1, now));
        assert!(spending.spend(&[rate("b", 1)], 1, now));
        assert!(spending.spend(&[], 1, now));
        assert!(spending.spend(&both, 1, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_rate_that_is_not_used_is_forgotten() {
        let mut spending = Spending::default();
        let now = Moment::from_micros(5_000_000);
        assert!(spending.spend(&[rate("a", 2)], 1, now));
        assert!(spending.spend(&[rate("b", 2)], 1, now + Duration::from_secs(1)));
        assert_eq!(spending.0.len(), 1);
    }
}
