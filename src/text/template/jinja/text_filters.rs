//! Filters of strings: `upper`, `replace`, `indent`, `escape` and others.
//!
//! Most accept any value and convert it to a string first. Read `text_methods.rs` for what they share with Python's
//! methods.

use super::call::{Arguments, int, int_or_text, required, size, text};
use super::fault::{Result, failed, refused};
use super::limits::Buffer;
use super::runtime::Runtime;
use super::text_methods::{aligned, replace, strip};
use super::value::Value;
use super::{percent, print, strings};

pub(super) const NAMES: [&str; 18] = [
    "capitalize",
    "center",
    "e",
    "escape",
    "filesizeformat",
    "forceescape",
    "format",
    "indent",
    "lower",
    "replace",
    "safe",
    "string",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
];

pub(super) fn call(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    match name {
        "string" | "e" | "escape" | "safe" if matches!(value, Value::Markup(_)) => {
            let [] = arguments.positions(name, 0)?;
            return Ok(value.clone());
        }
        "e" | "escape" | "forceescape" | "safe" => {
            let [] = arguments.positions(name, 0)?;
            let text = print::string(limits, value)?;
            let mut out = Buffer::new(limits);
            if name == "safe" {
                out.push(&text)?
            } else {
                escape(&mut out, &text)?
            }
            return match Value::from_buffer(out) {
                Value::Str(text) => Ok(Value::Markup(text)),
                other => Ok(other),
            };
        }
        "replace" => {
            let [old, new, count] = arguments.bind(name, ["old", "new", "count"])?;
            let this = print::string(limits, value)?;
            let old = print::string(limits, required(old, name, "old")?)?;
            let new = print::string(limits, required(new, name, "new")?)?;
            let count = match count {
                None | Some(Value::None) => -1,
                Some(count) => int(count, "a count")?,
            };
            return replace(limits, &this, &old, &new, count);
        }
        "truncate" => return truncate(render, value, arguments),
        "indent" => return indent(render, value, arguments),
        "filesizeformat" => {
            let [binary] = arguments.bind(name, ["binary"])?;
            let size = match value.as_str() {
                Some(_) => return Err(refused("the size of a file as a text")),
                None => super::numbers::number(value).ok_or_else(|| failed("a size is a number"))?,
            };
            return Value::text(limits, file_size(size, binary.is_some_and(Value::truth))?);
        }
        _ => {}
    }
    if matches!(value, Value::Markup(_)) {
        return Err(refused(format!("the filter {name} of an escaped text")));
    }
    let this = match value {
        Value::Str(text) => text.clone(),
        other => match Value::text(limits, print::string(limits, other)?)? {
            Value::Str(text) => text,
            _ => return Err(refused(format!("the filter {name} here"))),
        },
    };
    let this = this.as_str();
    limits.charge_bytes(this.len())?;
    match name {
        "trim" => {
            let [chars] = arguments.bind(name, ["chars"])?;
            let chars = match chars {
                None | Some(Value::None) => None,
                Some(chars) => Some(text(chars, "the characters to trim")?),
            };
            Value::text(limits, strip(limits, this, chars, true, true)?)
        }
        "center" => {
            let [width] = arguments.bind(name, ["width"])?;
            aligned(limits, this, name, width.map_or(Ok(80), |width| size(width, "a width"))?, ' ')
        }
        "format" => {
            if !arguments.positional.is_empty() && !arguments.named.is_empty() {
                return Err(failed("can't handle positional and keyword arguments at the same time"));
            }
            let values = if arguments.named.is_empty() {
                Value::tuple(limits, arguments.positional.clone())?
            } else {
                let mut pairs = Vec::new();
                for (name, value) in &arguments.named {
                    pairs.push((Value::text(limits, name.as_str())?, value.clone()));
                }
                Value::Dict(super::value::Dict::new(limits, pairs)?)
            };
            percent::format(limits, this, &values)
        }
        _ => {
            let [] = arguments.positions(name, 0)?;
            match name {
                "string" => Value::text(limits, this),
                "upper" => Value::text(limits, this.to_uppercase()),
                "lower" => Value::text(limits, this.to_lowercase()),
                "capitalize" => Value::text(limits, strings::capitalized(this)?),
                "title" => Value::text(limits, title(this)),
                "wordcount" => word_count(this),
                "urlencode" => url_encoded(render, value, this),
                _ => Err(refused(format!("the filter {name}"))),
            }
        }
    }
}

