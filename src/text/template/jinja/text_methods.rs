//! The methods of Python's `str`.
//!
//! Strings are counted before they grow; indices count characters, as in Python. Read `access.rs` for how a method is
//! found and `strings.rs` for the differences from Rust.

use super::brace;
use super::call::{Arguments, int, required, size, text};
use super::fault::{Result, failed, refused};
use super::limits::{Buffer, Limits};
use super::runtime::Runtime;
use super::strings;
use super::value::{Cursor, Value};
use std::rc::Rc;

/// Whether fanfold supports the method of `str`.
pub(super) fn exists(name: &str) -> bool {
    const NAMES: [&str; 40] = [
        "capitalize",
        "casefold",
        "center",
        "count",
        "endswith",
        "expandtabs",
        "find",
        "format",
        "format_map",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
    ];
    NAMES.contains(&name) || ["upper", "zfill"].contains(&name)
}

/// Calls the method `name` of `this`.
pub(super) fn call(render: &dyn Runtime, this: &str, name: &str, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    limits.charge_bytes(this.len())?;
    match name {
        "format" => return brace::format(render, this, &arguments.positional, &arguments.named),
        "format_map" => {
            let [map] = arguments.positions(name, 1)?;
            let Some(Value::Dict(dict)) = map else { return Err(refused("format_map of what is no dict")) };
            let named = dict.entries().iter().filter_map(|(k, v)| Some((k.as_str()?.to_owned(), v.clone())));
            return brace::format(render, this, &[], &named.collect::<Vec<_>>());
        }
        "split" | "rsplit" => return split(limits, this, name, arguments),
        "splitlines" => {
            let [keep] = arguments.bind(name, ["keepends"])?;
            return texts(limits, &strings::lines(this, keep.is_some_and(Value::truth)));
        }
        "expandtabs" => return expand_tabs(limits, this, arguments),
        "startswith" | "endswith" => return Ok(Value::Bool(begins(this, name, arguments)?)),
        "find" | "rfind" | "index" | "rindex" | "count" => return search(limits, this, name, arguments),
        "join" => {
            let [values] = arguments.positions(name, 1)?;
            let mut cursor = Cursor::of(required(values, name, "values")?)?;
            let mut out = Buffer::new(limits);
            let mut first = true;
            while let Some(value) = cursor.next(limits)? {
                if !std::mem::take(&mut first) {
                    out.push(this)?;
                }
                out.push(text(&value, "an item to join")?)?;
            }
            return Ok(Value::from_buffer(out));
        }
        "replace" => {
            let [old, new, count] = arguments.positions(name, 2)?;
            let (old, new) = (text(required(old, name, "old")?, "old")?, text(required(new, name, "new")?, "new")?);
            let count = count.map(|count| int(count, "a count")).transpose()?.unwrap_or(-1);
            return replace(limits, this, old, new, count);
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = arguments.positions(name, 0)?;
            let chars = match chars {
                None | Some(Value::None) => None,
                Some(chars) => Some(text(chars, "the characters to strip")?),
            };
            return Value::text(limits, strip(limits, this, chars, name != "rstrip", name != "lstrip")?);
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.positions(name, 1)?;
            let separator = text(required(separator, name, "separator")?, "a separator")?;
            if separator.is_empty() {
                return Err(failed("empty separator"));
            }
            let found = if name == "partition" { this.find(separator) } else { this.rfind(separator) };
            let parts = match found {
                Some(at) => [&this[..at], separator, &this[at + separator.len()..]],
                None if name == "partition" => [this, "", ""],
                None => ["", "", this],
            };
            let parts = parts.into_iter().map(|part| Value::text(limits, part)).collect::<Result<_>>()?;
            return Value::tuple(limits, parts);
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.positions(name, 1)?;
            let part = text(required(part, name, "part")?, "a part of a text")?;
            let rest = if name == "removeprefix" { this.strip_prefix(part) } else { this.strip_suffix(part) };
            return Value::text(limits, rest.unwrap_or(this));
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = arguments.positions(name, 1)?;
            let width = size(required(width, name, "width")?, "a width")?;
            let fill = fill.map_or(Ok(" "), |fill| text(fill, "a fill character"))?;
            let mut chars = fill.chars();
            let (Some(fill), None) = (chars.next(), chars.next()) else {
                return Err(failed("the fill character must be exactly one character"));
            };
            return aligned(limits, this, name, width, fill);
        }
        "zfill" => {
            let [width] = arguments.positions(name, 1)?;
            let width = size(required(width, name, "width")?, "a width")?;
            let (sign, digits) = this.split_at(usize::from(this.starts_with(['+', '-'])));
            let mut out = Buffer::new(limits);
            out.push(sign)?;
            out.repeat("0", width.saturating_sub(this.chars().count()))?;
            out.push(digits)?;
            return Ok(Value::from_buffer(out));
        }
        _ => {}
    }
    let [] = arguments.positions(name, 0)?;
    let all = |question: fn(char) -> Result<bool>| -> Result<Value> {
        for c in this.chars() {
            if !question(c)? {
                return Ok(Value::Bool(false));
            }
        }
        Ok(Value::Bool(!this.is_empty()))
    };
    match name {
        "upper" => Value::text(limits, this.to_uppercase()),
        "lower" => Value::text(limits, this.to_lowercase()),
        "casefold" if this.is_ascii() => Value::text(limits, this.to_lowercase()),
        "casefold" => Err(refused("folding the case of text that is not ASCII")),
        "capitalize" => Value::text(limits, strings::capitalized(this)?),
        "title" => Value::text(limits, strings::title(this)?),
        "swapcase" => Value::text(limits, strings::swapped(this)?),
        "isspace" => all(|c| Ok(strings::is_space(c))),
        "isalpha" => all(strings::is_alpha),
        "isdigit" | "isdecimal" | "isnumeric" => all(strings::is_digit),
        "isalnum" => all(|c| Ok(strings::is_alpha(c)? || strings::is_digit(c)?)),
        "isascii" => Ok(Value::Bool(this.is_ascii())),
        "islower" => Ok(Value::Bool(strings::is_case(this, false))),
        "isupper" => Ok(Value::Bool(strings::is_case(this, true))),
        "istitle" => {
            let cased = this.chars().any(|c| c.is_lowercase() || c.is_uppercase());
            Ok(Value::Bool(cased && strings::title(this)? == this))
        }
        _ => Err(refused(format!("the method {name} of a text"))),
    }
}

