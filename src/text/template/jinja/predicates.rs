//! The tests of Jinja2, which are written after `is`.
//!
//! Read `filters.rs` for the filters.
//! Source of their definitions: `jinja2/tests.py` of Jinja2 3.1.

use super::ast::Binary;
use super::call::{Arguments, required};
use super::compare::{contains, equal, is, order};
use super::fault::{Result, failed, refused};
use super::operators::binary;
use super::runtime::Runtime;
use super::value::Value;
use super::{filters, print, strings};
use std::cmp::Ordering;

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Evaluates `value is name(arguments)`.
pub(super) fn call(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<bool> {
    let limits = render.limits();
    limits.charge(1)?;
    if let Some(answer) = comparison(render, name, value, arguments)? {
        return Ok(answer);
    }
    let rest = |by: &Value, rest: i128| {
        let modulo = binary(limits, Binary::Modulo, value, by)?;
        equal(limits, &modulo, &Value::Int(rest))
    };
    match name {
        "divisibleby" => {
            let [by] = arguments.bind(name, ["num"])?;
            return rest(required(by, name, "num")?, 0);
        }
        "sameas" => {
            let [other] = arguments.bind(name, ["other"])?;
            return same(render, value, required(other, name, "other")?);
        }
        "in" => {
            let [sequence] = arguments.bind(name, ["seq"])?;
            return contains(limits, value, required(sequence, name, "seq")?);
        }
        _ => {}
    }
    let [] = arguments.positions(name, 0)?;
    Ok(match name {
        "odd" => rest(&Value::Int(2), 1)?,
        "even" => rest(&Value::Int(2), 0)?,
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "filter" => filters::exists(value.as_str().unwrap_or_default()),
        "test" => exists(value.as_str().unwrap_or_default()),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "lower" => strings::is_case(&print::string(limits, value)?, false),
        "upper" => strings::is_case(&print::string(limits, value)?, true),
        "string" => value.as_str().is_some(),
        "escaped" => matches!(value, Value::Markup(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => value.len().is_some() && !matches!(value, Value::View(..)),
        "iterable" => value.len().is_some() || matches!(value, Value::Iterator(_) | Value::Loop(_)),
        "callable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Macro(_)
                | Value::Loop(_)
                | Value::Joiner(_)
        ),
        _ => return Err(failed(format!("no test is called {name}"))),
    })
}

fn comparison(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Option<bool>> {
    let (operator, accepts): (&str, &[Ordering]) = match name {
        "==" | "eq" | "equalto" => ("==", &[]),
        "!=" | "ne" => ("!=", &[]),
        ">" | "gt" | "greaterthan" => (">", &[Ordering::Greater]),
        ">=" | "ge" => (">=", &[Ordering::Greater, Ordering::Equal]),
        "<" | "lt" | "lessthan" => ("<", &[Ordering::Less]),
        "<=" | "le" => ("<=", &[Ordering::Less, Ordering::Equal]),
        _ => return Ok(None),
    };
    let [other] = arguments.positions(name, 1)?;
    let other = required(other, name, "value")?;
    Ok(Some(match operator {
        "==" => equal(render.limits(), value, other)?,
        "!=" => !equal(render.limits(), value, other)?,
        _ => order(render.limits(), value, other, operator)?.is_some_and(|order| accepts.contains(&order)),
    }))
}

/// Python's `is`. Whether two equal strings or large numbers are the same object depends on how they were made, so
/// that is refused.
fn same(render: &dyn Runtime, a: &Value, b: &Value) -> Result<bool> {
    Ok(match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Int(a), Value::Int(b)) if a != b => false,
        (Value::Int(-5..=256), Value::Int(_)) => true,
        (Value::Str(_), Value::Str(_)) if !equal(render.limits(), a, b)? => false,
        (Value::Tuple(x), Value::Tuple(y)) if x.items.is_empty() && y.items.is_empty() => true,
        (Value::List(_) | Value::Dict(_) | Value::Namespace(_) | Value::Macro(_) | Value::Iterator(_), _) => is(a, b),
        _ if a.type_name() != b.type_name() => false,
        _ => return Err(refused(format!("sameas of two objects of type {}", a.type_name()))),
    })
}
