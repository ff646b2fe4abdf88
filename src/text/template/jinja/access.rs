//! `value.name`, `value[key]` and `value[from:to]`, as Jinja2's immutable sandbox allows them.
//!
//! `value.name` looks for an attribute first, `value['name']` for an item first. A method that would change a value
//! gives an undefined value; a method that Python has and fanfold lacks is refused. Read `text_methods.rs` and
//! `methods.rs` for the methods.

use super::fault::{Result, failed, refused};
use super::methods;
use super::runtime::Runtime;
use super::text_methods;
use super::value::{Range, Value};
use std::rc::Rc;

/// Evaluates `value.name`.
pub(super) fn attribute(render: &dyn Runtime, value: &Value, name: &str) -> Result<Value> {
    render.limits().charge(1)?;
    value.defined()?;
    if let Some(found) = own(render, value, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = dict.get_str(render.limits(), name)?
    {
        return Ok(found.clone());
    }
    Ok(missing(value, name))
}

/// Evaluates `value[key]`.
pub(super) fn item(render: &dyn Runtime, value: &Value, key: &Value) -> Result<Value> {
    render.limits().charge(1)?;
    value.defined()?;
    let found = match (value, key.as_int()) {
        (Value::Dict(dict), _) => {
            let hashable = !matches!(key, Value::List(_) | Value::Dict(_));
            if hashable { dict.get(render.limits(), key)?.cloned() } else { None }
        }
        (Value::Str(text), Some(index)) => {
            let text = text.as_str();
            render.limits().charge_bytes(text.len())?;
            let index = position(index, if text.is_ascii() { text.len() } else { text.chars().count() });
            match index.and_then(|index| text.chars().nth(index)) {
                Some(c) => Some(Value::text(render.limits(), c)?),
                None => None,
            }
        }
        (Value::List(seq) | Value::Tuple(seq), Some(index)) => {
            position(index, seq.items.len()).and_then(|index| seq.items.get(index)).cloned()
        }
        (Value::Range(range), Some(index)) => position(index, range.len()).map(|index| Value::Int(range.at(index))),
        (Value::Markup(_), _) => return Err(refused("a part of an escaped text")),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Some(name) = key.as_str()
        && let Some(found) = own(render, value, name)?
    {
        return Ok(found);
    }
    match key.as_str() {
        Some(name) => Ok(missing(value, name)),
        None => Ok(Value::undefined(format!("{} object has no such element", value.type_name()))),
    }
}

fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name()))
}

/// A Python index as a position; a negative one counts from the end.
fn position(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i128)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// An attribute that Python finds on the object itself and not among its items.
pub(super) fn own(render: &dyn Runtime, value: &Value, name: &str) -> Result<Option<Value>> {
    let unsafe_one = || {
        let of = value.type_name();
        Ok(Some(Value::undefined(format!("access to attribute '{name}' of '{of}' object is unsafe"))))
    };
    let method = || Ok(Some(Value::Method(Rc::new((value.clone(), name.to_owned())))));
    let lacking = || Err(refused(format!("the attribute {name} of an object of type {}", value.type_name())));
    if name.starts_with("__") {
        return if matches!(value, Value::Dict(dict) if dict.get_str(render.limits(), name)?.is_some()) {
            lacking()
        } else {
            unsafe_one()
        };
    }
    Ok(match (value, name) {
        (Value::Undefined(_), _) => return value.defined().map(|()| None),
        (Value::Str(_), _) if text_methods::exists(name) => return method(),
        (Value::Str(_), "encode" | "isidentifier" | "isprintable" | "maketrans" | "translate") => return lacking(),
        (Value::Markup(_), _) => return Err(refused(format!("the attribute {name} of an escaped text"))),
        (Value::Dict(_), "get" | "items" | "keys" | "values" | "copy") => return method(),
        (Value::Dict(_), "clear" | "pop" | "popitem" | "setdefault" | "update") => return unsafe_one(),
        (Value::Dict(_), "fromkeys") => return lacking(),
        (Value::List(_), "index" | "count" | "copy") => return method(),
        (Value::List(_), "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove") => {
            return unsafe_one();
        }
        (Value::Tuple(seq), "grouper") if seq.group => seq.items.first().cloned(),
        (Value::Tuple(seq), "list") if seq.group => seq.items.get(1).cloned(),
        (Value::Tuple(_) | Value::Range(_), "index" | "count") => return method(),
        (Value::Range(range), "start") => Some(Value::Int(range.start)),
        (Value::Range(range), "stop") => Some(Value::Int(range.stop)),
        (Value::Range(range), "step") => Some(Value::Int(range.step)),
        (
            Value::Int(_) | Value::Bool(_) | Value::Float(_),
            "real" | "imag" | "numerator" | "denominator" | "conjugate" | "bit_length" | "bit_count" | "to_bytes"
            | "from_bytes" | "as_integer_ratio" | "is_integer" | "hex" | "fromhex",
        ) => return lacking(),
        (Value::View(..), "isdisjoint" | "mapping") => return lacking(),
        (Value::Iterator(_), "send" | "throw" | "close") => return lacking(),
        (Value::Namespace(space), _) => {
            let entries = space.entries.borrow();
            render.limits().charge(entries.len() as u64)?;
            entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
        }
        (Value::Macro(of), "name") => match &of.definition.name {
            Some(name) => Some(Value::text(render.limits(), name.as_str())?),
            None => Some(Value::None),
        },
        (Value::Macro(_), "arguments" | "catch_kwargs" | "catch_varargs" | "caller" | "explicit_caller") => {
            return lacking();
        }
        (Value::Loop(state), _) => return methods::loop_attribute(render, state, name),
        (Value::Cycler(cycler), "current") => cycler.items.items.get(cycler.at.get()).cloned(),
        (Value::Cycler(_), "next" | "reset") => return method(),
        (Value::Cycler(_), "items" | "pos") | (Value::Joiner(_), "sep" | "used") => return lacking(),
        (Value::Function(super::value::Function::Dict), "fromkeys") => return lacking(),
        _ => None,
    })
}

