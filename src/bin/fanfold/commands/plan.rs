//! `fanfold plan`: shows which rank would hold what, and writes the plan as JSON.
//!
//! No device is opened and no weight is loaded. Read [`fanfold::report`] for the picture.

use crate::arguments::target::Target;
use crate::engine::decision::{Decision, decide_unchecked};
use crate::engine::models::{check_weights, open_model};
use crate::exit::message;
use crate::files::output::OutputFile;
use crate::terminal::print::{say, tell, width};
use crate::terminal::table::{Column, plain};
use anyhow::Result;
use bytesize::ByteSize;
use fanfold::device::select;
use fanfold::import::Head;
use fanfold::program::Memory;
use fanfold::report;
use fanfold::shape::Env;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example, a plan to edit by hand and to run:
  fanfold plan MODEL --devices 0,1 --ratios 3,2 -o plan.json
  fanfold run MODEL -p \"Once\" --devices 0,1 --plan plan.json")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Also print every rank's program
    #[arg(short, long)]
    verbose: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Write the plan, to be edited and given to --plan
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    let output = args.output.as_deref().map(OutputFile::open).transpose()?;
    let model = open_model(&args.target, Head::Default)?;
    let decision = decide_unchecked(&model, &args.target.placing, args.target.options(false))?;
    if args.target.check {
        check_weights(&model)?;
    }
    let json = decision.given.to_json();
    if let Some(file) = output {
        file.write(&[json.as_bytes()])?;
    }
    if args.json {
        say(json.trim_end())?;
    } else {
        let token = Env { seq: 1, keep: 1, ..*decision.limits };
        let (parameters, size) = (model.parameters(), ByteSize::b(model.stored_bytes()));
        let (family, plan) = (&model.info().family, &decision.plan);
        let ratios: Vec<String> = plan.ratios.iter().map(f64::to_string).collect();
        let ratios = ratios.join(",");
        let mut text = String::new();
        writeln!(text, "{}: {family}, {:.1} M parameters, {size}", model.path().display(), parameters as f64 / 1e6)?;
        writeln!(text, "strategy {} over {} ranks, ratios {ratios}", plan.strategy, plan.world_size)?;
        match plan.world_size {
            1 => writeln!(text, "one rank holds every layer whole\n")?,
            _ => {
                writeln!(text, "who holds which part of every layer (a digit is a rank; + where shared):\n")?;
                writeln!(text, "{}", report::picture(model.graph(), plan, width()))?;
            }
        }
        writeln!(text, "{}\n", report::exchanges(&decision.program, &token, width()))?;
        writeln!(text, "{}", memory(&decision, width()))?;
        write!(text, "{}", report::held_twice(&decision.program, &decision.limits))?;
        if model.info().generates && decision.limits.seq < decision.options.limits(model.info()).seq {
            let tokens = decision.limits.seq;
            writeln!(
                text,
                "prompts go in calls of {tokens} tokens: of more, a device could not hold a value in one piece"
            )?;
        }
        if args.verbose {
            for rank in &decision.program.ranks {
                write!(text, "\nrank {}\n{rank}", rank.rank)?;
            }
        }
        say(text.trim_end())?;
    }
    fits(&decision)
}

/// What each rank holds, as a table of at most `width` columns.
fn memory(decision: &Decision, width: usize) -> String {
    let size = |bytes: u64| ByteSize::b(bytes).to_string();
    let rows = decision.program.ranks.iter().zip(&decision.rooms).map(|(rank, room)| {
        let Memory { weights, state, activations, staging } = rank.memory_as(&decision.limits, room.holding);
        let of = format!("of {}", room.memory.map_or("unknown".to_string(), size));
        let sizes = [weights, state, activations, staging].map(size);
        [vec![rank.rank.to_string(), room.device.clone()], sizes.into(), vec![of]].concat()
    });
    let sizes = ["weights", "kv", "scratch", "staging"].map(Column::numbers);
    let columns = [&["rank", "device"].map(Column::words)[..], &sizes, &[Column::words("of memory")]].concat();
    plain(&columns, &rows.collect::<Vec<_>>(), 1, width)
}

/// Errors when the plan does not fit its devices.
///
/// The plan may be for another day or another machine, so that this machine's free memory is not held against it: where that
/// is too small the person is warned.
fn fits(decision: &Decision) -> Result<()> {
    let elsewhere = select::rooms(&decision.choices, &decision.memory, None);
    decision.program.check(&decision.limits, &elsewhere)?;
    if let Err(error) = decision.program.check(&decision.limits, &decision.rooms) {
        tell(format_args!("as much as this machine has free now is too little: {}", message(&error.into())));
    }
    Ok(())
}
