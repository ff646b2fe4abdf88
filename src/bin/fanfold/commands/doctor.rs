//! `fanfold doctor`: reports what is installed and which adapters there are, and tests whether each computes correctly.
//!
//! Every adapter is tested in a process of its own, so that a driver that crashes ends only its part of the report. The test
//! itself is the library's. Read [`fanfold::proof::selftest`] for it, and `machine/system.rs` for what is installed.

use crate::machine::system::System;
use crate::machine::tuned::{self, Tuned};
use crate::terminal::print::{say, tell};
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::Result;
use fanfold::device::gpu::{GpuOptions, Measured, adapters};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::proof::{Check, checks, selftest};
use fanfold::wait::{Progress, Wait};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "Example, a report to send along with a question:
  fanfold doctor --json > report.json")]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Seconds, about, to test each adapter for
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    seconds: u64,
    /// Do one part, for the doctor itself: `adapters`, or the number of one to test
    #[arg(long, hide = true, value_name = "PART")]
    part: Option<String>,
}

/// The value of `--part` that lists the adapters.
const ADAPTERS: &str = "adapters";

/// How long an adapter's process may go without output beyond the time for its test: a driver compiles before it computes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The whole report, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    system: System,
    adapters: Vec<Adapter>,
    /// What went wrong outside the tests of the adapters.
    problems: Vec<String>,
    advice: Vec<String>,
    passed: bool,
}

/// One adapter, as `fanfold devices --json` describes it, and the results of its test.
#[derive(Serialize)]
struct Adapter {
    #[serde(flatten)]
    info: Value,
    /// What `fanfold tune` measured of it.
    tuned: Vec<Measured>,
    checks: Vec<Check>,
}

pub fn main(args: &Args) -> Result<()> {
    match args.part.as_deref() {
        None => report(args),
        Some(ADAPTERS) => say(serde_json::to_string(&adapters())?),
        Some(index) => test(index, Duration::from_secs(args.seconds)),
    }
}

/// Tests one adapter in this process, and prints a line of JSON per check.
fn test(index: &str, budget: Duration) -> Result<()> {
    let found = adapters();
    let info = index.parse().ok().and_then(|index: usize| found.into_iter().nth(index));
    let choice = DeviceChoice::Gpu(info.ok_or_else(|| usage(format!("--part {index}: there is no such adapter")))?);
    let options = GpuOptions { deadline: Duration::from_secs(10), ..GpuOptions::default() };
    let mut written = Ok(());
    let mut tell = |check: Check| {
        let line = serde_json::to_string(&check).unwrap_or_default();
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| say(line));
    };
    selftest(&|| select::open(&choice, &options), budget, &mut tell);
    written
}

/// Finds out and prints everything. Errors where anything failed.
fn report(args: &Args) -> Result<()> {
    let system = System::find();
    let mut problems = system.problems();
    if !args.json {
        say(system.to_string().trim_end())?;
    }
    let infos = list().unwrap_or_else(|reason| {
        problems.push(format!("the adapters cannot be listed: {reason}"));
        Vec::new()
    });
    if infos.is_empty() {
        problems.push("no adapter was found".to_string());
    }
    let tuned = Tuned::read();
    let mut adapters = Vec::new();
    for (index, info) in infos.into_iter().enumerate() {
        let word = |field: &str| info[field].as_str().unwrap_or_default();
        let (name, measured) = (word("name"), tuned.of(word("name"), word("driver")));
        if !args.json {
            say(format_args!("\n{}\n{}", describe(index, &info), describe_tuned(&measured)))?;
        }
        let bar = progress_bar(checks() as u64, &format!("testing {index}: {{bar:20}} {{pos}}/{{len}} checks"));
        let mut checks = Vec::new();
        for check in examine(index, args.seconds) {
            bar.inc(1);
            if !args.json {
                bar.suspend(|| say(line(&check)))?;
            } else if !check.passed {
                bar.suspend(|| tell(format_args!("{name}: {}", line(&check))));
            }
            checks.push(check);
        }
        bar.finish_and_clear();
        adapters.push(Adapter { info, tuned: measured, checks });
    }
    let failed = adapters.iter().flat_map(|adapter| &adapter.checks).filter(|check| !check.passed).count();
    let advice = system.advice(adapters.is_empty());
    let report = Report { system, adapters, passed: failed == 0 && problems.is_empty(), problems, advice };
    if args.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        let mut text = String::new();
        report.problems.iter().try_for_each(|problem| writeln!(text, "failed  {problem}"))?;
        report.advice.iter().try_for_each(|advice| writeln!(text, "advice  {advice}"))?;
        if !text.is_empty() {
            say(format_args!("\n{}", text.trim_end()))?;
        }
    }
    match report.passed {
        true => Ok(()),
        false => Err(anyhow::anyhow!("{} of what was checked failed", failed + report.problems.len())),
    }
}

