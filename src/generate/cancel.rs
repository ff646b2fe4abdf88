//! Cancelling: a flag that another thread sets, and that a generation looks at between its steps.
//!
//! It deliberately knows no engine. Read `tokens.rs` for when it is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks generations to stop. Clones ask together.
///
/// ```
/// let cancel = fanfold::generate::Cancel::default();
/// let other = cancel.clone();
/// std::thread::spawn(move || other.cancel()).join().unwrap();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    /// Flags of others that cancel this one, too.
    others: Vec<Arc<AtomicBool>>,
}

impl Cancel {
    /// Asks. A generation ends before its next step, with [`FinishReason::Cancelled`](crate::text::FinishReason::Cancelled).
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        std::iter::once(&self.own).chain(&self.others).any(|flag| flag.load(Ordering::Relaxed))
    }

    /// A new handle, cancelled also when this one or `other` is. Cancelling it cancels neither of them.
    pub(super) fn or(&self, other: &Cancel) -> Cancel {
        let flags = [self, other].into_iter().flat_map(|of| of.others.iter().chain([&of.own]));
        Cancel { own: Arc::default(), others: flags.cloned().collect() }
    }
}

/// A flag that is kept elsewhere, such as the one that a handler of Ctrl-C sets.
impl From<Arc<AtomicBool>> for Cancel {
    fn from(flag: Arc<AtomicBool>) -> Cancel {
        Cancel { own: flag, others: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_of_two_cancels_what_is_made_of_both_and_is_not_cancelled_by_it() {
        let [a, b, c] = [(); 3].map(|()| Cancel::default());
        let (ab, abc) = (a.or(&b), a.or(&b).or(&c));
        abc.cancel();
        assert!([&a, &b, &c, &ab].iter().all(|of| !of.is_cancelled()));
        let abc = ab.or(&c);
        b.cancel();
        assert!(ab.is_cancelled() && abc.is_cancelled() && !a.is_cancelled() && !c.is_cancelled());
    }
}
