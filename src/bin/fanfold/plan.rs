//! `fanfold plan`: who would hold what.

use crate::common::{Target, decide_unchecked, open_model, usage};
use anyhow::Result;
use fanfold::import::Head;
use fanfold::report;
use fanfold::tensor::Env;
use std::path::PathBuf;

#[derive(clap::Args)]
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
    let model = open_model(&args.target.model, Head::Default)?;
    let decision = decide_unchecked(&model, &args.target, false)?;
    let devices = decision.devices(&args.target.placing)?;
    let json = decision.plan.to_json();
    if let Some(path) = &args.output {
        std::fs::write(path, &json).map_err(|e| usage(format!("{}: {e}", path.display())))?;
    }
    if args.json {
        print!("{json}");
    } else {
        let token = Env { seq: 1, keep: 1, ..decision.limits };
        let (parameters, size) = (model.parameters(), report::bytes(model.weight_bytes()));
        let (family, plan) = (model.info().family, &decision.plan);
        println!("{}: {family}, {:.1} M parameters, {size}", model.path().display(), parameters as f64 / 1e6);
        println!("strategy {} over {} ranks, ratios {:?}\n", plan.strategy, plan.world_size, plan.ratios);
        println!("{}", report::picture(model.graph(), plan));
        println!("{}\n", report::exchanges(&decision.program, &token));
        print!("{}", report::memory(&decision.program, &decision.limits, &devices));
        if args.verbose {
            for rank in &decision.program.ranks {
                print!("\nrank {}\n{rank}", rank.rank);
            }
        }
    }
    decision.program.check_memory(&decision.limits, &devices)?;
    Ok(())
}
