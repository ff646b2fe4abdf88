//! fanfold runs one model across whatever GPUs a person has.
pub mod comm;
pub mod device;
pub mod error;
pub mod generate;
pub mod graph;
pub mod import;
pub mod kernel;
pub mod ops;
pub mod plan;
pub mod program;
pub mod report;
pub mod session;
pub mod sharding;
pub mod tensor;
pub mod text;
pub mod verify;
pub use error::{Error, Result};
