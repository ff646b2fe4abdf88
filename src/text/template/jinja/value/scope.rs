//! Where names live while a template runs: a scope per block, and the state of a loop.
//!
//! A macro keeps the scope that it was defined in. What is stored in a scope is dropped when its block is left, so that
//! a macro in its own scope is no cycle. It deliberately decides no lookup: read `render.rs` for that.

use super::super::ast::For;
use super::{Cursor, Value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Default)]
pub(in crate::text::template) struct Scope {
    names: RefCell<HashMap<String, Value>>,
    outer: Option<Rc<Scope>>,
    left: Cell<bool>,
}

impl Scope {
    /// A scope within `outer`.
    pub(in crate::text::template) fn within(outer: &Rc<Scope>) -> Rc<Self> {
        Rc::new(Scope { outer: Some(outer.clone()), ..Scope::default() })
    }

    pub(in crate::text::template) fn set(&self, name: &str, value: Value) {
        // The old value is dropped after the borrow has ended.
        let _old = self.names.borrow_mut().insert(name.to_owned(), value);
    }

    /// The value of `name` here or in a scope around.
    pub(in crate::text::template) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(value) = here.names.borrow().get(name) {
                return Some(value.clone());
            }
            scope = here.outer.as_deref();
        }
        None
    }

    /// Drops what is stored here.
    pub(in crate::text::template) fn leave(&self) {
        self.left.set(true);
        let _names = self.names.take();
    }

    pub(in crate::text::template) fn was_left(&self) -> bool {
        self.left.get()
    }
}

/// The variable `loop`.
pub(in crate::text::template) struct LoopState {
    pub(in crate::text::template) definition: Arc<For>,
    /// The scope around the loop.
    pub(in crate::text::template) scope: Rc<Scope>,
    pub(in crate::text::template) source: RefCell<Cursor>,
    /// The length, where it is known or was asked for.
    pub(in crate::text::template) length: Cell<Option<usize>>,
    pub(in crate::text::template) index0: Cell<usize>,
    pub(in crate::text::template) started: Cell<bool>,
    /// Whether what is left in `source` has passed the loop's test already.
    pub(in crate::text::template) tested: Cell<bool>,
    /// Whether the loop has ended.
    pub(in crate::text::template) left: Cell<bool>,
    pub(in crate::text::template) depth0: usize,
    pub(in crate::text::template) before: RefCell<Option<Value>>,
    pub(in crate::text::template) current: RefCell<Option<Value>>,
    /// The next item where it was looked at, `Some(None)` where there is none.
    pub(in crate::text::template) after: RefCell<Option<Option<Value>>>,
    /// What `changed` was called with last.
    pub(in crate::text::template) changed: RefCell<Option<Vec<Value>>>,
}

impl LoopState {
    /// Drops what it holds, since a namespace in it may hold it.
    pub(in crate::text::template) fn leave(&self) {
        self.left.set(true);
        let _source = self.source.replace(Cursor::Empty);
        let _before = self.before.take();
        let _current = self.current.take();
        let _after = self.after.replace(Some(None));
        let _changed = self.changed.take();
    }
}
