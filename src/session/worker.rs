//! What the thread of one rank does: it loads the rank and then answers one command after the other.
//!
//! It deliberately knows nothing of the other ranks. Read `threads.rs` for who sends commands, and `rank.rs` for what they do.

use super::error::SessionError;
use super::rank::{NotFinite, Rank, RankReport};
use super::shards::{OutputShard, Tensors};
use crate::shape::{Env, Limits};
use crate::weights::Weights;
use crossbeam::channel::{Receiver, Sender};
use std::sync::Arc;

/// What the session asks of a rank.
pub(super) enum Command {
    /// Runs the program. `watch`: looks at what every node makes, and answers [`Answer::Watched`].
    Run { env: Env, inputs: Arc<Tensors>, watch: bool },
    /// Tells what happened so far.
    Report,
}

/// What a rank answers, unless it fails.
pub(super) enum Answer {
    /// Its weights are on the device.
    Loaded,
    /// Its parts of the outputs.
    Outputs(Vec<OutputShard>),
    /// The first value that was not finite, if any.
    Watched(Option<NotFinite>),
    /// What happened so far.
    Report(Box<RankReport>),
}

/// Loads the rank, then answers commands until the session is gone or the rank fails.
///
/// The rank is dropped only after its error was sent, since a driver may hang as it is dropped; dropping it ends the waits of
/// the other ranks for it.
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
        // A session that is gone wants no answer.
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
