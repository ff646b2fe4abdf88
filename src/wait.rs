//! Deadlines that mean *no progress*: a counter that working threads advance, and waits that look at it.
//!
//! A rank that computes, loads or compiles advances the counter that its session's waits share, so that nobody gives up
//! on a peer that is slow but at work. It deliberately knows neither who works nor what is waited for. Read
//! [`crate::comm::channel`] for a wait between ranks, and [`crate::session`] for who shares a counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest time a wait sleeps before it looks at the counter again.
const SLICE: Duration = Duration::from_millis(100);

/// A slice that took so much longer than it was to take was not slept: the process was stopped, or the machine was.
const STOPPED: Duration = Duration::from_secs(1);

/// How many steps threads have done so far, shared by all that wait for one another. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    steps: AtomicU64,
    computing: AtomicUsize,
}

impl Progress {
    /// Counts one step: an instruction done, bytes loaded, a submission finished.
    pub fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts as progress for as long as the guard lives: for code that computes and waits for nothing, such as the host
    /// evaluation of one op, which may take longer than a deadline and always ends.
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

/// Made by [`Progress::computing`].
#[derive(Debug)]
#[doc(hidden)]
pub struct Computing(Progress);

impl Drop for Computing {
    fn drop(&mut self) {
        self.0.step();
        self.0.0.computing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One wait, done in slices: sleep for [`Wait::slice`], look for what is waited for, then ask [`Wait::expired`].
#[derive(Debug)]
#[doc(hidden)]
pub struct Wait {
    progress: Progress,
    deadline: Duration,
    seen: u64,
    /// How long nothing has moved, as far as this thread was running.
    idle: Duration,
    last: Instant,
}

impl Wait {
    /// A wait that ends when `progress` has not moved for `deadline`.
    pub fn new(progress: &Progress, deadline: Duration) -> Wait {
        let (progress, last) = (progress.clone(), Instant::now());
        Wait { seen: progress.steps(), progress, deadline, idle: Duration::ZERO, last }
    }

    /// How long to sleep before [`Wait::expired`] is asked.
    pub fn slice(&self) -> Duration {
        (self.deadline / 8).clamp(Duration::from_millis(1), SLICE)
    }

    /// Whether there was no progress for as long as the deadline.
    ///
    /// Time in which this thread did not run does not count, since then nobody else may have run either: a process that
    /// was stopped for a minute, or a laptop that slept, begins its deadline anew. A slice that was merely late, as on a
    /// busy machine, counts as one slice.
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

    /// How long a wait lasts, by the clock.
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
