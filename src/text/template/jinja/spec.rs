//! Format specifications, the part after the colon in `'{:>8.2f}'.format(x)`, and numbers as text.
//!
//! Widths and precisions are counted before any text is made. Read `brace.rs` and `percent.rs` for the users.
//! Source of the rules: "Format Specification Mini-Language" of Python's documentation.

use super::fault::{Fault, Result, failed, fault, refused};
use super::limits::{Buffer, Limits};
use super::numbers::number;
use super::print;
use super::value::Value;
use std::rc::Rc;

/// A float has no non-zero digits beyond this many after the point.
const PRECISE: usize = 1100;

/// A parsed specification.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn read(spec: &str) -> Result<Self> {
        let mut read = Spec::default();
        let mut chars = spec.chars().peekable();
        let mut ahead = spec.chars();
        let (first, second) = (ahead.next(), ahead.next());
        let is_align = |c: Option<char>| c.is_some_and(|c| ['<', '>', '=', '^'].contains(&c));
        if is_align(second) {
            (read.fill, read.align) = (chars.next(), chars.next());
        } else if is_align(first) {
            read.align = chars.next();
        }
        read.sign = chars.next_if(|c| ['+', '-', ' '].contains(c));
        if chars.next_if_eq(&'z').is_some() {
            return Err(refused("the option z of a format"));
        }
        read.alternate = chars.next_if_eq(&'#').is_some();
        read.zero = chars.next_if_eq(&'0').is_some();
        read.width = digits(&mut chars)?.unwrap_or(0);
        read.grouping = chars.next_if(|c| [',', '_'].contains(c));
        if chars.next_if_eq(&'.').is_some() {
            read.precision = Some(digits(&mut chars)?.ok_or_else(|| failed("a format lacks its precision"))?);
        }
        read.kind = chars.next();
        if chars.next().is_some() {
            return Err(failed("invalid format specifier"));
        }
        Ok(read)
    }
}

/// Reads a decimal number, at most as large as a text may be long.
pub(super) fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Result<Option<usize>> {
    let mut value: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        let next = value.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit as usize));
        value = Some(next.ok_or_else(|| fault(Fault::Printed))?);
        chars.next();
    }
    Ok(value)
}

/// Appends Python's `format(value, spec)`.
pub(super) fn format(out: &mut Buffer, limits: &Rc<Limits>, value: &Value, spec: &str) -> Result<()> {
    if spec.is_empty() {
        return print::print(out, limits, value);
    }
    let spec = Spec::read(spec)?;
    match value {
        Value::Str(text) => {
            let bad = spec.sign.is_some() || spec.alternate || spec.grouping.is_some() || spec.align == Some('=');
            if bad || !matches!(spec.kind, None | Some('s')) {
                return Err(failed("invalid format specifier for a text"));
            }
            let text = match spec.precision {
                Some(max) => super::strings::char_range(text.as_str(), 0, max),
                None => text.as_str(),
            };
            let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
            pad(out, "", text, spec.width, fill, spec.align.unwrap_or('<'))
        }
        Value::Markup(_) => Err(refused("formatting an escaped text")),
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => number_as(out, value, &spec),
        other => Err(failed(format!("unsupported format string for {}", other.type_name()))),
    }
}

