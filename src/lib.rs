//! fanfold runs one model across whatever GPUs a person has.
pub mod error;
pub mod tensor;
pub mod text;
pub use error::{Error, Result};
