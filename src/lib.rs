//! fanfold runs one model across whatever GPUs a person has.
pub mod error;
pub mod kernel;
pub mod ops;
pub mod sharding;
pub mod tensor;
pub use error::{Error, Result};
