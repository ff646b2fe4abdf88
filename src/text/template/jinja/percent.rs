//! Python's `%` operator on strings: `'%s has %05.1f' % (name, size)`.
//!
//! Read `spec.rs` for how numbers are written.
//! Source of the rules: "printf-style String Formatting" of Python's documentation.

use super::fault::{Result, failed, refused};
use super::limits::{Buffer, Limits};
use super::numbers::number;
use super::print;
use super::spec::{digits, float_as, pad, radix};
use super::value::Value;
use std::rc::Rc;

/// Evaluates `format % values`.
pub(super) fn format(limits: &Rc<Limits>, format: &str, values: &Value) -> Result<Value> {
    let mut out = Buffer::new(limits);
    let mut values = Values { values, taken: 0 };
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push_char(c)?;
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let mut name = String::new();
            let mut open = 1;
            loop {
                match chars.next() {
                    Some(')') if open == 1 => break,
                    Some(c) => {
                        open += i32::from(c == '(') - i32::from(c == ')');
                        name.push(c);
                    }
                    None => return Err(failed("incomplete format key")),
                }
            }
            named = Some(name);
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            if !flags.contains(flag) {
                flags.push(flag);
            }
        }
        let mut left = flags.contains('-');
        let width = match chars.next_if_eq(&'*') {
            Some(_) => {
                let width = super::call::int(values.take()?, "a width")?;
                left |= width < 0;
                usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX)
            }
            None => digits(&mut chars)?.unwrap_or(0),
        };
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            precision = match chars.next_if_eq(&'*') {
                Some(_) => Some(super::call::size(values.take()?, "a precision")?),
                None => Some(digits(&mut chars)?.unwrap_or(0)),
            };
        }
        let _length = chars.next_if(|c| ['h', 'l', 'L'].contains(c));
        let Some(kind) = chars.next() else { return Err(failed("incomplete format")) };
        if kind == '%' {
            if width > 0 || precision.is_some() || !flags.is_empty() || named.is_some() {
                return Err(refused("a percent sign with flags or a width"));
            }
            out.push("%")?;
            continue;
        }
        let value = match &named {
            Some(name) => values.named(limits, name)?,
            None => values.take()?.clone(),
        };
        let one = One { flags: &flags, left, width, precision, kind };
        one.write(&mut out, limits, &value)?;
    }
    values.done()?;
    Ok(Value::from_buffer(out))
}

struct Values<'v> {
    values: &'v Value,
    taken: usize,
}

impl<'v> Values<'v> {
    fn take(&mut self) -> Result<&'v Value> {
        self.taken += 1;
        let value = match self.values {
            Value::Tuple(seq) => seq.items.get(self.taken - 1),
            one => (self.taken == 1).then_some(one),
        };
        value.ok_or_else(|| failed("not enough arguments for format string"))
    }

    fn named(&mut self, limits: &Rc<Limits>, name: &str) -> Result<Value> {
        self.taken = usize::MAX;
        match self.values {
            Value::Dict(dict) => match dict.get_str(limits, name)? {
                Some(value) => Ok(value.clone()),
                None => Err(failed(format!("a format names {name:?}, which is not given"))),
            },
            _ => Err(failed("format requires a mapping")),
        }
    }

    /// Unused values are an error, unless they may be looked up by name.
    fn done(&self) -> Result<()> {
        let left = match self.values {
            Value::Tuple(seq) => self.taken < seq.items.len(),
            Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_) => false,
            _ => self.taken == 0,
        };
        if left { Err(failed("not all arguments converted during string formatting")) } else { Ok(()) }
    }
}

struct One<'f> {
    flags: &'f str,
    left: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

impl One<'_> {
    fn write(&self, out: &mut Buffer, limits: &Rc<Limits>, value: &Value) -> Result<()> {
        match self.kind {
            's' | 'r' | 'a' => {
                if matches!((self.kind, value), ('s', Value::Markup(_))) {
                    return Err(refused("formatting an escaped text"));
                }
                let mut text = Buffer::new(limits);
                match self.kind {
                    's' => print::print(&mut text, limits, value)?,
                    _ => print::repr(&mut text, limits, value)?,
                }
                if self.kind == 'a' {
                    let mut ascii = Buffer::new(limits);
                    print::ascii(&mut ascii, text.as_str())?;
                    text = ascii;
                }
                let max = self.precision.unwrap_or(usize::MAX);
                self.pad(out, "", super::strings::char_range(text.as_str(), 0, max), false)
            }
            'c' => match (value.as_str(), value) {
                (Some(text), _) if text.chars().count() == 1 => self.pad(out, "", text, false),
                (None, Value::Int(_) | Value::Bool(_)) => {
                    let code = value.as_int().unwrap_or(-1);
                    let c = u32::try_from(code).ok().and_then(char::from_u32);
                    let c = c.ok_or_else(|| failed("%c needs the code of a character"))?;
                    self.pad(out, "", c.encode_utf8(&mut [0; 4]), false)
                }
                _ => Err(failed("%c requires an integer or one character")),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                value.defined()?;
                let whole = match (value.as_int(), value) {
                    (Some(whole), _) => whole,
                    (None, Value::Float(float)) if "diu".contains(self.kind) => {
                        if !float.is_finite() {
                            return Err(failed("cannot convert a float that is not finite to an integer"));
                        }
                        if float.abs() > 1e38 {
                            return Err(super::numbers::too_large());
                        }
                        float.trunc() as i128
                    }
                    _ => return Err(failed(format!("%{} needs a number, not {}", self.kind, value.type_name()))),
                };
                let (prefix, mut digits) = radix(whole.unsigned_abs(), self.kind);
                let prefix = if self.flags.contains('#') { prefix } else { "" };
                if let Some(least) = self.precision.filter(|least| *least > digits.len()) {
                    let mut padded = Buffer::new(limits);
                    padded.repeat("0", least - digits.len())?;
                    padded.push(&digits)?;
                    digits = padded.into_parts().0;
                }
                self.pad(out, &format!("{}{prefix}", self.sign(whole < 0)), &digits, true)
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                value.defined()?;
                let float =
                    number(value).ok_or_else(|| failed(format!("must be a number, not {}", value.type_name())))?;
                let alternate = self.flags.contains('#');
                let body = float_as(float.abs(), self.kind, self.precision.unwrap_or(6), alternate)?;
                let negative = float.is_sign_negative() && !float.is_nan();
                self.pad(out, self.sign(negative), &body, true)
            }
            other => Err(failed(format!("unsupported format character {other:?}"))),
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match negative {
            true => "-",
            false if self.flags.contains('+') => "+",
            false if self.flags.contains(' ') => " ",
            false => "",
        }
    }

    fn pad(&self, out: &mut Buffer, sign: &str, body: &str, number: bool) -> Result<()> {
        let zeros = number && self.flags.contains('0') && !self.left;
        let (fill, align) = if zeros { ('0', '=') } else { (' ', if self.left { '<' } else { '>' }) };
        pad(out, sign, body, self.width, fill, align)
    }
}
