//! The results of `fanfold bench`: one row per measurement, as a table, CSV or JSON, with llama-bench's names.
//!
//! It measures nothing. Read `mod.rs` for what does and [`fanfold::measure`] for what is timed.

use crate::engine::decision::Decision;
use crate::terminal::table::{Column, MarkdownTable};
use anyhow::Result;
use bytesize::ByteSize;
use csv::QuoteStyle;
use fanfold::device::select::DeviceChoice;
use fanfold::format::Format;
use fanfold::measure::{Phase, Test, Timing, mean_and_deviation, peak_memory};
use fanfold::model::Model;
use fanfold::plan::Strategy;
use fanfold::shape::Dim;
use serde::ser::{Serialize, Serializer};
use serde_json::{Value, json};
use std::path::Path;

/// An empty table for the results of `tests`.
pub fn table(tests: &[Test]) -> MarkdownTable {
    let tests: Vec<String> = tests.iter().map(Test::to_string).collect();
    MarkdownTable::new(&[
        Column::words("model"),
        Column::numbers("size"),
        Column::numbers("params"),
        Column::words("backend"),
        Column::words("devices"),
        Column::words("strategy"),
        Column::words("ratios"),
        Column::numbers("test").fitting(tests.iter().map(String::as_str)),
        Column::numbers("t/s").fitting(["1234.56 ± 123.45"]),
    ])
}

/// The model's family, and the format that most of its weights have: `llama f16`.
fn model_type(model: &Model) -> String {
    let elements = |format: Format| -> usize {
        let numel = |shape: &[Dim]| shape.iter().map(|d| d.fixed().unwrap_or(0)).product::<usize>();
        let stored = model.graph().values().filter(|(_, value)| value.format() == Some(format));
        stored.map(|(_, value)| numel(&value.shape)).sum()
    };
    let max = Format::NUMBERS.into_iter().max_by_key(|format| elements(*format));
    format!("{} {}", model.info().family, max.unwrap_or(Format::F32))
}

/// The devices' names, with neighbours that are alike counted: `2x llvmpipe, host`.
fn counted(names: &[String]) -> String {
    let runs = names.chunk_by(|a, b| a == b);
    let run = |run: &[String]| if run.len() > 1 { format!("{}x {}", run.len(), run[0]) } else { run[0].clone() };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

/// One result as values with names, in the order in which they are printed.
pub struct Row(Vec<(&'static str, Value)>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Row {
    /// The names as a line of CSV.
    pub fn csv_names(&self) -> Result<String> {
        csv_line(QuoteStyle::Necessary, self.0.iter().map(|(name, _)| name.to_string()))
    }

    /// The values as a line of CSV: texts in quotes, a list as one text.
    pub fn csv_values(&self) -> Result<String> {
        let plain = |value: &Value| value.as_str().map_or(value.to_string(), str::to_string);
        let cell = |value: &Value| match value {
            Value::Null => String::new(),
            Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
            other => plain(other),
        };
        csv_line(QuoteStyle::NonNumeric, self.0.iter().map(|(_, value)| cell(value)))
    }
}

/// One record of CSV without its line end.
fn csv_line(quotes: QuoteStyle, cells: impl Iterator<Item = String>) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().quote_style(quotes).from_writer(Vec::new());
    writer.write_record(cells.collect::<Vec<_>>())?;
    let line = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_string())
}

/// A model placed on devices by one strategy: the values that are the same in all rows of its results.
pub struct Placement {
    /// The model's path.
    model: String,
    /// Its family and type.
    model_type: String,
    /// Bytes of its weights in its files.
    size: u64,
    parameters: u64,
    /// The devices' backends, each once.
    backends: Vec<String>,
    /// The device of each rank.
    devices: Vec<String>,
    /// How the model is cut.
    pub strategy: Strategy,
    ratios: Vec<f64>,
    /// The largest number of prompt tokens in one call.
    chunk: usize,
    /// How long it took to open the devices and load the weights.
    pub load_seconds: f64,
    /// Bytes of weights on all devices together.
    pub loaded: u64,
}

