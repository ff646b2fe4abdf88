//! Where the elements of a graph's weights come from: tensors of files, or a table that is computed.
//!
//! It deliberately knows no family. Read `builder.rs`, which records the origins, and `import/open.rs`, which reads
//! weights from them.

use crate::import::blocks::rope::RopeTable;
use crate::import::files::joined::Joined;

/// Where a graph weight's elements come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Tensors of the folder's files, or random ones.
    Tensor(Joined),
    /// A table of cosines or sines, computed for the session's capacity.
    Rope(RopeTable),
}