fn texts(limits: &Rc<Limits>, parts: &[&str]) -> Result<Value> {
    let parts = parts.iter().map(|part| Value::text(limits, *part)).collect::<Result<_>>()?;
    Value::list(limits, parts)
}

fn split(limits: &Rc<Limits>, this: &str, name: &str, arguments: &Arguments) -> Result<Value> {
    let [separator, max] = arguments.bind(name, ["sep", "maxsplit"])?;
    let max = max.map(|max| int(max, "maxsplit")).transpose()?.unwrap_or(-1);
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let right = name == "rsplit";
    // Each part becomes a value, so they are counted before they are collected.
    limits.charge(this.len() as u64 / 4)?;
    let separator = match separator {
        None | Some(Value::None) => {
            let words = if right { strings::words_from_right(this, max) } else { strings::words(this, max) };
            return texts(limits, &words);
        }
        Some(separator) => text(separator, "a separator")?,
    };
    if separator.is_empty() {
        return Err(failed("empty separator"));
    }
    let parts = max.saturating_add(1);
    if right {
        let mut parts: Vec<&str> = this.rsplitn(parts, separator).collect();
        parts.reverse();
        return texts(limits, &parts);
    }
    texts(limits, &this.splitn(parts, separator).collect::<Vec<_>>())
}