fn escape(out: &mut Buffer, text: &str) -> Result<()> {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\'' => "&#39;",
            '"' => "&#34;",
            _ => continue,
        };
        out.push(&text[from..at])?;
        out.push(entity)?;
        from = at + 1;
    }
    out.push(&text[from..])
}

/// Jinja2's own `title`: a capital letter after white space and opening brackets.
fn title(text: &str) -> String {
    let splits = |c: char| strings::is_space(c) || ['-', '(', '{', '[', '<'].contains(&c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let within = splits(first);
        let end = rest.find(|c| splits(c) != within).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out.push_str(&word[first.len_utf8()..].to_lowercase());
        rest = after;
    }
    out
}

fn word_count(text: &str) -> Result<Value> {
    let mut count = 0;
    let mut within = false;
    for c in text.chars() {
        let word = match c {
            _ if c.is_ascii() => c.is_ascii_alphanumeric() || c == '_',
            _ if !c.is_alphanumeric() => false,
            _ => strings::is_alpha(c)?,
        };
        count += i128::from(word && !within);
        within = word;
    }
    Ok(Value::Int(count))
}

fn url_encoded(render: &dyn Runtime, value: &Value, text: &str) -> Result<Value> {
    if !matches!(value, Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None) {
        return Err(refused("urlencode of what is no text"));
    }
    let mut out = Buffer::new(render.limits());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                out.push_char(char::from(byte))?;
            }
            _ => out.push(&format!("%{byte:02X}"))?,
        }
    }
    Ok(Value::from_buffer(out))
}

fn truncate(render: &dyn Runtime, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let [length, kill, end, leeway] = arguments.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| int(length, "a length"))?;
    let end = end.map_or(Ok("..."), |end| text(end, "an end"))?;
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => int(leeway, "a leeway")?,
    };
    let kept = length.saturating_sub(end.chars().count() as i128);
    if kept < 0 || leeway < 0 {
        return Err(failed("truncate needs a length of at least its end's, and a leeway of at least 0"));
    }
    if matches!(value, Value::Undefined(_)) {
        return Ok(value.clone());
    }
    let this = text(value, "a text to truncate")?;
    limits.charge_bytes(this.len())?;
    if this.chars().count() as i128 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let mut part = strings::char_range(this, 0, usize::try_from(kept).unwrap_or(usize::MAX));
    if !kill.is_some_and(Value::truth) {
        part = part.rsplit_once(' ').map_or(part, |(words, _)| words);
    }
    Value::text(limits, format!("{part}{end}"))
}

fn indent(render: &dyn Runtime, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"])?;
    let width = match width {
        Some(width) => int_or_text(limits, width, "a width")?,
        None => "    ".into(),
    };
    let (first, blank) = (first.is_some_and(Value::truth), blank.is_some_and(Value::truth));
    let this = text(value, "a text to indent")?;
    let text = format!("{this}\n");
    limits.charge_bytes(text.len())?;
    let mut out = Buffer::new(limits);
    for (i, line) in strings::lines(&text, false).into_iter().enumerate() {
        if i > 0 {
            out.push("\n")?;
        }
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push(&width)?;
        }
        out.push(line)?;
    }
    Ok(Value::from_buffer(out))
}

fn file_size(size: f64, binary: bool) -> Result<String> {
    const NAMES: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if size == 1.0 {
        return Ok("1 Byte".into());
    }
    if size < base {
        return Ok(format!("{} Bytes", size.trunc()));
    }
    if !size.is_finite() {
        return Err(refused("a size that is not finite"));
    }
    let mut unit = base * base;
    for name in NAMES {
        if size < unit || name == "Y" {
            let letter = if binary { name.to_uppercase() + "i" } else { name.into() };
            return Ok(format!("{:.1} {letter}B", base * size / unit));
        }
        unit *= base;
    }
    Err(refused("a size of this magnitude"))
}
