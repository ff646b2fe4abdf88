//! Rounds of several contenders that take turns: each is a child process, which says what it computes before it is timed.
//!
//! It deliberately does not know what a contender computes, only its outputs and its rates, which are larger where it is faster. Read
//! `child.rs` for the processes, `agree.rs` for how outputs are compared, and `table.rs` for what is printed.

mod agree;
mod child;
mod table;

pub use agree::Agreement;
pub use child::{Hello, answer, contend};
pub use table::Outcome;

use anyhow::{Context, Result, bail};
use child::Child;
use std::process::Command;

/// A process that may take part.
pub struct Contender {
    /// Its name in the table.
    pub name: String,
    /// How it is started. The process calls [`contend`] and [`answer`].
    pub command: Command,
    /// How far its outputs may be from those of the first contender, as [`Agreement::error`] counts it.
    pub tolerance: f64,
}

/// A contender that took part.
pub struct Racer {
    pub name: String,
    /// The engine's version, and what it ran on, in its own words.
    pub what: String,
    /// How its outputs agree with those of the first contender.
    pub agreement: Agreement,
    /// Its rates: per round, one for each measure.
    pub rounds: Vec<Vec<f64>>,
}

/// Starts all contenders, compares their outputs with those of the first, and then times them in turn.
///
/// `measures` names the rates, in the order in which a process answers them. Whether the outputs are scores, of which the largest is
/// chosen, is `choices`. A contender that cannot be started or fails before it is timed is left out and named. Errors when the first
/// contender is left out, when outputs do not agree, and when a process fails while it is timed.
pub fn race(contenders: Vec<Contender>, measures: &[String], rounds: usize, choices: bool) -> Result<Outcome> {
    let (mut racers, mut children) = (Vec::<Racer>::new(), Vec::new());
    let mut left_out = Vec::new();
    let mut expected: Option<Vec<Vec<f32>>> = None;
    for Contender { name, command, tolerance } in contenders {
        eprintln!("{name}: starts");
        let (hello, child) = match Child::start(command) {
            Ok(started) => started,
            Err(error) if expected.is_none() => return Err(error.context(name)),
            Err(error) => {
                eprintln!("{name}: left out: {error:#}");
                left_out.push((name, format!("{error:#}")));
                continue;
            }
        };
        let expected = expected.get_or_insert_with(|| hello.outputs.clone());
        let agreement = agree::compare(&hello.outputs, expected, tolerance, choices).context(name.clone())?;
        eprintln!("{name}: {}; {agreement}", hello.what);
        racers.push(Racer { name, what: hello.what, agreement, rounds: Vec::new() });
        children.push(child);
    }
    for round in 1..=rounds {
        for (racer, child) in racers.iter_mut().zip(&mut children) {
            let rates = child.round().with_context(|| racer.name.clone())?;
            if rates.len() != measures.len() {
                bail!("{}: {} rates, expected {}", racer.name, rates.len(), measures.len());
            }
            let said: Vec<String> = rates.iter().map(|rate| format!("{rate:.2}")).collect();
            eprintln!("round {round} of {rounds}: {} {}", racer.name, said.join(", "));
            racer.rounds.push(rates);
        }
    }
    Ok(Outcome { measures: measures.to_vec(), racers, left_out })
}
