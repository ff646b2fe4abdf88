//! The filters of Jinja2, which are written after `|`. This file has those of numbers and of any value.
//!
//! Read `text_filters.rs` and `list_filters.rs` for the others.
//! Source of their definitions: `jinja2/filters.py` of Jinja2 3.1.

use super::call::{Arguments, int, required};
use super::fault::{Result, failed, refused};
use super::numbers::too_large;
use super::operators;
use super::runtime::Runtime;
use super::strings::is_space;
use super::value::Value;
use super::{access, json, list_filters, text_filters};

/// Filters that exist in Jinja2 and that fanfold refuses when they are reached.
const REFUSED: [&str; 6] = ["pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"];
const NAMES: [&str; 10] = ["abs", "attr", "count", "d", "default", "float", "int", "length", "round", "tojson"];

/// Whether Jinja2 has the filter.
pub(super) fn exists(name: &str) -> bool {
    let here = NAMES.contains(&name) || REFUSED.contains(&name);
    here || text_filters::NAMES.contains(&name) || list_filters::NAMES.contains(&name)
}

/// Evaluates `value | name(arguments)`.
pub(super) fn call(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    limits.charge(1)?;
    if text_filters::NAMES.contains(&name) {
        return text_filters::call(render, name, value, arguments);
    }
    if list_filters::NAMES.contains(&name) {
        return list_filters::call(render, name, value, arguments);
    }
    match name {
        "default" | "d" => {
            let [default, boolean] = arguments.bind(name, ["default_value", "boolean"])?;
            let falsy = boolean.is_some_and(Value::truth) && !render.truth(value)?;
            match default {
                _ if !matches!(value, Value::Undefined(_)) && !falsy => Ok(value.clone()),
                Some(default) => Ok(default.clone()),
                None => Value::text(limits, ""),
            }
        }
        "tojson" => json::to_json(limits, value, arguments),
        "length" | "count" => {
            let [] = arguments.positions(name, 0)?;
            Ok(Value::Int(render.length(value)? as i128))
        }
        "attr" => {
            let [attribute] = arguments.bind(name, ["name"])?;
            let attribute = super::call::text(required(attribute, name, "name")?, "a name")?;
            value.defined()?;
            let found = access::own(render, value, attribute)?;
            let missing = || Value::undefined(format!("{} has no attribute '{attribute}'", value.type_name()));
            Ok(found.unwrap_or_else(missing))
        }
        "abs" => {
            let [] = arguments.positions(name, 0)?;
            match (value.as_int(), value) {
                (Some(whole), _) => whole.checked_abs().map(Value::Int).ok_or_else(too_large),
                (_, Value::Float(float)) => Ok(Value::Float(float.abs())),
                _ => Err(failed(format!("bad operand type for abs(): '{}'", value.type_name()))),
            }
        }
        "int" => {
            let [default, base] = arguments.bind(name, ["default", "base"])?;
            let base = base.map_or(Ok(10), |base| int(base, "a base"))?;
            let read = to_int(value, base)?;
            Ok(read.map(Value::Int).or(default.cloned()).unwrap_or(Value::Int(0)))
        }
        "float" => {
            let [default] = arguments.bind(name, ["default"])?;
            value.defined()?;
            let read = match value.as_str() {
                Some(text) => to_float(text)?,
                None => super::numbers::number(value),
            };
            Ok(read.map(Value::Float).or(default.cloned()).unwrap_or(Value::Float(0.0)))
        }
        "round" => {
            let [precision, method] = arguments.bind(name, ["precision", "method"])?;
            let precision = precision.map_or(Ok(0), |precision| int(precision, "a precision"))?;
            match method.map_or(Some("common"), Value::as_str) {
                Some("common") => operators::round(value, precision),
                Some(method @ ("ceil" | "floor")) => directed(value, precision, method),
                _ => Err(failed("method must be common, ceil or floor")),
            }
        }
        _ if REFUSED.contains(&name) => Err(refused(format!("the filter {name}"))),
        _ => Err(failed(format!("no filter is called {name}"))),
    }
}

