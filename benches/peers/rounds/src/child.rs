//! A contender's process, from both sides: lines of JSON on its standard output, and an empty line on its standard input for each round.
//!
//! A process stays alive for all rounds and waits while the others take their turns, so that an engine loads and compiles once. What it
//! computes is not known here. Read `lib.rs` for who starts it.

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

/// What a contender says once it has loaded and computed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The engine's version, and what it runs on, in its own words.
    pub what: String,
    /// The outputs that are compared.
    pub outputs: Vec<Vec<f32>>,
}

/// A line of a contender.
#[derive(Serialize, Deserialize)]
enum Line {
    Hello(Hello),
    Rates(Vec<f64>),
    Failed(String),
}

fn say(line: &Line) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    Ok(out.flush()?)
}

/// The contender's side: does `work`, which ends in [`answer`], and tells the parent of its error.
pub fn contend(work: impl FnOnce() -> Result<()>) -> Result<()> {
    // In one line, and without the backtrace that `main` would print.
    work().or_else(|error| say(&Line::Failed(format!("{error:#}"))))
}

/// Says hello, and answers each round with the rates that `round` returns, until standard input ends.
pub fn answer(hello: Hello, mut round: impl FnMut() -> Result<Vec<f64>>) -> Result<()> {
    say(&Line::Hello(hello))?;
    for line in stdin().lock().lines() {
        line?;
        say(&Line::Rates(round()?))?;
    }
    Ok(())
}

/// The parent's side. Dropping it ends the process.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The last line that the process wrote to its standard error, which tells of a crash.
    last_words: Option<JoinHandle<Option<String>>>,
}

impl Child {
    /// Starts a process and waits until it has said hello.
    pub fn start(mut command: Command) -> Result<(Hello, Child)> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else { bail!("a process without pipes") };
        let last_words = std::thread::spawn(move || BufReader::new(errors).lines().map_while(Result::ok).last());
        let mut child = Child { process, input, output: BufReader::new(output), last_words: Some(last_words) };
        match child.line()? {
            Line::Hello(hello) => Ok((hello, child)),
            Line::Rates(_) => Err(anyhow!("rates before the first round")),
            Line::Failed(error) => Err(anyhow!(error)),
        }
    }

    /// Lets the process compute one round; returns its rates.
    pub fn round(&mut self) -> Result<Vec<f64>> {
        writeln!(self.input).context("the process has ended")?;
        match self.line()? {
            Line::Rates(rates) => Ok(rates),
            Line::Hello(_) => Err(anyhow!("a second hello")),
            Line::Failed(error) => Err(anyhow!(error)),
        }
    }

    /// The next line that is one of ours: libraries may print lines of their own.
    fn line(&mut self) -> Result<Line> {
        let mut text = String::new();
        while self.output.read_line(&mut text)? > 0 {
            if let Ok(line) = serde_json::from_str(&text) {
                return Ok(line);
            }
            text.clear();
        }
        let status = self.process.wait()?;
        let last_words = self.last_words.take().and_then(|reader| reader.join().ok()).flatten();
        bail!("the process ended with {status}: {}", last_words.unwrap_or_default())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
