//! What callers may have of the account: the share that a function has for itself or the pool of all others, a rate of
//! calls, and a pace at which a function may grow.
//!
//! - A function with a reservation has so many callers at most, and they come out of the account's limit whether or not there
//!   are any. All others share what is left, the pool.
//! - What is provisioned for a function without a reservation is taken out of the pool in the same way, but is no upper
//!   limit: its further callers take from the pool.
//! - Calls are counted by the second, as many for each unit of concurrency as the options say: of each function with a
//!   reservation, and, if that is asked for, of all others together.
//!
//! Everything is kept as sums: a caller that comes or goes costs a few additions, however many functions there are.

use super::rate::{Bucket, Rate};
use super::slab::Slab;
use super::{FunctionId, Limit, Moment, SECOND};
use crate::EngineOptions;

/// How soon who was refused for want of concurrency may try again.
const AGAIN: u64 = SECOND;
/// Environments that a function may start at once, in seconds of its rate.
const GROWTH_BURST: u32 = 10;

/// One function.
#[derive(Debug)]
struct Share {
    reserved: Option<usize>,
    provisioned: usize,
    callers: usize,
    calls: Bucket,
    starts: Bucket,
    /// Versions that belong to it.
    versions: usize,
}

impl Share {
    /// What of the pool it holds.
    fn pooled(&self) -> usize {
        if self.reserved.is_some() { 0 } else { self.callers.max(self.provisioned) }
    }
}

/// All functions.
#[derive(Debug)]
pub(super) struct Account {
    limit: usize,
    /// Calls in a second for each unit of a reservation, and for each of the pool; 0 is no limit.
    per_reserved: u32,
    per_pooled: u32,
    growth: Rate,
    shares: Slab<Share>,
    /// The sum of all reservations.
    reserved: usize,
    /// What all functions without one hold of the pool.
    pooled: usize,
    calls: Bucket,
}

impl Account {
    pub(super) fn new(options: &EngineOptions) -> Self {
        let starts = options.function_starts_per_second.max(1);
        let mut account = Self {
            limit: options.concurrency,
            per_reserved: options.calls_per_second,
            per_pooled: options.account_calls_per_second,
            growth: Rate {
                per_second: f64::from(starts),
                burst: f64::from(starts.saturating_mul(GROWTH_BURST)),
            },
            shares: Slab::new(),
            reserved: 0,
            pooled: 0,
            calls: Bucket::empty(Moment(0)),
        };
        account.calls = Bucket::full(rate(account.per_pooled, account.limit), Moment(0));
        account
    }

    pub(super) fn add(&mut self, now: Moment) -> FunctionId {
        FunctionId(self.shares.insert(Share {
            reserved: None,
            provisioned: 0,
            callers: 0,
            calls: Bucket::empty(now),
            starts: Bucket::full(self.growth, now),
            versions: 0,
        }))
    }

    pub(super) fn has_provisioned(&self, function: FunctionId) -> bool {
        self.shares.get(function.0).is_some_and(|share| share.provisioned > 0)
    }

    pub(super) fn knows(&self, function: FunctionId) -> bool {
        self.shares.get(function.0).is_some()
    }

    /// A version of the function is known.
    pub(super) fn join(&mut self, function: FunctionId) {
        if let Some(share) = self.shares.get_mut(function.0) {
            share.versions += 1;
        }
    }

    /// A version of the function is forgotten.
    pub(super) fn part(&mut self, function: FunctionId) {
        if let Some(share) = self.shares.get_mut(function.0) {
            share.versions -= 1;
        }
        self.tidy(function);
    }

    /// Forgets a function that has nothing.
    fn tidy(&mut self, function: FunctionId) {
        let is_bare =
            |share: &Share| share.versions == 0 && share.reserved.is_none() && share.provisioned == 0;
        if self.shares.get(function.0).is_some_and(is_bare) {
            self.shares.remove(function.0);
        }
    }

    /// Gives a function a reservation, or takes it away. Callers that it has already keep what they have.
    pub(super) fn reserve(&mut self, function: FunctionId, reserved: Option<usize>, now: Moment) {
        let rate = rate(self.per_reserved, reserved.unwrap_or(0));
        let Some(share) = self.shares.get_mut(function.0) else { return };
        if share.reserved == reserved {
            return self.tidy(function);
        }
        self.pooled -= share.pooled();
        self.reserved = self.reserved - share.reserved.unwrap_or(0) + reserved.unwrap_or(0);
        share.reserved = reserved;
        share.calls = Bucket::full(rate, now);
        self.pooled += share.pooled();
        self.tidy(function);
    }

    /// One of the function's versions has so much provisioned instead of what it had before.
    pub(super) fn provision(&mut self, function: FunctionId, before: usize, now: usize) {
        let Some(share) = self.shares.get_mut(function.0) else { return };
        self.pooled -= share.pooled();
        share.provisioned = share.provisioned - before + now;
        self.pooled += share.pooled();
        self.tidy(function);
    }

