//! What the program asks of the machine and of its environment: memory, drivers, the person's folders.
//!
//! The library reads no environment variable: what it needs to know is read here and given to it. Read `folders.rs` first.

pub mod folders;
pub mod huggingface;
pub mod memory;
pub mod system;
pub mod tuned;
