//! Scopes, which hold the names of a running template, one per block; and the state of a loop.
//!
//! A macro keeps the scope that it was defined in. The contents of a scope are dropped when its block ends, so that a
//! macro stored in its own scope does not leak. The module deliberately does not decide which scope a statement uses.
//! Read `render.rs` for that.

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
    /// A new scope inside `outer`.
    pub(in crate::text::template) fn within(outer: &Rc<Scope>) -> Rc<Self> {
        Rc::new(Scope { outer: Some(outer.clone()), ..Scope::default() })
    }

    pub(in crate::text::template) fn set(&self, name: &str, value: Value) {
        // The old value is dropped after the borrow has ended.
        let _old = self.names.borrow_mut().insert(name.to_owned(), value);
    }

    /// The value of `name` in this scope or in one around it.
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

    /// Drops the contents of this scope.
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
    /// The number of items, if it is known or was asked for.
    pub(in crate::text::template) length: Cell<Option<usize>>,
    pub(in crate::text::template) index0: Cell<usize>,
    pub(in crate::text::template) started: Cell<bool>,
    /// Whether the remaining items of `source` have already passed the loop's test.
    pub(in crate::text::template) tested: Cell<bool>,
    /// Whether the loop has ended.
    pub(in crate::text::template) left: Cell<bool>,
    pub(in crate::text::template) depth0: usize,
    pub(in crate::text::template) before: RefCell<Option<Value>>,
    pub(in crate::text::template) current: RefCell<Option<Value>>,
    /// The item after `current`, if the template has looked ahead; `Some(None)` if there is no further item.
    pub(in crate::text::template) after: RefCell<Option<Option<Value>>>,
    /// The last arguments of `changed`.
    pub(in crate::text::template) changed: RefCell<Option<Vec<Value>>>,
}

impl LoopState {
    /// Drops the loop's contents. A namespace among them may contain the loop, and would keep it in memory.
    pub(in crate::text::template) fn leave(&self) {
        self.left.set(true);
        let _source = self.source.replace(Cursor::Empty);
        let _before = self.before.take();
        let _current = self.current.take();
        let _after = self.after.replace(Some(None));
        let _changed = self.changed.take();
    }
}
