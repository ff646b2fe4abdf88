//! `fanfold demo`: runs the embedded model over several devices, from plan to proof.
//!
//! It is one walk through the other commands, and knows nothing that they do not. Read `plan.rs`, `run.rs` and `verify.rs`.

use crate::arguments::devices::Placing;
use crate::arguments::numbers::limit;
use crate::arguments::target::Target;
use crate::engine::decision::decide;
use crate::engine::load::open;
use crate::engine::models::{open_model, tokenizer};
use crate::engine::proof;
use crate::engine::summary::ended;
use crate::terminal::print::{say, width};
use anyhow::Result;
use fanfold::device::gpu::adapters;
use fanfold::generate::GenerateOptions;
use fanfold::import::Head;
use fanfold::report;
use fanfold::text::{Sampler, Sampling};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
#[command(after_help = "Example, with the shares turned round:
  fanfold demo --devices 0x3 --ratios 1,2,5")]
pub struct Args {
    #[command(flatten)]
    placing: Placing,
    /// Tokens to generate; -1: until the context is full
    #[arg(short = 'n', long = "tokens", default_value_t = 80, value_parser = limit, value_name = "N")]
    tokens: usize,
}

const PROMPT: &str = "ROMEO:\n";

pub fn main(args: &Args) -> Result<()> {
    let mut placing = args.placing.clone();
    // The shares are unequal on purpose: the demo shows that unequal devices can share a model.
    if placing.devices.is_none() && placing.plan.is_none() {
        placing.devices = Some(if adapters().is_empty() { "hostx3" } else { "0x3" }.to_string());
    }
    if placing.ratios.is_empty()
        && placing.plan.is_none()
        && matches!(placing.devices.as_deref(), Some("0x3" | "hostx3"))
    {
        placing.ratios = vec![5.0, 2.0, 1.0];
    }
    let target = Target {
        model: PathBuf::from("demo"),
        context: 256,
        check: false,
        ignore_config: Vec::new(),
        weights: None,
        placing,
    };
    let model = open_model(&target, Head::Default)?;
    let tokenizer = tokenizer(&model)?;
    let decision = decide(&model, &target, true)?;
    say("Devices")?;
    for (rank, choice) in decision.choices.iter().enumerate() {
        say(format_args!("  rank {rank}: {choice}, share {}", decision.plan.ratios[rank]))?;
    }
    say("\nPlan: who holds which part of every layer (a digit is a rank; + where shared)")?;
    say(report::picture(model.graph(), &decision.plan, width()).trim_end())?;
    let token = fanfold::shape::Env { seq: 1, keep: 1, ..*decision.limits };
    say(report::exchanges(&decision.program, &token, width()))?;
    let started = Instant::now();
    let mut engine = open(&model, &decision)?;
    // The first call of each shape compiles kernels, so one of each is run before anything is timed.
    let ids = tokenizer.encode(PROMPT, true)?;
    engine.feed(&ids)?;
    engine.feed(&ids[..1])?;
    engine.reset();
    say(format_args!(
        "loaded and warmed up in {:.1} s\n\nText, streamed from {} shards",
        started.elapsed().as_secs_f64(),
        decision.choices.len()
    ))?;
    let sampler = Sampler::new(Sampling { temperature: 0.7, seed: 1, ..Sampling::default() })?;
    let mut stream = tokenizer.stream_after(&ids, true)?;
    let mut out = std::io::stdout();
    write!(out, "{PROMPT}")?;
    let mut count = 0usize;
    let mut tokens = engine.generate(&ids, sampler, &GenerateOptions::new(args.tokens).ignore_end())?;
    for token in tokens.by_ref() {
        count += 1;
        if let Some(piece) = stream.push(token?)? {
            write!(out, "{piece}")?;
            out.flush()?;
        }
    }
    write!(out, "{}", stream.finish()?.unwrap_or_default())?;
    let reason = tokens.finish_reason().map(|reason| ended(reason, count, &decision, &tokenizer)).unwrap_or_default();
    let rate = engine.pace().decode.tokens_per_second();
    say(format_args!(
        "\n\n{count} tokens{}, {reason}",
        rate.map(|r| format!(" at {r:.1} tokens/s")).unwrap_or_default()
    ))?;
    let ids = tokenizer.encode(proof::PROMPT, true)?;
    let (whole, reference) = proof::decide_single(&model, &decision, &target)?;
    let mut single = proof::open_single(&model, &whole, &reference)?;
    let comparison = proof::compare(&mut engine, &mut single, &ids)?;
    say(format_args!("\nProof against one device ({reference})\n{}", proof::sentence(&comparison)))?;
    if !comparison.passed() {
        return Err(anyhow::anyhow!("the sharded answer is not the single-device answer"));
    }
    say("\nYour own model: fanfold run FOLDER -p \"...\" --devices 0,1")
}
