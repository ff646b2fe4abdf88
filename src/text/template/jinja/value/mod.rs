//! The values of a template: Python's, as far as chat templates need them.
//!
//! Values are shared and never change, except for namespaces and iterators. Their depth is limited when they are made,
//! so that code can walk them recursively. Each walk takes a step per value, because shared values can be arbitrarily
//! wide. The module deliberately knows no template. Read `print.rs`, `compare.rs` and `operators.rs` next.

mod dict;
mod scope;

pub(in crate::text::template) use dict::*;
pub(in crate::text::template) use scope::{LoopState, Scope};

use super::ast;
use super::fault::{Result, failed, refused};
use super::limits::{Lease, Limits};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// The deepest nesting of values. Deeper ones are made by a loop, not by a conversation.
const DEEPEST: u32 = 100;

#[derive(Clone)]
pub(in crate::text::template) enum Value {
    /// The value of a name that does not exist. Using it fails with the reason that it holds.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Rc<Text>),
    /// An escaped string. Little can be done with it except printing it.
    Markup(Rc<Text>),
    List(Rc<Seq>),
    Tuple(Rc<Seq>),
    Dict(Rc<Dict>),
    View(View, Rc<Dict>),
    Range(Range),
    /// A Python iterator, whose items can be taken once.
    Iterator(Rc<Items>),
    Namespace(Rc<Namespace>),
    Macro(Rc<Macro>),
    Loop(Rc<LoopState>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
    Function(Function),
    Method(Rc<(Value, String)>),
}

/// A string and the memory that it holds.
pub(in crate::text::template) struct Text {
    text: String,
    _lease: Lease,
}

impl Text {
    pub(in crate::text::template) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The items of a list or a tuple.
pub(in crate::text::template) struct Seq {
    pub(in crate::text::template) items: Vec<Value>,
    /// Whether it is a group of the filter `groupby`, whose items also have the names `grouper` and `list`.
    pub(in crate::text::template) group: bool,
    inside: Inside,
}

/// Facts about the values in a container, computed when it is made.
pub(in crate::text::template) struct Inside {
    /// The depth of nested containers, this one included.
    depth: u32,
    /// Whether it contains a namespace, at any depth.
    namespace: bool,
    _lease: Lease,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::text::template) enum View {
    Keys,
    Values,
    Items,
}

impl View {
    pub(in crate::text::template) fn name(self) -> &'static str {
        match self {
            View::Keys => "dict_keys",
            View::Values => "dict_values",
            View::Items => "dict_items",
        }
    }
}

/// Python's range; its step is never zero.
#[derive(Clone, Copy, Debug)]
pub(in crate::text::template) struct Range {
    pub(in crate::text::template) start: i128,
    pub(in crate::text::template) stop: i128,
    pub(in crate::text::template) step: i128,
}

impl Range {
    pub(in crate::text::template) fn len(self) -> usize {
        let (span, step) = match self.step > 0 {
            true => (self.stop.saturating_sub(self.start), self.step),
            false => (self.start.saturating_sub(self.stop), self.step.saturating_neg()),
        };
        if span <= 0 { 0 } else { usize::try_from((span - 1) / step + 1).unwrap_or(usize::MAX) }
    }

    /// The number at `index`, which is less than the length.
    pub(in crate::text::template) fn at(self, index: usize) -> i128 {
        self.start.saturating_add(self.step.saturating_mul(index as i128))
    }
}

/// The remaining items of an iterator.
pub(in crate::text::template) struct Items {
    pub(in crate::text::template) left: RefCell<VecDeque<Value>>,
    inside: Inside,
}

/// `namespace()`, the only value that a template can change. It never holds a namespace, so that none can contain
/// itself.
pub(in crate::text::template) struct Namespace {
    pub(in crate::text::template) entries: RefCell<Vec<(Value, Value)>>,
}

pub(in crate::text::template) struct Macro {
    pub(in crate::text::template) definition: Arc<ast::Macro>,
    pub(in crate::text::template) scope: Rc<Scope>,
}

pub(in crate::text::template) struct Cycler {
    pub(in crate::text::template) items: Rc<Seq>,
    pub(in crate::text::template) at: Cell<usize>,
}

pub(in crate::text::template) struct Joiner {
    pub(in crate::text::template) separator: Value,
    pub(in crate::text::template) used: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::text::template) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

impl Value {
    pub(in crate::text::template) fn undefined(reason: impl AsRef<str>) -> Self {
        // The name comes from the template and may be long.
        Value::Undefined(reason.as_ref().chars().take(200).collect::<String>().into())
    }