impl Placement {
    /// The placement that `decision` made, loaded in `load_seconds`.
    pub fn new(model: &Model, path: &Path, decision: &Decision, load_seconds: f64) -> Placement {
        let backend = |choice: &DeviceChoice| match choice {
            DeviceChoice::Host => "host".to_string(),
            DeviceChoice::Gpu(info) => info.backend.to_string(),
        };
        let mut backends: Vec<String> = decision.choices.iter().map(backend).collect();
        backends.sort();
        backends.dedup();
        Placement {
            model: path.display().to_string(),
            model_type: model_type(model),
            size: model.stored_bytes(),
            parameters: model.parameters(),
            backends,
            devices: decision.choices.iter().map(ToString::to_string).collect(),
            strategy: decision.plan.strategy,
            ratios: decision.plan.ratios.clone(),
            chunk: decision.limits.seq,
            load_seconds,
            loaded: decision.program.ranks.iter().map(|rank| rank.memory(&decision.limits).weights).sum(),
        }
    }

    /// The cells of a timing's row in the table.
    pub fn cells(&self, timing: &Timing) -> Vec<String> {
        let (mean, deviation) = mean_and_deviation(&timing.rates());
        let parameters = match self.parameters as f64 {
            n if n < 1e9 => format!("{:.2} M", n / 1e6),
            n => format!("{:.2} B", n / 1e9),
        };
        let ratios: Vec<String> = self.ratios.iter().map(f64::to_string).collect();
        vec![
            self.model_type.clone(),
            ByteSize::b(self.size).to_string(),
            parameters,
            self.backends.join(","),
            counted(&self.devices),
            self.strategy.to_string(),
            ratios.join(","),
            timing.test.to_string(),
            format!("{mean:.2} ± {deviation:.2}"),
        ]
    }

    /// A timing's row in JSON and CSV.
    pub fn row(&self, timing: &Timing) -> Row {
        let (rates, rate) = (timing.rates(), mean_and_deviation(&timing.rates()));
        let nanoseconds: Vec<u64> = timing.times.iter().map(|time| time.as_nanos() as u64).collect();
        let time = mean_and_deviation(&nanoseconds.iter().map(|&n| n as f64).collect::<Vec<_>>());
        let Test { phase, tokens, depth } = timing.test;
        let of = |wanted: Phase| if phase == wanted { tokens } else { 0 };
        Row(vec![
            ("fanfold", json!(env!("CARGO_PKG_VERSION"))),
            ("model_filename", json!(self.model)),
            ("model_type", json!(self.model_type)),
            ("model_size", json!(self.size)),
            ("model_n_params", json!(self.parameters)),
            ("backends", json!(self.backends)),
            ("devices", json!(self.devices)),
            ("strategy", json!(self.strategy)),
            ("ratios", json!(self.ratios)),
            ("n_ubatch", json!(self.chunk)),
            ("n_prompt", json!(of(Phase::Prefill))),
            ("n_gen", json!(of(Phase::Decode))),
            ("n_depth", json!(depth)),
            ("test", json!(timing.test.to_string())),
            ("avg_ns", json!(time.0.round() as u64)),
            ("stddev_ns", json!(time.1.round() as u64)),
            ("avg_ts", json!(rate.0)),
            ("stddev_ts", json!(rate.1)),
            ("samples_ns", json!(nanoseconds)),
            ("samples_ts", json!(rates)),
            ("load_s", json!(self.load_seconds)),
            ("weight_bytes", json!(self.loaded)),
            ("peak_memory_bytes", json!(peak_memory())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_texts_and_keeps_a_list_in_one_cell() {
        let values = json!(["host", "a \"b\", c"]);
        let row = Row(vec![("fanfold", json!("0.1.0")), ("devices", values), ("n", json!(3)), ("none", Value::Null)]);
        assert_eq!(row.csv_names().unwrap(), "fanfold,devices,n,none");
        let line = row.csv_values().unwrap();
        assert!(line.starts_with(r#""0.1.0","host,a ""b"", c",3,"#), "{line}");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let cells: Vec<String> = reader.records().next().unwrap().unwrap().iter().map(String::from).collect();
        assert_eq!(cells, ["0.1.0", r#"host,a "b", c"#, "3", ""]);
    }
}
