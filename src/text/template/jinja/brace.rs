//! Python's `str.format`: `'{0:>8} {name!r}'.format(x, name=y)`.
//!
//! A field may access parts of its value (`{0.a[b]}`), by the same rules as an expression. Read `spec.rs` for the
//! format specification after a colon.
//! Source of the rules: "Format String Syntax" of Python's documentation.

use super::fault::{Result, failed, refused};
use super::limits::Buffer;
use super::print;
use super::runtime::Runtime;
use super::spec;
use super::value::Value;

/// Evaluates `format.format(*positional, **named)`.
pub(super) fn format(
    render: &dyn Runtime,
    format: &str,
    positional: &[Value],
    named: &[(String, Value)],
) -> Result<Value> {
    let mut fields = Fields { render, positional, named, next: Some(0) };
    fields.fill(format, 2).map(Value::from_buffer)
}

struct Fields<'a> {
    render: &'a dyn Runtime,
    positional: &'a [Value],
    named: &'a [(String, Value)],
    /// The next automatic field number. `None` after a field with an explicit number.
    next: Option<usize>,
}

impl Fields<'_> {
    fn fill(&mut self, format: &str, levels: u32) -> Result<Buffer> {
        let limits = self.render.limits();
        let mut out = Buffer::new(limits);
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(&rest[..at])?;
            let brace = &rest[at..];
            if brace.starts_with("{{") || brace.starts_with("}}") {
                out.push(&brace[..1])?;
                rest = &brace[2..];
                continue;
            }
            if brace.starts_with('}') {
                return Err(failed("single '}' in a format"));
            }
            if levels == 0 {
                return Err(failed("max string recursion exceeded"));
            }
            let (field, after) = field(&brace[1..])?;
            rest = after;
            let (name, conversion, spec) = parts(field)?;
            let value = self.value(name)?;
            let spec = self.fill(spec, levels - 1)?;
            match conversion {
                None => spec::format(&mut out, limits, &value, spec.as_str())?,
                Some(conversion) => {
                    let mut text = Buffer::new(limits);
                    match conversion {
                        's' => print::print(&mut text, limits, &value)?,
                        'r' => print::repr(&mut text, limits, &value)?,
                        'a' => {
                            let mut whole = Buffer::new(limits);
                            print::repr(&mut whole, limits, &value)?;
                            print::ascii(&mut text, whole.as_str())?;
                        }
                        other => return Err(failed(format!("unknown conversion specifier {other:?}"))),
                    }
                    spec::format(&mut out, limits, &Value::from_buffer(text), spec.as_str())?;
                }
            }
        }
        out.push(rest)?;
        Ok(out)
    }

    fn value(&mut self, name: &str) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let number = match first {
            "" => {
                let next =
                    self.next.as_mut().ok_or_else(|| failed("a format mixes fields with and without numbers"))?;
                *next += 1;
                Some(*next - 1)
            }
            _ if first.bytes().all(|b| b.is_ascii_digit()) => {
                if self.next.is_some_and(|next| next > 0) {
                    return Err(failed("a format mixes fields with and without numbers"));
                }
                self.next = None;
                Some(first.parse().unwrap_or(usize::MAX))
            }
            _ => None,
        };
        let value = match number {
            Some(number) => self.positional.get(number),
            None => self.named.iter().find(|(name, _)| name == first).map(|(_, value)| value),
        };
        let mut value =
            value.cloned().ok_or_else(|| failed(format!("a format names {first:?}, which is not given")))?;
        while !path.is_empty() {
            self.render.limits().charge(1)?;
            if let Some(after) = path.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return Err(failed("empty attribute in a format"));
                }
                value = self.render.attribute(&value, &after[..end])?;
                path = &after[end..];
                continue;
            }
            let after = path.strip_prefix('[').ok_or_else(|| failed("only '.' or '[' may follow ']' in a format"))?;
            let (index, after) = after.split_once(']').ok_or_else(|| failed("missing ']' in a format"))?;
            if index.is_empty() {
                return Err(failed("empty attribute in a format"));
            }
            let key = match index.bytes().all(|b| b.is_ascii_digit()) {
                true => Value::Int(index.parse().map_err(|_| failed("too many digits in a format"))?),
                false => Value::text(self.render.limits(), index)?,
            };
            value = self.render.item(&value, &key)?;
            path = after;
        }
        Ok(value)
    }
}

/// The contents of the braces that were opened before `text`, and the text after them.
fn field(text: &str) -> Result<(&str, &str)> {
    let mut open = 1;
    let (mut in_name, mut in_index) = (true, false);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '}' if in_index => return Err(refused("a brace within an index of a format")),
            ']' => in_index = false,
            _ if in_index => {}
            '[' if in_name => in_index = true,
            ':' | '!' if open == 1 => in_name = false,
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok((&text[..at], &text[at + 1..]));
        }
    }
    Err(failed("expected '}' before end of a format"))
}

/// The name, the conversion and the specification of a field.
fn parts(field: &str) -> Result<(&str, Option<char>, &str)> {
    let end = field.find(['!', ':', '{']).unwrap_or(field.len());
    let (name, rest) = field.split_at(end);
    if rest.starts_with('{') {
        return Err(failed("unexpected '{' in a field name"));
    }
    if let Some(spec) = rest.strip_prefix(':') {
        return Ok((name, None, spec));
    }
    let Some(rest) = rest.strip_prefix('!') else { return Ok((name, None, "")) };
    let mut chars = rest.chars();
    let conversion = chars.next().ok_or_else(|| failed("a format lacks its conversion"))?;
    match chars.as_str() {
        "" => Ok((name, Some(conversion), "")),
        rest => match rest.strip_prefix(':') {
            Some(spec) => Ok((name, Some(conversion), spec)),
            None => Err(failed("expected ':' after a conversion in a format")),
        },
    }
}