    fn pool(&self) -> usize {
        self.limit.saturating_sub(self.reserved)
    }

    /// Whether one more caller of the function may come in; if so it has made a call, but is not counted yet. Otherwise what is
    /// in its way, and for how many microseconds at least.
    pub(super) fn admit(&mut self, function: FunctionId, now: Moment) -> Result<(), (Limit, u64)> {
        let pool = self.pool();
        let Some(share) = self.shares.get(function.0) else { return Ok(()) };
        let reserved = share.reserved;
        match reserved {
            Some(most) if share.callers >= most => return Err((Limit::Reserved, AGAIN)),
            None if share.callers >= share.provisioned && self.pooled >= pool => {
                return Err((Limit::Concurrency, AGAIN));
            }
            _ => {}
        }
        let per_unit = if reserved.is_some() { self.per_reserved } else { self.per_pooled };
        if per_unit == 0 {
            return Ok(());
        }
        let rate = rate(per_unit, reserved.unwrap_or(pool));
        let calls = match self.shares.get_mut(function.0) {
            Some(share) if reserved.is_some() => &mut share.calls,
            _ => &mut self.calls,
        };
        if calls.has_one(rate, now) {
            calls.take();
            return Ok(());
        }
        let limit = if reserved.is_some() { Limit::ReservedRate } else { Limit::Rate };
        Err((limit, calls.next(rate).since(now)))
    }

    /// A caller is in.
    pub(super) fn enter(&mut self, function: FunctionId) {
        let Some(share) = self.shares.get_mut(function.0) else { return };
        let before = share.pooled();
        share.callers += 1;
        self.pooled += share.pooled() - before;
    }

    /// A caller is out again.
    pub(super) fn leave(&mut self, function: FunctionId) {
        let Some(share) = self.shares.get_mut(function.0) else { return };
        let before = share.pooled();
        share.callers -= 1;
        self.pooled -= before - share.pooled();
    }

    /// When the function may start one more environment; `None` is at once.
    pub(super) fn may_grow(&mut self, function: FunctionId, now: Moment) -> Option<Moment> {
        let share = self.shares.get_mut(function.0)?;
        if share.starts.has_one(self.growth, now) { None } else { Some(share.starts.next(self.growth)) }
    }

    /// For how many microseconds at least the function may not start as many as `count` more.
    pub(super) fn must_not_grow_by(
        &mut self,
        function: FunctionId,
        count: usize,
        now: Moment,
    ) -> Option<u64> {
        let share = self.shares.get_mut(function.0)?;
        if share.starts.has(count as f64, self.growth, now) {
            return None;
        }
        Some(share.starts.next(self.growth).since(now).max(1))
    }

    /// The function starts one.
    pub(super) fn grow(&mut self, function: FunctionId) {
        if let Some(share) = self.shares.get_mut(function.0) {
            share.starts.take();
        }
    }

    /// What a test counts for itself.
    #[cfg(test)]
    pub(super) fn sums(&self) -> (usize, usize, usize) {
        (self.reserved, self.pooled, self.shares.len())
    }
}

