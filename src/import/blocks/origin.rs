//! Where the elements of a graph's weights come from: tensors of files, or a table that is computed.
//!
//! It deliberately knows no family. Read `builder.rs` for who writes origins down, and `import/open.rs` for who reads by them.

use crate::import::blocks::rope::RopeTable;
use crate::import::files::joined::Joined;

/// Where a graph weight's elements come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Tensors of the folder's files, or made-up ones.
    Tensor(Joined),
    /// A table of angles, made for the session's capacity.
    Rope(RopeTable),
}
