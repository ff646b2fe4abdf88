//! What filters, methods and functions need of the rendering that calls them.
//!
//! They are called by a rendering and call it back: a filter applies another filter, a format looks up an attribute. This trait
//! stands between, so that no file needs `render.rs` but the one that starts it. Read `render.rs` for the one rendering there is.

use super::call::Arguments;
use super::fault::{Result, refused};
use super::limits::Limits;
use super::value::{LoopState, Value};
use std::rc::Rc;

/// A rendering, as what it calls sees it.
pub(super) trait Runtime {
    /// The steps, the memory and the depth that are left.
    fn limits(&self) -> &Rc<Limits>;

    /// The time that `strftime_now` tells.
    fn now(&self) -> jiff::Timestamp;

    /// Python's `bool(value)`.
    fn truth(&self, value: &Value) -> Result<bool>;

    /// Python's `len(value)`.
    fn length(&self, value: &Value) -> Result<usize>;

    /// The item after the current one of a loop that runs, if there is one.
    fn peek(&self, state: &Rc<LoopState>) -> Result<Option<Value>>;

    /// How many items a loop that runs has.
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

/// Errors when the loop has ended: what it knew is gone.
pub(super) fn runs(state: &LoopState) -> Result<()> {
    if state.left.get() { Err(refused("a loop object after its loop has ended")) } else { Ok(()) }
}