    /// A string that is no larger than the value that it was made from.
    pub(in crate::text::template) fn text(limits: &Rc<Limits>, text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        limits.charge_bytes(text.len())?;
        let lease = limits.lease(text.capacity() + 64)?;
        Ok(Value::Str(Rc::new(Text { text, _lease: lease })))
    }

    pub(in crate::text::template) fn from_buffer(buffer: super::limits::Buffer) -> Self {
        let (text, lease) = buffer.into_parts();
        Value::Str(Rc::new(Text { text, _lease: lease }))
    }

    pub(in crate::text::template) fn list(limits: &Rc<Limits>, items: Vec<Value>) -> Result<Self> {
        Seq::new(limits, items, false).map(Value::List)
    }

    pub(in crate::text::template) fn tuple(limits: &Rc<Limits>, items: Vec<Value>) -> Result<Self> {
        Seq::new(limits, items, false).map(Value::Tuple)
    }

    pub(in crate::text::template) fn group(limits: &Rc<Limits>, items: Vec<Value>) -> Result<Self> {
        Seq::new(limits, items, true).map(Value::Tuple)
    }

    pub(in crate::text::template) fn iterator(limits: &Rc<Limits>, items: Vec<Value>) -> Result<Self> {
        let inside = Inside::of(limits, items.iter(), items.capacity())?;
        Ok(Value::Iterator(Rc::new(Items { left: RefCell::new(items.into()), inside })))
    }

    fn inside(&self) -> Option<&Inside> {
        match self {
            Value::List(seq) | Value::Tuple(seq) => Some(&seq.inside),
            Value::Dict(dict) | Value::View(_, dict) => Some(dict.inside()),
            Value::Iterator(items) => Some(&items.inside),
            Value::Cycler(cycler) => Some(&cycler.items.inside),
            Value::Joiner(joiner) => joiner.separator.inside(),
            Value::Method(method) => method.0.inside(),
            _ => None,
        }
    }

    /// Whether it contains a namespace.
    pub(in crate::text::template) fn holds_namespace(&self) -> bool {
        let bound = match self {
            Value::Joiner(joiner) => matches!(joiner.separator, Value::Namespace(_)),
            Value::Method(method) => matches!(method.0, Value::Namespace(_)),
            other => matches!(other, Value::Namespace(_)),
        };
        bound || self.inside().is_some_and(|inside| inside.namespace)
    }

    /// The name of the value's type in Python.
    pub(in crate::text::template) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Markup(_) => "Markup",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::View(view, _) => view.name(),
            Value::Range(_) => "range",
            Value::Iterator(_) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Function(_) => "function",
            Value::Method(_) => "builtin_function_or_method",
        }
    }

    /// The contents of a string value.
    pub(in crate::text::template) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Markup(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The value of an integer, or of a boolean, which Python accepts as an integer.
    pub(in crate::text::template) fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// Python's `bool()`.
    pub(in crate::text::template) fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) | Value::Markup(text) => !text.as_str().is_empty(),
            Value::List(seq) | Value::Tuple(seq) => !seq.items.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => dict.len() > 0,
            Value::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    /// Python's `len()`, if the value has one. The length of a loop is asked of the loop.
    pub(in crate::text::template) fn len(&self) -> Option<usize> {
        match self {
            Value::Undefined(_) => Some(0),
            Value::Str(text) | Value::Markup(text) => Some(text.as_str().chars().count()),
            Value::List(seq) | Value::Tuple(seq) => Some(seq.items.len()),
            Value::Dict(dict) | Value::View(_, dict) => Some(dict.len()),
            Value::Range(range) => Some(range.len()),
            _ => None,
        }
    }

    /// Fails if the value is undefined, with the reason that it holds.
    pub(in crate::text::template) fn defined(&self) -> Result<()> {
        match self {
            Value::Undefined(reason) if reason.contains("undefined") => Err(failed(&**reason)),
            Value::Undefined(reason) => Err(failed(format!("undefined: {reason}"))),
            _ => Ok(()),
        }
    }

    /// Whether using the value gives the same result at any time and does not depend on which object it is. False for
    /// iterators, namespaces and functions, for example.
    pub(in crate::text::template) fn is_plain(&self) -> bool {
        !matches!(
            self,
            Value::Iterator(_)
                | Value::Namespace(_)
                | Value::Macro(_)
                | Value::Loop(_)
                | Value::Cycler(_)
                | Value::Joiner(_)
                | Value::Function(_)
                | Value::Method(_)
        )
    }
}