fn rate(per_unit: u32, concurrency: usize) -> Rate {
    // A limit in front of nothing would divide by it.
    let calls = (concurrency.max(1) as f64) * f64::from(per_unit.max(1));
    Rate { per_second: calls, burst: calls }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(concurrency: usize, calls_per_second: u32) -> Account {
        Account::new(&EngineOptions {
            concurrency,
            calls_per_second,
            account_calls_per_second: calls_per_second,
            function_starts_per_second: 2,
            ..EngineOptions::default()
        })
    }

    fn come(account: &mut Account, function: FunctionId) -> Result<(), Limit> {
        account.admit(function, Moment(0)).map_err(|(limit, _)| limit)?;
        account.enter(function);
        Ok(())
    }

    fn functions<const N: usize>(account: &mut Account) -> [FunctionId; N] {
        [(); N].map(|()| {
            let function = account.add(Moment(0));
            account.join(function);
            function
        })
    }

    #[test]
    fn a_reservation_is_a_share_and_a_limit() {
        let mut account = account(5, 0);
        let [mine, other] = functions(&mut account);
        account.reserve(mine, Some(2), Moment(0));
        for _ in 0..3 {
            assert_eq!(come(&mut account, other), Ok(()));
        }
        assert_eq!(come(&mut account, other), Err(Limit::Concurrency), "the pool is three");
        assert_eq!(come(&mut account, mine), Ok(()));
        assert_eq!(come(&mut account, mine), Ok(()));
        assert_eq!(come(&mut account, mine), Err(Limit::Reserved));
        account.leave(mine);
        assert_eq!(
            come(&mut account, other),
            Err(Limit::Concurrency),
            "what is free of a share is nobody else's"
        );
        account.reserve(mine, Some(0), Moment(0));
        assert_eq!(come(&mut account, mine), Err(Limit::Reserved), "off");
        assert_eq!(come(&mut account, other), Ok(()));
        account.reserve(mine, None, Moment(0));
        assert_eq!(come(&mut account, mine), Err(Limit::Concurrency), "four others and its own one are five");
    }

    #[test]
    fn what_is_provisioned_is_kept_free_and_is_no_limit() {
        let mut account = account(5, 0);
        let [mine, other] = functions(&mut account);
        account.provision(mine, 0, 2);
        for _ in 0..3 {
            assert_eq!(come(&mut account, other), Ok(()));
        }
        assert_eq!(come(&mut account, other), Err(Limit::Concurrency));
        assert_eq!((come(&mut account, mine), come(&mut account, mine)), (Ok(()), Ok(())));
        assert_eq!(come(&mut account, mine), Err(Limit::Concurrency));
        account.leave(other);
        assert_eq!(come(&mut account, mine), Ok(()), "spills over into the pool");
    }

    #[test]
    fn calls_are_counted_by_the_second() {
        let mut account = account(3, 10);
        let [mine, other] = functions(&mut account);
        account.reserve(mine, Some(1), Moment(0));
        let mut calls = |function, now: u64| {
            let mut made = 0;
            loop {
                match account.admit(function, Moment(now)) {
                    Ok(()) => made += 1,
                    Err((limit, again)) => return (made, limit, again),
                }
            }
        };
        let (made, limit, again) = calls(mine, 0);
        assert_eq!((made, limit), (10, Limit::ReservedRate));
        assert!((100_000..100_010).contains(&again), "{again}");
        // The pool of two had three units' worth of calls before one was reserved, and gets no more than its own.
        assert_eq!(calls(other, 1_000_000).1, Limit::Rate);
        assert_eq!((calls(mine, 2_000_000).0, calls(other, 2_000_000).0), (10, 20));
    }

    #[test]
    fn growth_has_a_burst_and_a_rate() {
        let mut account = account(3, 0);
        let [mine, other] = functions(&mut account);
        for _ in 0..20 {
            assert_eq!(account.may_grow(mine, Moment(0)), None);
            account.grow(mine);
        }
        let again = account.may_grow(mine, Moment(0)).unwrap();
        assert!((500_000..500_010).contains(&again.0), "{again:?}");
        assert_eq!((account.may_grow(other, Moment(0)), account.may_grow(mine, again)), (None, None));
        // Nothing accrues beyond the burst.
        let much_later = Moment(3600 * SECOND);
        let grown = std::iter::from_fn(|| match account.may_grow(mine, much_later) {
            None => {
                account.grow(mine);
                Some(())
            }
            Some(_) => None,
        });
        assert_eq!(grown.count(), 20);
    }

    #[test]
    fn a_function_without_anything_is_forgotten() {
        let mut account = account(3, 0);
        let [mine] = functions(&mut account);
        account.reserve(mine, Some(1), Moment(0));
        account.part(mine);
        assert!(account.knows(mine));
        account.reserve(mine, None, Moment(0));
        assert!(!account.knows(mine));
        assert_eq!(account.sums(), (0, 0, 0));
    }

    proptest! {
        /// The sums are what counting anew gives, no function passes its share, and all together never the account's limit while
        /// reservations stay below it.
        #[test]
        fn sums_hold_whatever_happens(
            steps in prop::collection::vec((0usize..4, 0u8..8, 0usize..5), 1..300),
        ) {
            let mut account = account(20, 0);
            let ids: [FunctionId; 4] = functions(&mut account);
            let mut model = [(None::<usize>, 0usize, 0usize); 4];
            for (which, step, number) in steps {
                let (reserved, provisioned, callers) = &mut model[which];
                match step {
                    0 => {
                        *reserved = Some(number);
                        account.reserve(ids[which], *reserved, Moment(0));
                    }
                    1 => {
                        *reserved = None;
                        account.reserve(ids[which], None, Moment(0));
                    }
                    2 => {
                        account.provision(ids[which], *provisioned, number);
                        *provisioned = number;
                    }
                    3..=5 => {
                        let before = *callers;
                        if come(&mut account, ids[which]).is_ok() {
                            *callers += 1;
                            prop_assert!(reserved.is_none_or(|most| before < most));
                        } else {
                            prop_assert!(reserved.is_some_and(|most| before >= most) || before >= *provisioned);
                        }
                    }
                    _ if *callers > 0 => {
                        *callers -= 1;
                        account.leave(ids[which]);
                    }
                    _ => {}
                }
                let all_reserved = model.iter().filter_map(|share| share.0).sum::<usize>();
                let pooled = model.iter().filter(|share| share.0.is_none()).map(|share| share.1.max(share.2)).sum::<usize>();
                prop_assert_eq!(account.sums(), (all_reserved, pooled, 4));
            }
        }
    }
}
