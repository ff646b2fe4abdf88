//! Values as text: Python's `str()` and `repr()`.
//!
//! Each value visited takes a step, and each string is counted before it grows. Values that Python prints with an
//! address, which differs from run to run, are refused. Read `value/mod.rs` first.

use super::fault::{Result, refused};
use super::limits::{Buffer, Limits};
use super::value::Value;
use std::rc::Rc;

/// Appends Python's `str()` of a value.
pub(super) fn print(out: &mut Buffer, limits: &Rc<Limits>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) | Value::Markup(text) => out.push(text.as_str()),
        _ => repr(out, limits, value),
    }
}

/// Python's `str()` of a value.
pub(super) fn string(limits: &Rc<Limits>, value: &Value) -> Result<String> {
    let mut out = Buffer::new(limits);
    print(&mut out, limits, value)?;
    Ok(out.into_parts().0)
}

/// Appends Python's `repr()` of a value.
pub(super) fn repr(out: &mut Buffer, limits: &Rc<Limits>, value: &Value) -> Result<()> {
    limits.charge(1)?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&float(*value)),
        Value::Str(text) => quoted(out, text.as_str()),
        Value::Markup(text) => {
            out.push("Markup(")?;
            quoted(out, text.as_str())?;
            out.push(")")
        }
        Value::List(seq) => list(out, limits, "[", &seq.items, "]"),
        Value::Tuple(seq) if seq.items.len() == 1 => list(out, limits, "(", &seq.items, ",)"),
        Value::Tuple(seq) => list(out, limits, "(", &seq.items, ")"),
        Value::Dict(dict) => {
            out.push("{")?;
            pairs(out, limits, dict.entries())?;
            out.push("}")
        }
        Value::View(view, _) => {
            let items = super::value::items(limits, value)?;
            out.push(view.name())?;
            list(out, limits, "([", &items, "])")
        }
        Value::Range(range) => {
            out.push(&format!("range({}, {}", range.start, range.stop))?;
            if range.step != 1 {
                out.push(&format!(", {}", range.step))?;
            }
            out.push(")")
        }
        Value::Namespace(space) => {
            out.push("<Namespace {")?;
            pairs(out, limits, &space.entries.borrow())?;
            out.push("}>")
        }
        Value::Macro(of) => match &of.definition.name {
            Some(name) => out.push(&format!("<Macro '{name}'>")),
            None => out.push("<Macro anonymous>"),
        },
        other => Err(refused(format!("printing an object of type {}", other.type_name()))),
    }
}

fn list(out: &mut Buffer, limits: &Rc<Limits>, open: &str, items: &[Value], close: &str) -> Result<()> {
    out.push(open)?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr(out, limits, item)?;
    }
    out.push(close)
}

fn pairs(out: &mut Buffer, limits: &Rc<Limits>, entries: &[(Value, Value)]) -> Result<()> {
    for (i, (key, value)) in entries.iter().enumerate() {
        if i > 0 {
            out.push(", ")?;
        }
        repr(out, limits, key)?;
        out.push(": ")?;
        repr(out, limits, value)?;
    }
    Ok(())
}

/// A string in quotes: single ones, unless it contains single and no double quotes.
pub(super) fn quoted(out: &mut Buffer, text: &str) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            _ if c == quote => {
                out.push("\\")?;
                out.push_char(c)?;
            }
            _ if is_printable(c) => out.push_char(c)?,
            _ => match u32::from(c) {
                code @ ..=0xff => out.push(&format!("\\x{code:02x}"))?,
                code @ ..=0xffff => out.push(&format!("\\u{code:04x}"))?,
                code => out.push(&format!("\\U{code:08x}"))?,
            },
        }
    }
    out.push_char(quote)
}

/// Python's `ascii()`, applied to the result of `repr`.
pub(super) fn ascii(out: &mut Buffer, text: &str) -> Result<()> {
    for c in text.chars() {
        match u32::from(c) {
            ..=0x7f => out.push_char(c)?,
            code @ ..=0xff => out.push(&format!("\\x{code:02x}"))?,
            code @ ..=0xffff => out.push(&format!("\\u{code:04x}"))?,
            code => out.push(&format!("\\U{code:08x}"))?,
        }
    }
    Ok(())
}

/// Python's `str.isprintable` for one character. The standard library's debug format uses the same property of
/// Unicode, and leaves characters that extend the one before them unescaped.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{9f}' => false,
        // These markers surround text in a message that looks like a control token. They are removed before the text
        // is encoded.
        '\u{f0000}' | '\u{f0001}' => true,
        _ => {
            let mut pair = [b'a'; 5];
            let length = 1 + c.encode_utf8(&mut pair[1..]).len();
            let pair = std::str::from_utf8(&pair[..length]).unwrap_or_default();
            pair.escape_debug().nth(1) == Some(c)
        }
    }
}

/// Python's `repr()` of a float: the fewest digits that give the same float, in scientific form beyond 16 digits.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
