//! Where a model's weights and files come from.
//!
//! It deliberately knows no file format. Read `import/open.rs` for folders and `graph_source.rs` for weights without
//! files.

use crate::format::Format;
use crate::graph::{Graph, Value};
use crate::shape::Dim;
use crate::weights::{SourceError, Weights};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Where a model's weights and files come from.
///
/// A folder is one source, random weights are another. All methods but those of [`Weights`] have a default that suits
/// a source without files.
pub trait ModelSource: Weights {
    /// The path of the source, for messages: a folder, or a made-up name.
    fn path(&self) -> &Path;

    /// The bytes of the source's file `name`; `None` if there is no such file. Errors when it cannot be read.
    fn file(&self, _name: &str) -> Result<Option<Cow<'static, [u8]>>, SourceError> {
        Ok(None)
    }

    /// The variables that name special tokens to a chat template, `bos_token` for example, each with its token.
    ///
    /// Errors when a file cannot be read.
    fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(Vec::new())
    }

    /// The path and the text of the chat template. Errors when a file cannot be read, or when none of several templates is
    /// the default.
    fn chat_template(&self) -> Result<Option<(PathBuf, String)>, SourceError> {
        Ok(None)
    }

    /// Bytes of all weights in the form in which the source stores them.
    fn weight_bytes(&self, graph: &Graph) -> u64 {
        stored_bytes(graph)
    }

    /// The number of parameters. A tied weight counts once, and a table that is computed does not count.
    fn parameters(&self, graph: &Graph) -> u64 {
        weights(graph).map(|(value, _)| value.shape.iter().filter_map(|d| d.fixed()).fold(1, u64_times)).sum()
    }

    /// Bytes of weights read so far, by all ranks together; 0 if the source does not count them.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// Reads every weight and errors at the first NaN or infinity. Calls `progress` with the bytes of each block read.
    fn check(&self, graph: &Graph, progress: &dyn Fn(u64)) -> Result<(), SourceError>;
}

/// Bytes of all weights of `graph` in their formats.
pub fn stored_bytes(graph: &Graph) -> u64 {
    let fixed = |shape: &[Dim]| shape.iter().filter_map(|d| d.fixed()).fold(1, usize::saturating_mul);
    weights(graph).map(|(value, format)| format.bytes(fixed(&value.shape))).sum()
}

fn u64_times(product: u64, n: usize) -> u64 {
    product.saturating_mul(n as u64)
}

/// The weights of `graph`, each with its format.
fn weights(graph: &Graph) -> impl Iterator<Item = (&Value, Format)> {
    graph.values().filter_map(|(_, value)| Some((value, value.format()?)))
}
