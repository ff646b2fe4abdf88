//! What every rank executes: one plain list of instructions, printable, comparable, run unchanged by any device.
//!
//! A program deliberately knows nothing of placements, plans or devices: after lowering there are only local values,
//! ops with the extents of a part, and exchanges of boxes. Read `lower.rs` for how it is made
//! and [`crate::session`] for who runs it.

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
pub use instr::{Instr, LocalValue, Place, Port, Program, RankProgram, WeightPart, WeightShard};
pub use lower::lower;
pub use memory::Memory;
pub use room::{Holding, Room, Tenant, check};
pub use size::Size;
