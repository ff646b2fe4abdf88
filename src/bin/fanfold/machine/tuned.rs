//! What was measured of this machine's adapters, in a file of the cache: for each adapter which kernels are the fastest.
//!
//! It measures nothing. Read `commands/tune.rs` for who does, and `engine/load.rs` for who uses what was measured.

use super::folders::caches;
use crate::files::input::text_within;
use crate::files::output::OutputFile;
use crate::terminal::print::{tell, width};
use crate::terminal::table::{Column, plain};
use anyhow::Result;
use fanfold::device::gpu::{AdapterInfo, Measured};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The longest file that is read, in bytes. A case takes about 500.
const LONGEST: usize = 16 << 20;

/// What was measured of one adapter with one driver.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    pub name: String,
    pub driver: String,
    pub measured: Vec<Measured>,
}

/// Where the file lies.
pub fn path() -> PathBuf {
    caches().join("fanfold").join("tuned.json")
}

/// What was measured of all adapters.
pub struct Tuned(Vec<Adapter>);

impl Tuned {
    /// Reads the file. One that cannot be read counts as none, and a line on stderr says why.
    pub fn read() -> Tuned {
        let path = path();
        if !path.exists() {
            return Tuned(Vec::new());
        }
        let read = text_within(&path, LONGEST).and_then(|text| Ok(serde_json::from_str(&text)?));
        Tuned(read.unwrap_or_else(|error| {
            let path = path.display();
            tell(format_args!("{path} is not used: {error:#}; `fanfold tune` writes it anew"));
            Vec::new()
        }))
    }

    /// What was measured of the adapter called `name` with `driver`.
    pub fn of(&self, name: &str, driver: &str) -> Vec<Measured> {
        let found = self.0.iter().find(|adapter| adapter.name == name && adapter.driver == driver);
        found.map(|adapter| adapter.measured.clone()).unwrap_or_default()
    }
}

/// Keeps what was measured of an adapter. What was measured before of the same cases is replaced, and so is everything of the
/// adapter with another driver.
pub fn keep(info: &AdapterInfo, measured: &[Measured]) -> Result<()> {
    let tuned = Tuned::read();
    let mut known = tuned.of(&info.name, &info.driver);
    known.retain(|old| !measured.iter().any(|new| new.case == old.case));
    known.extend_from_slice(measured);
    known.sort_by(|a, b| a.case.cmp(&b.case));
    let mut adapters = tuned.0;
    adapters.retain(|adapter| adapter.name != info.name);
    adapters.push(Adapter { name: info.name.clone(), driver: info.driver.clone(), measured: known });
    let path = path();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OutputFile::open(&path)?.write(&[serde_json::to_string_pretty(&adapters)?.as_bytes()])
}

/// What was measured as a table, a row for each case.
pub fn table(measured: &[Measured]) -> String {
    let columns = [
        Column::words("op"),
        Column::words("formats"),
        Column::numbers("rows x k x n"),
        Column::words("fastest"),
        Column::numbers("us"),
        Column::numbers("over guess"),
    ];
    let rows: Vec<Vec<String>> = measured.iter().filter_map(row).collect();
    plain(&columns, &rows, 3, width())
}

fn row(measured: &Measured) -> Option<Vec<String>> {
    let (guess, fastest) = (measured.schedules.first()?, measured.fastest()?);
    Some(vec![
        measured.case.op.clone(),
        measured.case.formats.join(" "),
        measured.case.class.to_string(),
        fastest.name.clone(),
        format!("{:.1}", fastest.nanoseconds as f64 / 1e3),
        format!("{:.2}", guess.nanoseconds as f64 / fastest.nanoseconds.max(1) as f64),
    ])
}