/// Rounds up or down: `ceil(value * 10**precision) / 10**precision`.
fn directed(value: &Value, precision: i128, method: &str) -> Result<Value> {
    let Some(number) = super::numbers::number(value) else {
        value.defined()?;
        return Err(failed(format!("must be a number, not {}", value.type_name())));
    };
    if !(-15..=15).contains(&precision) {
        return Err(refused("rounding up or down at more than 15 digits"));
    }
    let unit = 10_f64.powi(precision as i32);
    let scaled = number * unit;
    if !scaled.is_finite() {
        return Err(failed("cannot convert a float that is not finite to an integer"));
    }
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    if whole.abs() > (1_u64 << 53) as f64 {
        return Err(refused("rounding up or down numbers of more than 53 bits"));
    }
    // For integers Python divides without floats here, so there is no negative zero.
    Ok(Value::Float((whole + 0.0) / unit))
}

/// Python's `int(value, base)`; `None` if the filter returns its default.
fn to_int(value: &Value, base: i128) -> Result<Option<i128>> {
    value.defined()?;
    if let Some(whole) = value.as_int() {
        return Ok(Some(whole));
    }
    let (float, text) = match (value, value.as_str()) {
        (Value::Float(float), _) => (Some(*float), false),
        (_, Some(text)) => {
            if base != 0 && !(2..=36).contains(&base) {
                return Ok(to_float(text)?.filter(|float| float.is_finite()).map(|float| float as i128));
            }
            if let Some(whole) = read_int(text, base as u32)? {
                return Ok(Some(whole));
            }
            (to_float(text)?, true)
        }
        _ => (None, false),
    };
    match float {
        Some(float) if float.is_infinite() && !text => Err(failed("cannot convert float infinity to integer")),
        Some(float) if float.abs() > 1e38 && float.is_finite() => Err(too_large()),
        Some(float) if float.is_finite() => Ok(Some(float.trunc() as i128)),
        _ => Ok(None),
    }
}

fn read_int(text: &str, base: u32) -> Result<Option<i128>> {
    let text = text.trim_matches(is_space);
    if !text.is_ascii() {
        return non_ascii(text);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = match lower.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let (base, digits) = match (base, prefix) {
        (0, Some(prefix)) => (prefix, &lower[2..]),
        (0, None) if lower.starts_with('0') && lower.bytes().any(|b| b != b'0' && b != b'_') => return Ok(None),
        (0, None) => (10, lower.as_str()),
        (base, Some(prefix)) if base == prefix => (base, &lower[2..]),
        (base, _) => (base, lower.as_str()),
    };
    let after_prefix = digits.len() < lower.len();
    let digits = if after_prefix { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    let single = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    let digits = digits.replace('_', "");
    if digits.is_empty() || !single || !digits.chars().all(|c| c.is_digit(base)) {
        return Ok(None);
    }
    let sign = if negative { "-" } else { "" };
    i128::from_str_radix(&format!("{sign}{digits}"), base).map(Some).map_err(|_| too_large())
}

/// Python's `float(text)`.
fn to_float(text: &str) -> Result<Option<f64>> {
    let text = text.trim_matches(is_space);
    if !text.is_ascii() {
        return non_ascii(text);
    }
    let bytes = text.as_bytes();
    let between = |at: usize| {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        digit(at.checked_sub(1)) && digit(Some(at + 1))
    };
    if !text.match_indices('_').all(|(at, _)| between(at)) {
        return Ok(None);
    }
    Ok(text.replace('_', "").parse().ok())
}

/// Python accepts the digits of every script.
fn non_ascii<T>(text: &str) -> Result<Option<T>> {
    if text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
        return Err(refused("reading a number whose digits are not ASCII"));
    }
    Ok(None)
}
