//! The rounds: every engine in turn, in a process of its own; first their logits are compared, then each round is timed.
//!
//! It deliberately knows no engine but by its name. Read `engines/mod.rs` for what a process does.

use crate::Options;
use crate::engines::Run;
use crate::model::{self, Sizes};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

/// The largest difference of a logit from fanfold's, over the root of the mean square of all logits. llama.cpp's Vulkan backend adds
/// up in f16 by default, and all keep keys and values in f16 but fanfold and candle.
const TOLERANCE: f64 = 0.1;

/// The results of one engine.
struct Racer {
    name: String,
    what: String,
    prefill: Vec<f64>,
    decode: Vec<f64>,
}

/// Races the engines and prints a table. Errors when logits do not agree.
pub fn run(options: &Options) -> Result<()> {
    let sizes = Sizes::named(&options.size)?;
    let folder = std::env::temp_dir().join(format!("fanfold-peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    eprintln!("writing a model to {}", folder.display());
    let written = model::write(&folder, sizes).and_then(|()| race(options, &folder));
    std::fs::remove_dir_all(&folder)?;
    written
}

fn race(options: &Options, folder: &Path) -> Result<()> {
    let mut racers: Vec<Racer> = Vec::new();
    let mut expected: Option<Vec<f32>> = None;
    let short = Options { prompt: options.prompt.min(64), decode: 2, ..options.clone() };
    for name in &options.engines {
        eprintln!("comparing {name}");
        match process(&short, name, folder) {
            Ok(run) => {
                let expected = expected.get_or_insert_with(|| run.logits.clone());
                let error = error(&run.logits, expected)?;
                if error > TOLERANCE {
                    bail!("{name}: its logits differ by {error:.1e} from those of {}", options.engines[0]);
                }
                eprintln!("  {}; logits differ by {error:.1e}", run.what);
                let (prefill, decode) = Default::default();
                racers.push(Racer { name: name.clone(), what: run.what, prefill, decode });
            }
            // An engine that is not there leaves the race, and is named.
            Err(error) => eprintln!("  left out: {error:#}"),
        }
    }
    for round in 1..=options.rounds {
        for racer in &mut racers {
            eprint!("round {round} of {}: {} ", options.rounds, racer.name);
            let run = process(options, &racer.name, folder)?;
            eprintln!("{:.2}, {:.2} tokens/s", run.prefill, run.decode);
            racer.prefill.push(run.prefill);
            racer.decode.push(run.decode);
        }
    }
    print(options, &racers)
}

/// Runs one engine in a process of its own.
fn process(options: &Options, name: &str, folder: &Path) -> Result<Run> {
    let mut command = Command::new(std::env::current_exe()?);
    for (flag, number) in [("--prompt", options.prompt), ("--decode", options.decode), ("--threads", options.threads)] {
        command.args([flag, &number.to_string()]);
    }
    command.args(["--adapter", &options.adapter, "--size", &options.size, "--one", name]).arg(folder);
    // Threads: of lavapipe, and of candle. A device with one thread computes on the thread that submits to it.
    let threads = if matches!(name, "fanfold-core" | "fanfold-pair") { 0 } else { options.threads };
    command.env("LP_NUM_THREADS", threads.to_string()).env("RAYON_NUM_THREADS", options.threads.to_string());
    if name == "llama-vulkan" {
        // Without it, llama.cpp takes no software adapter.
        command.env("GGML_VK_VISIBLE_DEVICES", std::env::var("GGML_VK_VISIBLE_DEVICES").unwrap_or("0".to_string()));
    }
    if name == "llama-cpu" {
        command.env("VK_DRIVER_FILES", "/dev/null").env("VK_ICD_FILENAMES", "/dev/null");
    }
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, said.lines().last().unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(|| format!("{name} said {text:?}"))
}

/// The largest difference of the logits, over the root of their mean square.
fn error(found: &[f32], expected: &[f32]) -> Result<f64> {
    if found.len() != expected.len() {
        bail!("{} logits, expected {}", found.len(), expected.len());
    }
    let square: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let largest = found.iter().zip(expected).map(|(&a, &b)| f64::from(a - b).abs()).fold(0.0, f64::max);
    let error = largest / (square / expected.len().max(1) as f64).sqrt();
    if error.is_finite() { Ok(error) } else { bail!("logits are not finite, or all are zero") }
}

/// The median, the least and the largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1]]
}

fn print(options: &Options, racers: &[Racer]) -> Result<()> {
    let Some(first) = racers.first() else { bail!("no engine took part") };
    let ratios = |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>();
    if options.json {
        let row = |racer: &Racer| json!({"engine": racer.name, "what": racer.what, "prefill": racer.prefill, "decode": racer.decode});
        let rows: Vec<_> = racers.iter().map(row).collect();
        let what =
            json!({"prompt": options.prompt, "decode": options.decode, "threads": options.threads, "rows": rows});
        println!("{}", serde_json::to_string_pretty(&what)?);
        return Ok(());
    }
    let (prompt, decode, first_name) = (options.prompt, options.decode, &first.name);
    println!("| engine | pp{prompt}, t/s | tg{decode}, t/s | {first_name} over it, prefill | decode |");
    println!("|---|---:|---:|---:|---:|");
    let cell = |values: &[f64]| {
        let [median, least, most] = spread(values);
        format!("{median:.3} ({least:.3} to {most:.3})")
    };
    for racer in racers {
        let (prefill, decode) = (ratios(&first.prefill, &racer.prefill), ratios(&first.decode, &racer.decode));
        println!(
            "| {} | {} | {} | {} | {} |",
            racer.name,
            cell(&racer.prefill),
            cell(&racer.decode),
            cell(&prefill),
            cell(&decode)
        );
    }
    let of = |name: &str| racers.iter().find(|racer| racer.name == name);
    if let (Some(pair), Some(core)) = (of("fanfold-pair"), of("fanfold-core")) {
        let (prefill, decode) = (ratios(&pair.prefill, &core.prefill), ratios(&pair.decode, &core.decode));
        println!("\ntwo devices of one thread over one: prefill {}, decode {}", cell(&prefill), cell(&decode));
    }
    racers.iter().for_each(|racer| println!("\n{}: {}", racer.name, racer.what));
    Ok(())
}
