//! Deadlines that mean *no progress for this long*: a counter that working threads advance, and waits that watch it.
//!
//! A rank that computes, loads or compiles advances the counter that all waits of its session share, so no rank gives
//! up on a peer that is slow but at work. This file deliberately does not know what a thread works on or waits for.
//! Read [`crate::comm::channel`] for a wait between ranks, and [`crate::session`] for who shares a counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest time that a wait sleeps before it reads the counter again.
const SLICE: Duration = Duration::from_millis(100);

/// When a sleep takes this much longer than asked, the process or the whole machine was suspended, and the time does
/// not count.
const STOPPED: Duration = Duration::from_secs(1);

/// A counter of steps done, shared by threads that wait for one another. Clones share the same counter.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    steps: AtomicU64,
    computing: AtomicUsize,
}

impl Progress {
    /// Counts one step, such as an instruction done, a block of bytes loaded or sent, or a GPU submission finished.
    pub fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts as continuous progress until the guard is dropped. For code that waits for nothing and always ends, but
    /// may take longer than a deadline, such as evaluating one op on the host.
    #[doc(hidden)]
    pub fn computing(&self) -> Computing {
        self.0.computing.fetch_add(1, Ordering::Relaxed);
        Computing(self.clone())
    }

    fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    fn is_computing(&self) -> bool {
        self.0.computing.load(Ordering::Relaxed) > 0
    }
}

/// The guard that [`Progress::computing`] returns.
#[derive(Debug)]
#[doc(hidden)]
pub struct Computing(Progress);

impl Drop for Computing {
    fn drop(&mut self) {
        self.0.step();
        self.0.0.computing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One wait, done in slices. The caller loops: sleep for [`Wait::slice`] or receive with that timeout, return if the
/// event came, give up if [`Wait::expired`].
#[derive(Debug)]
#[doc(hidden)]
pub struct Wait {
    progress: Progress,
    deadline: Duration,
    seen: u64,
    /// Time without progress, counted only while this thread was running.
    idle: Duration,
    last: Instant,
}

impl Wait {
    /// A wait that expires when `progress` has not advanced for `deadline`.
    pub fn new(progress: &Progress, deadline: Duration) -> Wait {
        let (progress, last) = (progress.clone(), Instant::now());
        Wait { seen: progress.steps(), progress, deadline, idle: Duration::ZERO, last }
    }

    /// How long to sleep before the next call of [`Wait::expired`].
    pub fn slice(&self) -> Duration {
        (self.deadline / 8).clamp(Duration::from_millis(1), SLICE)
    }

    /// Whether there was no progress for as long as the deadline.
    ///
    /// Time in which this thread did not run does not count, because the other threads may not have run either: a
    /// process that was stopped for a minute, or a laptop that slept, starts its deadline anew. A slice that was
    /// merely late, as on a busy machine, counts as one slice.
    pub fn expired(&mut self) -> bool {
        let (now, steps) = (Instant::now(), self.progress.steps());
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        if steps != self.seen || self.progress.is_computing() || passed > self.slice() + STOPPED {
            (self.seen, self.idle) = (steps, Duration::ZERO);
            return false;
        }
        self.idle += passed.min(self.slice());
        self.idle >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    /// Runs a wait until it expires; returns the time that took.
    fn until_expired(mut wait: Wait) -> Duration {
        let started = Instant::now();
        loop {
            sleep(wait.slice());
            if wait.expired() {
                return started.elapsed();
            }
        }
    }

    #[test]
    fn nothing_moves_and_the_deadline_is_met() {
        let deadline = Duration::from_millis(80);
        let lasted = until_expired(Wait::new(&Progress::default(), deadline));
        assert!(lasted >= deadline && lasted < Duration::from_secs(20), "{lasted:?}");
    }

    #[test]
    fn steps_of_others_put_the_deadline_off() {
        let progress = Progress::default();
        let (deadline, busy) = (Duration::from_millis(200), Duration::from_millis(600));
        std::thread::scope(|scope| {
            let worker = progress.clone();
            scope.spawn(move || {
                let started = Instant::now();
                while started.elapsed() < busy {
                    worker.step();
                    sleep(Duration::from_millis(5));
                }
            });
            let lasted = until_expired(Wait::new(&progress, deadline));
            assert!(lasted >= busy, "{lasted:?}");
        });
    }

    #[test]
    fn who_computes_is_not_given_up() {
        let progress = Progress::default();
        let mut wait = Wait::new(&progress, Duration::from_millis(8));
        let computing = progress.computing();
        for _ in 0..20 {
            sleep(wait.slice());
            assert!(!wait.expired());
        }
        drop(computing);
        until_expired(wait);
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut wait = Wait::new(&Progress::default(), Duration::from_millis(80));
        wait.idle = Duration::from_millis(79);
        wait.last = Instant::now().checked_sub(Duration::from_secs(60)).unwrap_or(wait.last);
        assert!(!wait.expired(), "a minute passed, but not for this process");
        wait.idle = Duration::from_millis(30);
        wait.last = Instant::now().checked_sub(Duration::from_millis(500)).unwrap_or(wait.last);
        assert!(!wait.expired(), "a slice that is late counts once");
        until_expired(wait);
    }
}
