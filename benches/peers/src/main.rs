//! A race of fanfold with other engines: the same weights, the same tokens, the same adapter, and as many threads.
//!
//! `./dev bench peers` runs it. Every engine runs in a process of its own, one after another, round by round, so that noise of the
//! machine meets all alike; before any is timed, their logits are compared. Read `race.rs` for who takes part, `rounds/` for how they take turns,
//! `engines/` for how each engine is called, and `model.rs` for the model, which is made up.

mod engines;
mod model;
mod race;

use anyhow::{Result, bail};

const USAGE: &str = "usage: fanfold-peers [OPTIONS]
  --rounds N        rounds of all engines in turn (5)
  --prompt N        tokens of the prompt (512)
  --decode N        tokens decoded (64)
  --threads N       threads of each engine (2)
  --adapter NAME    a part of the name of fanfold's adapter (llvmpipe)
  --size SIZE       tiny, or half: 0.49 B parameters (half)
  --engines A,B,..  of fanfold, fanfold-q8_0, fanfold-core, fanfold-pair, llama-vulkan, llama-cpu,
                    candle; the others are compared with the first (all)
  --json            the results as JSON";

/// What is raced, and how.
#[derive(Clone)]
pub struct Options {
    pub rounds: usize,
    pub prompt: usize,
    pub decode: usize,
    pub threads: usize,
    pub adapter: String,
    pub size: String,
    pub engines: Vec<String>,
    pub json: bool,
    /// In the process of one engine: the engine, and the folder of the model.
    pub one: Option<(String, String)>,
}

impl Options {
    fn read(words: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            rounds: 5,
            prompt: 512,
            decode: 64,
            threads: 2,
            adapter: "llvmpipe".to_string(),
            size: "half".to_string(),
            engines: engines::ALL.map(String::from).to_vec(),
            json: false,
            one: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| anyhow::anyhow!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--prompt" => options.prompt = value()?.parse()?,
                "--decode" => options.decode = value()?.parse()?,
                "--threads" => options.threads = value()?.parse()?,
                "--adapter" => options.adapter = value()?,
                "--size" => options.size = value()?,
                "--engines" => options.engines = value()?.split(',').map(String::from).collect(),
                "--json" => options.json = true,
                "--one" => options.one = Some((value()?, value()?)),
                _ => bail!("{word}: unknown\n{USAGE}"),
            }
        }
        if options.rounds == 0 || options.prompt == 0 || options.decode == 0 || options.threads == 0 {
            bail!("numbers must be at least 1\n{USAGE}");
        }
        Ok(options)
    }
}

fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    match &options.one {
        Some((engine, folder)) => rounds::contend(|| engines::run(engine, folder.as_ref(), &options)),
        None => race::run(&options),
    }
}