/// Evaluates `value[from:to:step]`.
pub(super) fn slice(render: &dyn Runtime, value: &Value, bounds: [Option<Value>; 3]) -> Result<Value> {
    let limits = render.limits();
    value.defined()?;
    let mut given = [None; 3];
    for (slot, bound) in given.iter_mut().zip(&bounds) {
        *slot = match bound {
            None | Some(Value::None) => None,
            Some(bound) => match bound.as_int() {
                Some(bound) => Some(bound),
                None => return Err(refused(format!("a slice bounded by {}", bound.type_name()))),
            },
        };
    }
    let length = match value {
        Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(_) => value.len().unwrap_or(0),
        Value::Markup(_) => return Err(refused("a part of an escaped text")),
        // Jinja2 raises an error here, or gives an undefined value if it can tell at compile time.
        other => return Err(refused(format!("a slice of an object of type {}", other.type_name()))),
    };
    let range = indices(given, length)?;
    limits.charge(range.len() as u64 / 16 + 1)?;
    let picked = |items: &[Value]| -> Vec<Value> {
        (0..range.len()).filter_map(|i| items.get(range.at(i) as usize).cloned()).collect()
    };
    match value {
        Value::Str(text) => {
            let text = text.as_str();
            limits.charge_bytes(text.len())?;
            if range.step == 1 {
                let part = super::strings::char_range(text, range.start as usize, range.stop as usize);
                return Value::text(limits, part);
            }
            // A character takes up to four bytes.
            let _held = limits.lease(text.len().saturating_mul(4))?;
            let chars: Vec<char> = text.chars().collect();
            let part: String = (0..range.len()).filter_map(|i| chars.get(range.at(i) as usize)).collect();
            Value::text(limits, part)
        }
        Value::List(seq) => Value::list(limits, picked(&seq.items)),
        Value::Tuple(seq) => Value::tuple(limits, picked(&seq.items)),
        Value::Range(of) => {
            let at = |index: i128| of.start.saturating_add(of.step.saturating_mul(index));
            let step = of.step.saturating_mul(range.step);
            Ok(Value::Range(Range { start: at(range.start), stop: at(range.stop), step }))
        }
        _ => Ok(Value::None),
    }
}

/// The positions that a slice selects, as Python's `slice.indices` computes them.
fn indices(given: [Option<i128>; 3], length: usize) -> Result<Range> {
    let [from, to, step] = given;
    let step = step.unwrap_or(1);
    let length = length as i128;
    if step == 0 {
        return Err(failed("slice step cannot be zero"));
    }
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |at: i128| (if at < 0 { at.saturating_add(length) } else { at }).clamp(lowest, highest);
    let start = from.map_or(if step > 0 { lowest } else { highest }, clamp);
    let stop = to.map_or(if step > 0 { highest } else { lowest }, clamp);
    Ok(Range { start, stop, step })
}
