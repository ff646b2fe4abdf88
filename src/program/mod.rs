//! Programs: what every rank executes, as one plain list of instructions that can be printed, compared and run by any
//! device.
//!
//! A program deliberately knows no placement, plan or device: after lowering there are only a rank's own values, ops
//! with the rank's part of every factor, and exchanges of regions. Read `instr.rs` for the instructions, `lower/` for
//! how they are made and [`crate::session`] for who runs them.

mod allocate;
mod display;
mod error;
mod instr;
mod lower;
mod memory;
mod passes;
mod room;
mod size;

pub use error::{ProgramError, Shortfall, TooWide};
pub use instr::{Fused, Instr, LocalValue, Place, Port, Program, RankProgram, WeightPart, WeightShard};
pub use lower::lower;
pub use memory::Memory;
pub use room::{Holding, Room, Tenant, check};
pub use size::Size;
