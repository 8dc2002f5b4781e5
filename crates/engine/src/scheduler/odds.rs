//! Whether somebody will want what is made ahead of need, by whether somebody did.

/// How many were made ahead, and how many of them somebody took. Begins with some trust, so that it is tried; forgets
/// what is old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    made: u8,
    taken: u8,
}

/// So many count; then all of them count half.
const MOST: u8 = 64;

impl Odds {
    pub(super) fn new() -> Self {
        Self { made: 4, taken: 1 }
    }

    /// One was made ahead.
    pub(super) fn made(&mut self) {
        if self.made >= MOST {
            (self.made, self.taken) = (self.made / 2, self.taken / 2);
        }
        self.made += 1;
    }

    /// Somebody took one that was made ahead.
    pub(super) fn taken(&mut self) {
        self.taken = (self.taken + 1).min(self.made);
    }

    /// Somebody would have taken one if there had been any.
    pub(super) fn missed(&mut self) {
        self.made();
        self.taken();
    }

    /// The share of those made ahead that somebody takes.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.taken) / f64::from(self.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_nobody_takes_is_soon_not_made_and_what_is_missed_is_made_again() {
        let mut odds = Odds::new();
        assert!(odds.share() >= 0.25);
        for _ in 0..12 {
            odds.made();
        }
        assert!(odds.share() < 1.0 / 15.0);
        for _ in 0..1000 {
            odds.made();
        }
        assert!(odds.share() < 0.01, "{odds:?}");
        for _ in 0..20 {
            odds.missed();
        }
        assert!(odds.share() > 0.25, "{odds:?}");
    }

    proptest! {
        #[test]
        fn it_is_a_share_whatever_happens(steps in proptest::collection::vec(0..3, 0..500)) {
            let mut odds = Odds::new();
            for step in steps {
                match step {
                    0 => odds.made(),
                    1 => odds.taken(),
                    _ => odds.missed(),
                }
                prop_assert!((0.0..=1.0).contains(&odds.share()), "{odds:?}");
            }
        }
    }
}
