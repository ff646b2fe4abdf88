//! fanfold runs one model across whatever GPUs a person has.
pub mod error;
pub mod import;
pub mod tensor;
pub use error::{Error, Result};