/// A check's result as a line of text.
fn line(check: &Check) -> String {
    let verdict = if check.passed { "ok" } else { "failed" };
    format!("  {verdict:7} {}: {} ({:.1} s)", check.name, check.detail, check.seconds)
}

/// The lines that introduce an adapter.
fn describe(index: usize, info: &Value) -> String {
    let word = |field: &str| info[field].as_str().unwrap_or("unknown").to_string();
    let size = |field: &str| {
        info[field].as_u64().map_or("unknown".to_string(), |bytes| bytesize::ByteSize::b(bytes).to_string())
    };
    let features: Vec<&str> = info["features"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let features = if features.is_empty() { "none".to_string() } else { features.join(", ") };
    format!(
        "adapter {index}: {} ({}, {})\n  driver {}; memory {}; largest buffer {}, binding {}\n  features {features}",
        word("name"),
        word("kind"),
        word("backend"),
        word("driver"),
        size("memory"),
        size("max_buffer"),
        size("max_binding")
    )
}

/// The lines that say which kernels an adapter runs: those that were measured to be faster than the first guess.
fn describe_tuned(measured: &[Measured]) -> String {
    if measured.is_empty() {
        return "  not tuned: `fanfold tune` measures which kernels are the fastest".to_string();
    }
    let other = |case: &&Measured| case.fastest() != case.schedules.first();
    let others: Vec<Measured> = measured.iter().filter(other).cloned().collect();
    let count =
        format!("  tuned for {} sizes of ops; for {} a kernel is faster than the guess", measured.len(), others.len());
    if others.is_empty() { count } else { format!("{count}\n{}", tuned::table(&others)) }
}

/// A process of this program that does one part of the report, and the lines that it prints.
struct Part {
    child: Child,
    lines: Receiver<String>,
}

impl Part {
    fn start(args: &[&str]) -> std::io::Result<Part> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["doctor", "--part"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
            });
        }
        Ok(Part { child, lines })
    }

    /// The next line, or `None` when the process has ended. Errors when a line takes longer than `patience`; the process is
    /// ended then.
    fn next(&mut self, patience: Duration) -> Result<Option<String>, String> {
        let mut wait = Wait::new(&Progress::default(), patience);
        loop {
            match self.lines.recv_timeout(wait.slice()) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => {
                    return self.child.wait().map_err(|e| e.to_string()).and_then(ended);
                }
                Err(RecvTimeoutError::Timeout) if !wait.expired() => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Both may fail because the process has just ended, and that is fine.
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return Err("the driver does not come back: its process was ended".to_string());
                }
            }
        }
    }
}

/// Errors where a process that has ended was not successful.
fn ended(status: ExitStatus) -> Result<Option<String>, String> {
    match status.success() {
        true => Ok(None),
        false => Err(format!("the driver ended its process ({status})")),
    }
}

/// The adapters, as a process of its own lists them.
fn list() -> Result<Vec<Value>, String> {
    let mut part = Part::start(&[ADAPTERS]).map_err(|e| e.to_string())?;
    let mut text = String::new();
    while let Some(line) = part.next(PATIENCE)? {
        text += &line;
    }
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

/// The checks of one adapter, one by one as they end. If its driver breaks, the last check says so.
fn examine(index: usize, seconds: u64) -> impl Iterator<Item = Check> {
    let started = Instant::now();
    let patience = Duration::from_secs(seconds) + PATIENCE;
    let broken = move |detail: String| {
        let seconds = started.elapsed().as_secs_f64();
        Some(Check { name: "driver".to_string(), passed: false, detail, seconds })
    };
    let mut part = Part::start(&[&index.to_string(), "--seconds", &seconds.to_string()]).map_err(|e| e.to_string());
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let next = match &mut part {
            Ok(part) => part.next(patience),
            Err(reason) => Err(reason.clone()),
        };
        match next.and_then(|line| line.map(|line| serde_json::from_str(&line).map_err(|e| e.to_string())).transpose())
        {
            Ok(check) => check,
            Err(reason) => {
                over = true;
                broken(reason)
            }
        }
    })
}
