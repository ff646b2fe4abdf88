//! Equality, order, membership and sorting of values, as in Python.
//!
//! Each comparison of two values takes a step. Sorting does not use the standard library's: a comparison may fail, and
//! one that is not a total order must not panic. Read `value/mod.rs` first.

use super::fault::{Result, failed, refused};
use super::limits::Limits;
use super::value::{Cursor, Value, View};
use std::cmp::Ordering;
use std::rc::Rc;

/// Python's `==`.
pub(super) fn equal(limits: &Rc<Limits>, a: &Value, b: &Value) -> Result<bool> {
    limits.charge(1)?;
    if let Some(order) = numbers(a, b) {
        return Ok(order? == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => {
            let (a, b) = (a.as_str().unwrap_or_default(), b.as_str().unwrap_or_default());
            limits.charge_bytes(a.len().min(b.len()))?;
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !same_or_equal(limits, a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                match b.get(limits, key)? {
                    Some(other) if same_or_equal(limits, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Range(a), Value::Range(b)) => {
            let length = a.len();
            length == b.len() && (length == 0 || (a.start == b.start && (length == 1 || a.step == b.step)))
        }
        (Value::View(..), Value::View(..)) => return unsure(),
        (Value::Function(a), Value::Function(b)) => a == b,
        (Value::Method(_), Value::Method(_)) => return unsure(),
        _ => is(a, b),
    })
}

fn unsure<T>() -> Result<T> {
    Err(refused("comparing views or methods"))
}

/// Whether two items are the same object or equal, which is how Python compares the items of containers.
fn same_or_equal(limits: &Rc<Limits>, a: &Value, b: &Value) -> Result<bool> {
    if is(a, b) {
        // Python considers an object equal to itself without comparing its contents.
        return Ok(true);
    }
    if let (Value::Float(a), Value::Float(b)) = (a, b)
        && a.is_nan()
        && b.is_nan()
    {
        return Err(refused("comparing items that are nan, whose answer depends on their identity"));
    }
    limits.deeper(|| equal(limits, a, b))
}

/// Whether both values are the same object, for values with an identity of their own.
pub(super) fn is(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Iterator(a), Value::Iterator(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Loop(a), Value::Loop(b)) => Rc::ptr_eq(a, b),
        (Value::Cycler(a), Value::Cycler(b)) => Rc::ptr_eq(a, b),
        (Value::Joiner(a), Value::Joiner(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}

/// The order of two numbers. The outer result is `None` if one value is not a number, the inner one if one is nan.
fn numbers(a: &Value, b: &Value) -> Option<Result<Option<Ordering>>> {
    Some(Ok(match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Float(a), _) => int_to_float(b.as_int()?, *a).map(Ordering::reverse),
        (_, Value::Float(b)) => int_to_float(a.as_int()?, *b),
        _ => Some(a.as_int()?.cmp(&b.as_int()?)),
    }))
}

/// Compares exactly, as Python does, without rounding the integer to a float.
fn int_to_float(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    if b.abs() >= 1.7e38 {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = b.trunc();
    Some(a.cmp(&(whole as i128)).then(0.0.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal)))
}

/// The order of two values; `None` if neither is less and they are not equal, as with nan.
pub(super) fn order(limits: &Rc<Limits>, a: &Value, b: &Value, operator: &str) -> Result<Option<Ordering>> {
    limits.charge(1)?;
    a.defined()?;
    b.defined()?;
    if let Some(order) = numbers(a, b) {
        return order;
    }
    match (a, b) {
        (Value::Str(_) | Value::Markup(_), Value::Str(_) | Value::Markup(_)) => {
            let (a, b) = (a.as_str().unwrap_or_default(), b.as_str().unwrap_or_default());
            limits.charge_bytes(a.len().min(b.len()))?;
            // The bytes of UTF-8 sort in the order of code points.
            Ok(Some(a.cmp(b)))
        }
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
            for (a, b) in x.items.iter().zip(&y.items) {
                if !same_or_equal(limits, a, b)? {
                    return limits.deeper(|| order(limits, a, b, operator));
                }
            }
            Ok(Some(x.items.len().cmp(&y.items.len())))
        }
        (Value::View(..), Value::View(..)) => unsure(),
        _ => {
            let (a, b) = (a.type_name(), b.type_name());
            Err(failed(format!("'{operator}' not supported between instances of '{a}' and '{b}'")))
        }
    }
}

/// Python's `in`.
pub(super) fn contains(limits: &Rc<Limits>, needle: &Value, value: &Value) -> Result<bool> {
    match value {
        Value::Str(text) | Value::Markup(text) => match needle.as_str() {
            Some(needle) => {
                limits.charge_bytes(text.as_str().len())?;
                Ok(text.as_str().contains(needle))
            }
            None => Err(failed(format!("'in <string>' requires string as left operand, not {}", needle.type_name()))),
        },
        Value::Dict(dict) | Value::View(View::Keys, dict) => Ok(dict.get(limits, needle)?.is_some()),
        Value::Namespace(_) | Value::Function(_) | Value::Method(_) | Value::Macro(_) => {
            Err(failed(format!("argument of type '{}' is not iterable", value.type_name())))
        }
        _ => {
            let mut cursor = Cursor::of(value)?;
            while let Some(item) = cursor.next(limits)? {
                if same_or_equal(limits, needle, &item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// Sorts `items` by `less` with a stable merge sort, in which a comparison may fail.
pub(super) fn sort<T: Clone>(items: &[T], less: &mut impl FnMut(&T, &T) -> Result<bool>) -> Result<Vec<T>> {
    if items.len() < 2 {
        return Ok(items.to_vec());
    }
    let (left, right) = items.split_at(items.len() / 2);
    let (left, right) = (sort(left, less)?, sort(right, less)?);
    let mut merged = Vec::with_capacity(items.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if less(b, a)? => merged.extend(right.next()),
            (Some(_), _) => merged.extend(left.next()),
            (None, _) => {
                merged.extend(right);
                return Ok(merged);
            }
        }
    }
}

/// Whether `a` sorts before `b`. Values without an order (nan) are refused, because the result would depend on the
/// algorithm.
pub(super) fn sorts_before(limits: &Rc<Limits>, a: &Value, b: &Value) -> Result<bool> {
    match order(limits, a, b, "<")? {
        Some(order) => Ok(order == Ordering::Less),
        None => Err(refused("sorting nan")),
    }
}
