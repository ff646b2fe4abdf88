//! The methods of lists, tuples, dicts and ranges, and the attributes of the variable `loop`.
//!
//! Read `access.rs` for how a method is found and `text_methods.rs` for the methods of strings.

use super::call::{Arguments, int, required};
use super::compare::equal;
use super::fault::{Result, failed, refused};
use super::runtime::Runtime;
use super::text_methods;
use super::value::LoopState;
use super::value::{Cursor, Value, View};
use std::rc::Rc;

/// Calls the method `name` of `this`.
pub(super) fn call(render: &dyn Runtime, this: &Value, name: &str, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    match (this, name) {
        (Value::Str(text), _) => text_methods::call(render, text.as_str(), name, arguments),
        (Value::Dict(dict), "get") => {
            let [key, default] = arguments.positions(name, 1)?;
            let found = dict.get(limits, required(key, name, "key")?)?;
            Ok(found.or(default).cloned().unwrap_or(Value::None))
        }
        (Value::Dict(dict), "items" | "keys" | "values") => {
            let [] = arguments.positions(name, 0)?;
            let view = match name {
                "items" => View::Items,
                "keys" => View::Keys,
                _ => View::Values,
            };
            Ok(Value::View(view, dict.clone()))
        }
        (Value::Dict(dict), "copy") => {
            let [] = arguments.positions(name, 0)?;
            super::value::Dict::new(limits, dict.entries().iter().cloned()).map(Value::Dict)
        }
        (Value::List(seq), "copy") => {
            let [] = arguments.positions(name, 0)?;
            limits.charge(seq.items.len() as u64)?;
            Value::list(limits, seq.items.clone())
        }
        (_, "count") => {
            let [item] = arguments.positions(name, 1)?;
            let item = required(item, name, "item")?;
            let mut cursor = Cursor::of(this)?;
            let mut count = 0;
            while let Some(other) = cursor.next(limits)? {
                count += i128::from(equal(limits, &other, item)?);
            }
            Ok(Value::Int(count))
        }
        (_, "index") => {
            let [item, from, to] = arguments.positions(name, 1)?;
            let item = required(item, name, "item")?;
            let bound = |bound: Option<&Value>| bound.map(|bound| int(bound, "a bound")).transpose();
            let (from, to) = text_methods::bounds(bound(from)?, bound(to)?, this.len().unwrap_or(0));
            let mut cursor = Cursor::of(this)?;
            let mut at = 0;
            while let Some(other) = cursor.next(limits)? {
                if (from..to).contains(&at) && equal(limits, &other, item)? {
                    return Ok(Value::Int(at as i128));
                }
                at += 1;
            }
            Err(failed("the value is not in the list"))
        }
        (Value::Cycler(cycler), "reset") => {
            let [] = arguments.positions(name, 0)?;
            cycler.at.set(0);
            Ok(Value::None)
        }
        (Value::Cycler(cycler), "next") => {
            let [] = arguments.positions(name, 0)?;
            let items = &cycler.items.items;
            let now = items.get(cycler.at.get()).cloned().unwrap_or(Value::None);
            cycler.at.set((cycler.at.get() + 1) % items.len().max(1));
            Ok(now)
        }
        (Value::Loop(state), "cycle") => {
            if !arguments.named.is_empty() {
                return Err(failed("cycle takes no named arguments"));
            }
            let items = &arguments.positional;
            let at = state.index0.get().checked_rem(items.len()).ok_or_else(|| failed("no items for cycling given"))?;
            Ok(items.get(at).cloned().unwrap_or(Value::None))
        }
        (Value::Loop(state), "changed") => {
            if !arguments.named.is_empty() {
                return Err(failed("changed takes no named arguments"));
            }
            let now = Value::tuple(limits, arguments.positional.clone())?;
            let before = state.changed.borrow().clone();
            let same = match before {
                Some(before) => equal(limits, &Value::tuple(limits, before)?, &now)?,
                None => false,
            };
            if !same {
                let _old = state.changed.replace(Some(arguments.positional.clone()));
            }
            Ok(Value::Bool(!same))
        }
        _ => Err(refused(format!("the method {name} of an object of type {}", this.type_name()))),
    }
}

/// An attribute of the variable `loop`.
pub(super) fn loop_attribute(render: &dyn Runtime, state: &Rc<LoopState>, name: &str) -> Result<Option<Value>> {
    let number = |value: usize| Ok(Some(Value::Int(value as i128)));
    let index0 = state.index0.get();
    super::runtime::runs(state)?;
    match name {
        "index" => number(index0 + 1),
        "index0" => number(index0),
        "depth" => number(state.depth0 + 1),
        "depth0" => number(state.depth0),
        "first" => Ok(Some(Value::Bool(index0 == 0))),
        "last" => Ok(Some(Value::Bool(render.peek(state)?.is_none()))),
        "length" => number(render.loop_length(state)?),
        "revindex" => number(render.loop_length(state)?.saturating_sub(index0)),
        "revindex0" => number(render.loop_length(state)?.saturating_sub(index0 + 1)),
        "previtem" => Ok(Some(match state.before.borrow().clone() {
            Some(item) => item,
            None => Value::undefined("there is no previous item"),
        })),
        "nextitem" => Ok(Some(match render.peek(state)? {
            Some(item) => item,
            None => Value::undefined("there is no next item"),
        })),
        "cycle" | "changed" => Ok(Some(Value::Method(Rc::new((Value::Loop(state.clone()), name.to_owned()))))),
        _ => Ok(None),
    }
}
