//! The interface through which filters, methods and functions call back into the rendering.
//!
//! A filter may apply another filter, and a format may look up an attribute. With this trait in between, no file but
//! the one that starts a rendering needs `render.rs`. Read `render.rs` for the only implementation.

use super::call::Arguments;
use super::fault::{Result, refused};
use super::limits::Limits;
use super::value::{LoopState, Value};
use std::rc::Rc;

/// A rendering, as seen by the functions that it calls.
pub(super) trait Runtime {
    /// The steps, memory and depth that remain.
    fn limits(&self) -> &Rc<Limits>;

    /// The time that `strftime_now` returns.
    fn now(&self) -> jiff::Timestamp;

    /// Python's `bool(value)`.
    fn truth(&self, value: &Value) -> Result<bool>;

    /// Python's `len(value)`.
    fn length(&self, value: &Value) -> Result<usize>;

    /// The item after the current one of a running loop, if there is one.
    fn peek(&self, state: &Rc<LoopState>) -> Result<Option<Value>>;

    /// The number of items of a running loop.
    fn loop_length(&self, state: &Rc<LoopState>) -> Result<usize>;

    /// The attribute `name` of `value`.
    fn attribute(&self, value: &Value, name: &str) -> Result<Value>;

    /// The item `key` of `value`.
    fn item(&self, value: &Value, key: &Value) -> Result<Value>;

    /// The filter `name` applied to `value`.
    fn filter(&self, name: &str, value: &Value, arguments: &Arguments) -> Result<Value>;

    /// Whether `value` passes the test `name`.
    fn test(&self, name: &str, value: &Value, arguments: &Arguments) -> Result<bool>;
}

/// The error for the use of a loop that has ended, whose state no longer exists.
pub(super) fn runs(state: &LoopState) -> Result<()> {
    if state.left.get() { Err(refused("a loop object after its loop has ended")) } else { Ok(()) }
}
