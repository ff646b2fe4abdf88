//! The loop of a rank's thread: it loads the rank, then answers one command after the other.
//!
//! It deliberately knows nothing of the other ranks. Read `threads.rs` for who sends commands, and `rank.rs` for what
//! they do.

use super::error::SessionError;
use super::rank::{NotFinite, Rank, RankReport};
use super::shards::{OutputShard, Tensors};
use crate::shape::{Env, Limits};
use crate::weights::Weights;
use crossbeam::channel::{Receiver, Sender};
use std::sync::Arc;

/// A command of the session to a rank.
pub(super) enum Command {
    /// Runs the program. With `watch`, reads back the value of every node and answers [`Answer::Watched`].
    Run { env: Env, inputs: Arc<Tensors>, watch: bool },
    /// Asks for the rank's report.
    Report,
}

/// A rank's answer to a command that succeeded.
pub(super) enum Answer {
    /// The weights are on the device. Sent once, before any command.
    Loaded,
    /// The rank's shards of the outputs.
    Outputs(Vec<OutputShard>),
    /// The first element that was not finite, if any.
    Watched(Option<NotFinite>),
    /// What the rank did so far.
    Report(Box<RankReport>),
}

/// Loads the rank, then answers commands until the session is dropped or the rank fails.
///
/// A failed rank is dropped only after its error was sent, because a driver may hang while the device is dropped.
/// Dropping the rank ends its peers' waits for it.
pub(super) fn work(
    mut rank: Rank,
    limits: &Limits,
    weights: Arc<dyn Weights>,
    loaded: &(dyn Fn(u64) + Sync),
    inbox: &Receiver<Command>,
    outbox: &Sender<Result<Answer, SessionError>>,
) {
    let position = rank.position().clone();
    let mut answer = position.caught(|| {
        rank.load(limits, &weights, loaded)?;
        Ok(Answer::Loaded)
    });
    drop(weights);
    loop {
        let failed = answer.is_err();
        // Sending fails when the session was dropped: end the thread.
        if outbox.send(answer).is_err() || failed {
            return;
        }
        let Ok(command) = inbox.recv() else { return };
        answer = position.caught(|| {
            Ok(match command {
                Command::Report => Answer::Report(Box::new(rank.report())),
                Command::Run { env, inputs, watch: false } => Answer::Outputs(rank.run(&env, &inputs)?),
                Command::Run { env, inputs, watch: true } => Answer::Watched(rank.first_not_finite(&env, &inputs)?),
            })
        });
    }
}
