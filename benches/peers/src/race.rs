//! Who takes part: how each engine is started, and how far its logits may be from fanfold's.
//!
//! It deliberately knows an engine by its name only. Read `rounds/` for how they take turns, and `engines/mod.rs` for what a process does.

use crate::Options;
use crate::model::{self, Sizes};
use anyhow::{Result, bail};
use rounds::Contender;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// How far an engine's logits may be from those of fanfold: the root of the mean square of the differences, over that of the logits.
fn tolerance(engine: &str) -> f64 {
    match engine {
        // It adds up products in f16, and keeps keys and values in f16.
        "llama-vulkan" => 0.1,
        // It rounds activations to f16 before each product, and keeps keys and values in f16.
        "llama-cpu" => 0.01,
        // Weights are rounded to 8 bits, which is 1 in 250 of their root mean square, in every product of every layer.
        "fanfold-q8_0" => 0.05,
        // All in f32; sums are added up in another order.
        _ => 1e-4,
    }
}

/// Races the engines and prints a table, or JSON. Errors when logits do not agree.
pub fn run(options: &Options) -> Result<()> {
    if let Some(unknown) = options.engines.iter().find(|name| !crate::engines::ALL.contains(&name.as_str())) {
        bail!("{unknown}: unknown; known are {}", crate::engines::ALL.join(", "));
    }
    let sizes = Sizes::named(&options.size)?;
    let folder = std::env::temp_dir().join(format!("fanfold-peers-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    eprintln!("writing a model to {}", folder.display());
    let raced = model::write(&folder, sizes).and_then(|()| race(options, &folder));
    std::fs::remove_dir_all(&folder)?;
    raced
}

fn race(options: &Options, folder: &Path) -> Result<()> {
    let contender = |name: &String| {
        Ok(Contender { name: name.clone(), command: command(options, name, folder)?, tolerance: tolerance(name) })
    };
    let contenders = options.engines.iter().map(contender).collect::<Result<_>>()?;
    let measures = [format!("prefill {}, tokens/s", options.prompt), format!("decode {}, tokens/s", options.decode)];
    let outcome = rounds::race(contenders, &measures, options.rounds, true)?;
    let pairs = [("fanfold-q8_0", "fanfold"), ("fanfold-pair", "fanfold-core")];
    let over = pairs.into_iter().filter_map(|(ours, theirs)| Some((ours, theirs, outcome.over(ours, theirs)?)));
    if options.json {
        let raced = json!({"size": options.size, "threads": options.threads, "race": outcome.json()});
        println!("{}", serde_json::to_string_pretty(&raced)?);
    } else {
        print!("{}", outcome.table()?);
        over.for_each(|(ours, theirs, ratios)| println!("- {ours} over {theirs}: {ratios}"));
    }
    Ok(())
}

/// The process of one engine.
fn command(options: &Options, name: &str, folder: &Path) -> Result<Command> {
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
    Ok(command)
}
