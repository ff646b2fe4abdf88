//! `fanfold plan`: who would hold what.

use crate::common::{Decision, Target, check_weights, decide_unchecked, open_model, say, tell};
use crate::output::OutputFile;
use anyhow::Result;
use bytesize::ByteSize;
use fanfold::device::select;
use fanfold::import::Head;
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
    let json = decision.plan.to_json();
    if let Some(file) = output {
        file.write(&[json.as_bytes()])?;
    }
    if args.json {
        say(json.trim_end())?;
    } else {
        let token = Env { seq: 1, keep: 1, ..*decision.limits };
        let (parameters, size) = (model.parameters(), ByteSize::b(model.weight_bytes()));
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
                writeln!(text, "{}", report::picture(model.graph(), plan))?;
            }
        }
        writeln!(text, "{}\n", report::exchanges(&decision.program, &token))?;
        write!(text, "{}", report::memory(&decision.program, &decision.limits, &decision.rooms))?;
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
    fits(&decision, &args.target)
}

/// Errors when the plan does not fit its devices.
///
/// A plan may be for another day or for another machine, so that too little free memory of this one is only told.
fn fits(decision: &Decision, target: &Target) -> Result<()> {
    let elsewhere = select::rooms(&decision.choices, &target.placing.memory, None);
    decision.program.check(&decision.limits, &elsewhere)?;
    if let Err(error) = decision.program.check(&decision.limits, &decision.rooms) {
        tell(format_args!("as much as this machine has free now is too little: {error}"));
    }
    Ok(())
}
