//! `fanfold tune`: measures on each adapter which kernels are the fastest for a model's sizes, and keeps what it found.
//!
//! Nothing is timed here: read [`fanfold::device::gpu::GpuDevice::tune`] for what is, and `machine/tuned.rs` for the file.

use crate::arguments::devices::Placing;
use crate::arguments::target::Target;
use crate::arguments::words::format;
use crate::engine::decision::{choose, decide};
use crate::engine::models::open_model;
use crate::machine::tuned;
use crate::terminal::print::{say, tell};
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::Result;
use fanfold::device::Device;
use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions, Measured};
use fanfold::device::select::DeviceChoice;
use fanfold::format::Format;
use fanfold::graph::{Graph, GraphError};
use fanfold::import::Head;
use fanfold::measure::Repeated;
use fanfold::ops::Linear;
use fanfold::plan::Plan;
use fanfold::program::{RankProgram, lower};
use fanfold::shape::{Dim, Env, Limits, Symbol};
use fanfold::tensor::DType;
use fanfold::weights::Weights;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Rows of the calls that are measured, beside the largest one: single tokens, several sequences at once, prompts.
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 64];

/// Positions that the KV cache holds while a model is measured: what is measured does not depend on them.
const CONTEXT: usize = 512;

/// Columns and length of the products that are measured without a model: those of common models of 1 B and 8 B parameters.
const PRODUCTS: [(usize, usize); 8] =
    [(2048, 2048), (512, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (1024, 4096), (14_336, 4096), (4096, 14_336)];

/// Those of [`PRODUCTS`] that a software driver computes within seconds.
const SMALL: usize = 4;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  fanfold tune MODEL --devices 0,1 --ratios 3,2
  fanfold tune                                  the sizes of common models")]
pub struct Args {
    /// The model whose sizes are measured, as `fanfold run` takes it; without it those of common models
    model: Option<PathBuf>,
    /// Stores the matrices in this format on the devices, whatever their files hold
    #[arg(long, value_parser = format(), value_name = "FORMAT")]
    weights: Option<Format>,
    /// Fields of config.json that are read as if they were not there
    #[arg(long, value_delimiter = ',', value_name = "FIELD,..")]
    ignore_config: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placing: Placing,
}

/// What one device is to measure.
struct Work {
    choice: DeviceChoice,
    program: RankProgram,
    limits: Limits,
    weights: Arc<dyn Weights>,
}

pub fn main(args: &Args) -> Result<()> {
    let work = match &args.model {
        Some(model) => of_model(args, model)?,
        None => of_common_models(args)?,
    };
    let mut adapters = Vec::new();
    for work in work {
        let DeviceChoice::Gpu(info) = &work.choice else {
            tell("host: it has one way to compute an op, so there is nothing to measure");
            continue;
        };
        let measured = measure(info, &work, args)?;
        tuned::keep(info, &measured)?;
        if !args.json {
            say(format_args!("{info}\n{}", tuned::table(&measured)))?;
        }
        adapters.push(tuned::Adapter { name: info.name.clone(), driver: info.driver.clone(), measured });
    }
    if args.json {
        say(serde_json::to_string_pretty(&adapters)?)?;
    } else if !adapters.is_empty() {
        tell(format_args!("kept in {}", tuned::path().display()));
    }
    Ok(())
}

/// The parts of a model that the devices hold under the plan of the arguments.
fn of_model(args: &Args, model: &std::path::Path) -> Result<Vec<Work>> {
    let target = Target {
        model: model.to_owned(),
        context: CONTEXT,
        check: false,
        ignore_config: args.ignore_config.clone(),
        weights: args.weights,
        placing: args.placing.clone(),
    };
    let model = open_model(&target, Head::Default)?;
    let decision = decide(&model, &target, false)?;
    let (limits, weights) = (decision.limits, model as Arc<dyn Weights>);
    let ranks = decision.program.ranks.into_iter().zip(decision.choices);
    Ok(ranks.map(|(program, choice)| Work { choice, program, limits, weights: weights.clone() }).collect())
}

/// The products of common models, for each device in turn.
fn of_common_models(args: &Args) -> Result<Vec<Work>> {
    let formats = args.weights.map_or(vec![Format::F16, Format::Q8_0], |format| vec![format]);
    let mut choices: Vec<DeviceChoice> = Vec::new();
    for choice in choose(&args.placing)? {
        // The same adapter listed twice has the same speed.
        if !choices.contains(&choice) {
            choices.push(choice);
        }
    }
    let work = |choice: DeviceChoice| -> Result<Work> {
        let software = matches!(&choice, DeviceChoice::Gpu(info) if info.is_software());
        let graph = products(if software { &PRODUCTS[..SMALL] } else { &PRODUCTS }, &formats)?;
        let mut program = lower(&graph, &Plan::whole(&graph, 1).build()?)?.with_numerics(args.placing.numerics);
        let program = program.ranks.swap_remove(0);
        let seq = if software { 16 } else { 512 };
        let limits = Env { batch: 1, seq, keep: 1, past: 0, capacity: 1 }.into();
        Ok(Work { choice, program, limits, weights: Arc::new(Repeated) })
    };
    choices.into_iter().map(work).collect()
}

/// A graph of products of `sizes` with weights in `formats`, each of an input of its own.
fn products(sizes: &[(usize, usize)], formats: &[Format]) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    for &(n, k) in sizes {
        let x = graph.input(&format!("x{n}x{k}"), [Dim::from(1), Symbol::Seq.into(), k.into()], DType::F32)?;
        for format in formats {
            let name = format!("{n}x{k} {format}");
            let w = graph.weight(&name, [n.into(), k.into()], *format)?;
            let y = graph.node(&format!("product {name}"), Linear, &[x, w])?;
            graph.output(&format!("y {name}"), y)?;
        }
    }
    Ok(graph)
}

/// Loads one device's part and measures it, with progress bars.
fn measure(info: &AdapterInfo, work: &Work, args: &Args) -> Result<Vec<Measured>> {
    let deadline = Duration::from_secs(args.placing.timeout);
    let mut device = GpuDevice::open(info, &GpuOptions { deadline, ..GpuOptions::default() })?;
    let loading = progress_bar(work.program.memory(&work.limits).weights, "loading {bar:30} {bytes}/{total_bytes}");
    let loaded = device.load(Arc::new(work.program.clone()), &work.limits, &work.weights, &|n| loading.inc(n));
    loading.finish_and_clear();
    loaded?;
    let most = work.limits.seq.min(work.limits.tokens);
    let mut rows: Vec<usize> = ROWS.into_iter().filter(|&rows| rows < most).chain([most]).collect();
    rows.dedup();
    let calls: Vec<Env> =
        rows.iter().map(|&seq| Env { seq, capacity: work.limits.capacity, ..Env::prompt(1) }).collect();
    let bar = progress_bar(1, "measuring {bar:30} {pos}/{len} sizes of ops");
    let measured = device.tune(&calls, &mut |done, count| {
        bar.set_length(count as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let measured = measured?;
    if measured.is_empty() {
        return Err(usage("nothing to measure: no op of this model leaves this device a choice"));
    }
    Ok(measured)
}