impl Seq {
    pub(in crate::text::template) fn new(limits: &Rc<Limits>, items: Vec<Value>, group: bool) -> Result<Rc<Self>> {
        let inside = Inside::of(limits, items.iter(), items.capacity())?;
        Ok(Rc::new(Seq { items, group, inside }))
    }
}

impl Inside {
    /// Counts the memory of a container of `items`. `slots` is the number of values that it has room for.
    pub(in crate::text::template) fn of<'v>(
        limits: &Rc<Limits>,
        items: impl Iterator<Item = &'v Value>,
        slots: usize,
    ) -> Result<Self> {
        let lease = limits.lease(96 + slots * size_of::<Value>())?;
        let mut inside = Inside { depth: 1, namespace: false, _lease: lease };
        let mut count = 1;
        for item in items {
            count += 1;
            inside.depth = inside.depth.max(1 + item.inside().map_or(0, |below| below.depth));
            inside.namespace |= item.holds_namespace();
        }
        limits.charge(count)?;
        if inside.depth > DEEPEST {
            return Err(refused(format!("values nested too deep: more than {DEEPEST} levels")));
        }
        Ok(inside)
    }
}

/// Iterates over a value, as Python's `iter()` does.
pub(in crate::text::template) enum Cursor {
    Seq(Rc<Seq>, usize),
    Chars(Rc<Text>, usize),
    Dict(View, Rc<Dict>, usize),
    Range(Range, usize),
    Iterator(Rc<Items>),
    Empty,
}

impl Cursor {
    pub(in crate::text::template) fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::Undefined(_) => Cursor::Empty,
            Value::Str(text) | Value::Markup(text) => Cursor::Chars(text.clone(), 0),
            Value::List(seq) | Value::Tuple(seq) => Cursor::Seq(seq.clone(), 0),
            Value::Dict(dict) => Cursor::Dict(View::Keys, dict.clone(), 0),
            Value::View(view, dict) => Cursor::Dict(*view, dict.clone(), 0),
            Value::Range(range) => Cursor::Range(*range, 0),
            Value::Iterator(items) => Cursor::Iterator(items.clone()),
            Value::Loop(_) => return Err(refused("going through a loop object")),
            other => return Err(failed(format!("'{}' object is not iterable", other.type_name()))),
        })
    }

    pub(in crate::text::template) fn next(&mut self, limits: &Rc<Limits>) -> Result<Option<Value>> {
        limits.charge(1)?;
        Ok(match self {
            Cursor::Seq(seq, at) => {
                *at += 1;
                seq.items.get(*at - 1).cloned()
            }
            Cursor::Chars(text, at) => match text.as_str()[*at..].chars().next() {
                Some(c) => {
                    *at += c.len_utf8();
                    Some(Value::text(limits, c)?)
                }
                None => None,
            },
            Cursor::Dict(view, dict, at) => {
                *at += 1;
                match (dict.entry(*at - 1), view) {
                    (None, _) => None,
                    (Some((key, _)), View::Keys) => Some(key.clone()),
                    (Some((_, value)), View::Values) => Some(value.clone()),
                    (Some((key, value)), View::Items) => Some(Value::tuple(limits, vec![key.clone(), value.clone()])?),
                }
            }
            Cursor::Range(range, at) => {
                *at += 1;
                (*at <= range.len()).then(|| Value::Int(range.at(*at - 1)))
            }
            Cursor::Iterator(items) => items.left.borrow_mut().pop_front(),
            Cursor::Empty => None,
        })
    }
}

/// All items of a value.
pub(in crate::text::template) fn items(limits: &Rc<Limits>, value: &Value) -> Result<Vec<Value>> {
    let mut cursor = Cursor::of(value)?;
    let mut items = Vec::new();
    while let Some(item) = cursor.next(limits)? {
        items.push(item);
    }
    Ok(items)
}
