//! Python's arithmetic on numbers, strings and lists.
//!
//! Integers have 128 bits. A larger result is refused, although Python would compute it. The memory of a result is
//! counted before it is made. Read `value/mod.rs` first.

use super::ast::Binary;
use super::fault::{Result, failed, refused};
use super::limits::{Buffer, Limits};
use super::numbers::{number, too_large};
use super::percent;
use super::value::Value;
use std::rc::Rc;

/// The result of a binary operator on `a` and `b`.
pub(super) fn binary(limits: &Rc<Limits>, operator: Binary, a: &Value, b: &Value) -> Result<Value> {
    limits.charge(1)?;
    a.defined()?;
    if let (Binary::Modulo, Value::Str(format)) = (operator, a) {
        return percent::format(limits, format.as_str(), b);
    }
    b.defined()?;
    if matches!(a, Value::Markup(_)) || matches!(b, Value::Markup(_)) {
        return Err(refused("an operator on an escaped text, which escapes the other one"));
    }
    match operator {
        Binary::Add => match (a, b) {
            (Value::Str(x), Value::Str(y)) => {
                let mut out = Buffer::new(limits);
                out.push(x.as_str())?;
                out.push(y.as_str())?;
                return Ok(Value::from_buffer(out));
            }
            (Value::List(x), Value::List(y)) => return Value::list(limits, joined(limits, &x.items, &y.items)?),
            (Value::Tuple(x), Value::Tuple(y)) => return Value::tuple(limits, joined(limits, &x.items, &y.items)?),
            _ => {}
        },
        Binary::Multiply => {
            let (values, times) = if a.as_int().is_some() { (b, a) } else { (a, b) };
            if let Some(times) = times.as_int() {
                // As in Python, a negative count gives the empty sequence.
                let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
                match values {
                    Value::Str(text) => {
                        let mut out = Buffer::new(limits);
                        out.repeat(text.as_str(), times)?;
                        return Ok(Value::from_buffer(out));
                    }
                    Value::List(seq) => return Value::list(limits, repeated(limits, &seq.items, times)?),
                    Value::Tuple(seq) => return Value::tuple(limits, repeated(limits, &seq.items, times)?),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    match (a.as_int(), b.as_int()) {
        (Some(x), Some(y)) => integers(operator, x, y),
        _ => match (number(a), number(b)) {
            (Some(x), Some(y)) => floats(operator, x, y),
            _ => {
                let (a, b) = (a.type_name(), b.type_name());
                Err(failed(format!("unsupported operand types for {}: '{a}' and '{b}'", symbol(operator))))
            }
        },
    }
}

fn symbol(operator: Binary) -> &'static str {
    match operator {
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::FloorDivide => "//",
        Binary::Modulo => "%",
        Binary::Power => "**",
    }
}

fn joined(limits: &Limits, a: &[Value], b: &[Value]) -> Result<Vec<Value>> {
    limits.charge(a.len() as u64 + b.len() as u64)?;
    Ok([a, b].concat())
}

fn repeated(limits: &Rc<Limits>, items: &[Value], times: usize) -> Result<Vec<Value>> {
    let count = items.len().saturating_mul(times);
    limits.charge(count as u64)?;
    // The memory is counted before the result is made.
    drop(limits.lease(count.saturating_mul(size_of::<Value>()))?);
    let mut all = Vec::new();
    if !items.is_empty() {
        all.extend((0..times).flat_map(|_| items.iter().cloned()));
    }
    Ok(all)
}

/// `-a` or `+a`.
pub(super) fn sign(negative: bool, a: &Value) -> Result<Value> {
    a.defined()?;
    match (a.as_int(), a) {
        (Some(x), _) if negative => x.checked_neg().map(Value::Int).ok_or_else(too_large),
        (Some(x), _) => Ok(Value::Int(x)),
        (_, Value::Float(x)) => Ok(Value::Float(if negative { -x } else { *x })),
        _ => Err(failed(format!("bad operand type for unary operator: '{}'", a.type_name()))),
    }
}

fn integers(operator: Binary, x: i128, y: i128) -> Result<Value> {
    let zero = || failed("division by zero");
    let result = match operator {
        Binary::Add => x.checked_add(y),
        Binary::Subtract => x.checked_sub(y),
        Binary::Multiply => x.checked_mul(y),
        Binary::Divide => {
            const EXACT: i128 = 1 << 53;
            if y == 0 {
                return Err(zero());
            }
            if x.abs_diff(0) > EXACT as u128 || y.abs_diff(0) > EXACT as u128 {
                return Err(refused("dividing integers of more than 53 bits"));
            }
            return Ok(Value::Float(x as f64 / y as f64));
        }
        Binary::FloorDivide | Binary::Modulo if y == 0 => return Err(zero()),
        Binary::FloorDivide => x.checked_div_euclid(y).and_then(|quotient| {
            // Euclid's remainder is never negative; Python's remainder has the sign of the divisor.
            if y < 0 && x.rem_euclid(y) != 0 { quotient.checked_sub(1) } else { Some(quotient) }
        }),
        Binary::Modulo => x.checked_rem_euclid(y).map(|rest| if y < 0 && rest != 0 { rest + y } else { rest }),
        Binary::Power if y < 0 => return floats(operator, x as f64, y as f64),
        Binary::Power => match x {
            0 | 1 => Some(if y == 0 { 1 } else { x }),
            -1 => Some(if y % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        },
    };
    result.map(Value::Int).ok_or_else(too_large)
}

fn floats(operator: Binary, x: f64, y: f64) -> Result<Value> {
    let divides = matches!(operator, Binary::Divide | Binary::FloorDivide | Binary::Modulo);
    if divides && y == 0.0 {
        return Err(failed("float division by zero"));
    }
    Ok(Value::Float(match operator {
        Binary::Add => x + y,
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::Divide => x / y,
        Binary::Modulo => divide(x, y).1,
        Binary::FloorDivide => divide(x, y).0,
        Binary::Power => {
            if x == 0.0 && y < 0.0 {
                return Err(failed("0.0 cannot be raised to a negative power"));
            }
            if x < 0.0 && x.is_finite() && y.is_finite() && y.fract() != 0.0 {
                return Err(refused("a power that is a complex number"));
            }
            let power = x.powf(y);
            if power.is_infinite() && x.is_finite() && y.is_finite() {
                return Err(failed("the result of a power is too large"));
            }
            power
        }
    }))
}

/// Python's `divmod` of floats: the remainder has the sign of the divisor.
fn divide(x: f64, y: f64) -> (f64, f64) {
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest != 0.0 {
        if (y < 0.0) != (rest < 0.0) {
            rest += y;
            quotient -= 1.0;
        }
    } else {
        rest = 0.0_f64.copysign(y);
    }
    let floor = if quotient != 0.0 {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    } else {
        0.0_f64.copysign(x / y)
    };
    (floor, rest)
}

/// Python's `round(value, digits)`.
pub(super) fn round(value: &Value, digits: i128) -> Result<Value> {
    if let Some(whole) = value.as_int() {
        if digits >= 0 {
            return Ok(Value::Int(whole));
        }
        let unit = digits.checked_neg().and_then(|digits| u32::try_from(digits).ok());
        let Some(unit) = unit.and_then(|digits| 10_i128.checked_pow(digits)) else { return Ok(Value::Int(0)) };
        let rest = whole.rem_euclid(unit);
        let below = whole.checked_sub(rest).ok_or_else(too_large)?;
        let odd = (below / unit) % 2 != 0;
        let up = rest > unit - rest || (rest == unit - rest && odd);
        return if up { below.checked_add(unit) } else { Some(below) }.map(Value::Int).ok_or_else(too_large);
    }
    let Value::Float(value) = value else {
        value.defined()?;
        return Err(failed(format!("type {} does not define rounding", value.type_name())));
    };
    if !value.is_finite() || digits > 323 || *value == 0.0 {
        return Ok(Value::Float(*value));
    }
    if digits < -308 {
        return Ok(Value::Float(0.0_f64.copysign(*value)));
    }
    let rounded = if digits >= 0 {
        // As in Python, the digits of the exact value are rounded half to even.
        format!("{:.*}", digits as usize, value).parse().unwrap_or(*value)
    } else {
        // Here integers are rounded, and the digits removed decide where exactly half is.
        let unit = 10_f64.powi(-digits as i32);
        let quotient = (value / unit).round_ties_even();
        if (value / unit).fract().abs() == 0.5 || value.abs() > 1e15 {
            return Err(refused("rounding a float at a digit before the point where it lies in the middle"));
        }
        quotient * unit
    };
    if rounded.is_infinite() { Err(failed("rounded value too large to represent")) } else { Ok(Value::Float(rounded)) }
}