fn expand_tabs(limits: &Rc<Limits>, this: &str, arguments: &Arguments) -> Result<Value> {
    let [tab] = arguments.bind("expandtabs", ["tabsize"])?;
    let tab = tab.map_or(Ok(8), |tab| size(tab, "a tab size"))?;
    let mut out = Buffer::new(limits);
    let mut column = 0_usize;
    for c in this.chars() {
        match c {
            '\t' => {
                let spaces = if tab == 0 { 0 } else { tab - column % tab };
                out.repeat(" ", spaces)?;
                column += spaces;
            }
            _ => {
                out.push_char(c)?;
                column = if c == '\n' || c == '\r' { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::from_buffer(out))
}

/// The bounds of a slice `from:to` of `length` items, clamped as Python does.
pub(super) fn bounds(from: Option<i128>, to: Option<i128>, length: usize) -> (usize, usize) {
    let length = length as i128;
    let clamp = |at: i128| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let from = clamp(from.unwrap_or(0));
    let to = clamp(to.unwrap_or(length)).min(length);
    (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or(0))
}

/// The part of a string between optional bounds, and the number of characters before it. `None` if it begins after the
/// string's end, or ends before it begins.
fn part<'t>(this: &'t str, from: Option<&Value>, to: Option<&Value>) -> Result<Option<(&'t str, usize)>> {
    let bound = |value: Option<&Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => int(value, "a bound").map(Some),
    };
    if from.is_none() && to.is_none() {
        return Ok(Some((this, 0)));
    }
    let (from, to) = bounds(bound(from)?, bound(to)?, this.chars().count());
    Ok((from <= to).then(|| (strings::char_range(this, from, to), from)))
}

fn begins(this: &str, name: &str, arguments: &Arguments) -> Result<bool> {
    let [affix, from, to] = arguments.positions(name, 1)?;
    let affix = required(affix, name, "part")?;
    let part = part(this, from, to)?.map(|(part, _)| part);
    let fits = |affix: &str| {
        part.is_some_and(|part| if name == "startswith" { part.starts_with(affix) } else { part.ends_with(affix) })
    };
    match affix {
        Value::Tuple(all) => {
            for one in &all.items {
                if fits(text(one, "a part of a text")?) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        one => Ok(fits(text(one, "a part of a text")?)),
    }
}

fn search(limits: &Limits, this: &str, name: &str, arguments: &Arguments) -> Result<Value> {
    let [needle, from, to] = arguments.positions(name, 1)?;
    let needle = text(required(needle, name, "part")?, "a part of a text")?;
    limits.charge_bytes(this.len())?;
    let part = part(this, from, to)?;
    if name == "count" {
        let count = part.map_or(0, |(part, _)| match needle.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(needle).count(),
        });
        return Ok(Value::Int(count as i128));
    }
    let found = part.and_then(|(part, skipped)| {
        let at = if name.starts_with('r') { part.rfind(needle) } else { part.find(needle) };
        at.map(|at| skipped + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::Int(at as i128)),
        None if name.ends_with("index") => Err(failed("substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

/// Python's `replace`. A negative count means no limit.
pub(super) fn replace(limits: &Rc<Limits>, this: &str, old: &str, new: &str, count: i128) -> Result<Value> {
    let max = usize::try_from(count).unwrap_or(usize::MAX);
    limits.charge_bytes(this.len())?;
    let mut out = Buffer::new(limits);
    let mut from = 0;
    for (at, _) in this.match_indices(old).take(max) {
        out.push(&this[from..at])?;
        out.push(new)?;
        from = at + old.len();
    }
    out.push(&this[from..])?;
    Ok(Value::from_buffer(out))
}

/// Python's `strip` of white space or of any of `chars`.
pub(super) fn strip<'t>(
    limits: &Limits,
    this: &'t str,
    chars: Option<&str>,
    left: bool,
    right: bool,
) -> Result<&'t str> {
    // Each character of the string is searched for among the given ones, which costs steps.
    let given: Vec<char> = chars.unwrap_or_default().chars().collect();
    limits.charge((this.len() as u64 / 64 + 1).saturating_mul(given.len() as u64 + 1))?;
    let goes = |c: char| if chars.is_some() { given.contains(&c) } else { strings::is_space(c) };
    let this = if left { this.trim_start_matches(goes) } else { this };
    Ok(if right { this.trim_end_matches(goes) } else { this })
}

/// Python's `center`, `ljust` and `rjust`.
pub(super) fn aligned(limits: &Rc<Limits>, this: &str, how: &str, width: usize, fill: char) -> Result<Value> {
    let missing = width.saturating_sub(this.chars().count());
    let before = match how {
        "ljust" => 0,
        "rjust" => missing,
        // Python puts the odd character on the left if the width is odd, too.
        _ => missing / 2 + (missing & width & 1),
    };
    let mut bytes = [0; 4];
    let fill = &*fill.encode_utf8(&mut bytes);
    let mut out = Buffer::new(limits);
    out.repeat(fill, before)?;
    out.push(this)?;
    out.repeat(fill, missing - before)?;
    Ok(Value::from_buffer(out))
}