fn number_as(out: &mut Buffer, value: &Value, spec: &Spec) -> Result<()> {
    let integer = value.as_int();
    let (negative, prefix, body) = match (spec.kind, integer) {
        (None | Some('d' | 'b' | 'o' | 'x' | 'X'), Some(integer)) => {
            if spec.precision.is_some() {
                return Err(failed("precision is not allowed in the format of an integer"));
            }
            let (prefix, digits) = radix(integer.unsigned_abs(), spec.kind.unwrap_or('d'));
            (integer < 0, if spec.alternate { prefix } else { "" }, digits)
        }
        (Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'), _) | (None, None) => {
            let float = number(value).unwrap_or(0.0);
            let body = match (spec.kind, spec.precision) {
                (None, None) => print::float(float.abs()),
                (None, Some(_)) => return Err(refused("a format with a precision and no type")),
                (Some(kind), precision) => float_as(float.abs(), kind, precision.unwrap_or(6), spec.alternate)?,
            };
            (float.is_sign_negative() && !float.is_nan(), "", body)
        }
        (Some('c' | 'n'), _) => return Err(refused("the types c and n of a format")),
        _ => return Err(failed("unknown format code for a number")),
    };
    let body = match spec.grouping {
        None => body,
        Some(_) if !body.starts_with(|c: char| c.is_ascii_hexdigit()) => return Err(refused("grouping of no digits")),
        Some(',') if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) => {
            return Err(failed("cannot group by a comma here"));
        }
        Some(separator) => {
            if spec.zero || spec.align == Some('=') {
                return Err(refused("a format that groups digits and fills with zeros"));
            }
            let every = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
            grouped(&body, separator, every)
        }
    };
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    let align = spec.align.unwrap_or(if spec.zero { '=' } else { '>' });
    pad(out, &format!("{sign}{prefix}"), &body, spec.width, fill, align)
}

/// The prefix and the digits of a number in `b`, `o`, `x`, `X` or `d`.
pub(super) fn radix(value: u128, kind: char) -> (&'static str, String) {
    match kind {
        'b' => ("0b", format!("{value:b}")),
        'o' => ("0o", format!("{value:o}")),
        'x' => ("0x", format!("{value:x}")),
        'X' => ("0X", format!("{value:X}")),
        _ => ("", value.to_string()),
    }
}

/// A non-negative float in the format `e`, `f`, `g` or `%`.
pub(super) fn float_as(value: f64, kind: char, precision: usize, alternate: bool) -> Result<String> {
    if !value.is_finite() {
        let word = if value.is_nan() { "nan" } else { "inf" };
        let word = if kind.is_ascii_uppercase() { word.to_uppercase() } else { word.to_owned() };
        return Ok(if kind == '%' { word + "%" } else { word });
    }
    if precision > PRECISE {
        return Err(refused(format!("a precision above {PRECISE}")));
    }
    if alternate && kind != 'f' {
        return Err(refused("the alternate form of a float"));
    }
    let text = match kind.to_ascii_lowercase() {
        'f' if alternate && precision == 0 => format!("{value:.0}."),
        'f' => format!("{value:.precision$}"),
        '%' => format!("{:.precision$}%", value * 100.0),
        'e' => scientific(value, precision),
        _ => {
            let significant = precision.max(1);
            let text = scientific(value, significant - 1);
            let exponent = text.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
            if (-4..significant as i32).contains(&exponent) {
                let behind = (significant as i32 - 1 - exponent).max(0) as usize;
                trimmed(&format!("{value:.behind$}")).to_owned()
            } else {
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
                format!("{}e{exponent}", trimmed(digits))
            }
        }
    };
    Ok(if kind.is_ascii_uppercase() { text.to_uppercase() } else { text })
}

fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// Rewrites an exponent as C does, with a sign and at least two digits.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn grouped(body: &str, separator: char, every: usize) -> String {
    let end = body.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(body.len());
    let (whole, rest) = body.split_at(end);
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(every) {
            out.push(separator);
        }
        out.push(c);
    }
    out + rest
}

/// Pads to `width` characters. With `=` the padding is put between the sign and the digits.
pub(super) fn pad(out: &mut Buffer, sign: &str, body: &str, width: usize, fill: char, align: char) -> Result<()> {
    let missing = width.saturating_sub(sign.chars().count() + body.chars().count());
    let (before, between, behind) = match align {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    let mut bytes = [0; 4];
    let fill = &*fill.encode_utf8(&mut bytes);
    out.repeat(fill, before)?;
    out.push(sign)?;
    out.repeat(fill, between)?;
    out.push(body)?;
    out.repeat(fill, behind)
}
