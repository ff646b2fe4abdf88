//! Filters of sequences: `map`, `selectattr`, `sort`, `groupby` and others.
//!
//! Where Jinja2 returns a generator, these return an iterator, whose items can be taken once. Jinja2 computes such
//! items later; here they are computed at once, so items that could change in between are refused. Read
//! `value/mod.rs` for iterators.

use super::access;
use super::ast::Binary;
use super::call::{Arguments, int, required, text};
use super::compare::{equal, order, sort, sorts_before};
use super::fault::{Result, failed, refused};
use super::limits::Buffer;
use super::numbers::number;
use super::operators::binary;
use super::print;
use super::runtime::Runtime;
use super::value::Key;
use super::value::{Cursor, Value, View, items};
use std::cmp::Ordering;
use std::collections::HashSet;

pub(super) const NAMES: [&str; 20] = [
    "batch",
    "dictsort",
    "first",
    "groupby",
    "items",
    "join",
    "last",
    "list",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "slice",
    "sort",
    "sum",
    "unique",
];

pub(super) fn call(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    match name {
        "map" => map(render, value, arguments),
        "select" | "reject" | "selectattr" | "rejectattr" => select(render, name, value, arguments),
        "join" => {
            let [separator, attribute] = arguments.bind(name, ["d", "attribute"])?;
            let getter = Getter::new(attribute.unwrap_or(&Value::None), None);
            let separator = separator.map_or(Ok(String::new()), |d| print::string(limits, d))?;
            let mut cursor = Cursor::of(value)?;
            let mut out = Buffer::new(limits);
            let mut first = true;
            while let Some(item) = cursor.next(limits)? {
                if !std::mem::take(&mut first) {
                    out.push(&separator)?;
                }
                print::print(&mut out, limits, &getter.get(render, &item)?)?;
            }
            Ok(Value::from_buffer(out))
        }
        "sort" => {
            let [reverse, case, attribute] = arguments.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let getters: Vec<Getter> = match attribute.and_then(Value::as_str) {
                Some(names) => names.split(',').map(Getter::named).collect(),
                None => vec![Getter::new(attribute.unwrap_or(&Value::None), None)],
            };
            let case = case.is_some_and(Value::truth);
            let mut keyed = Vec::new();
            for item in items(limits, value)? {
                let keys = getters.iter().map(|getter| folded(render, getter.get(render, &item)?, case));
                keyed.push((Value::list(limits, keys.collect::<Result<_>>()?)?, item));
            }
            sorted(render, keyed, reverse.is_some_and(Value::truth))
        }
        "dictsort" => {
            let [case, by, reverse] = arguments.bind(name, ["case_sensitive", "by", "reverse"])?;
            value.defined()?;
            let Value::Dict(dict) = value else {
                return Err(failed(format!("'{}' object has no attribute 'items'", value.type_name())));
            };
            let by_value = match by.map_or(Some("key"), Value::as_str) {
                Some("key") => false,
                Some("value") => true,
                _ => return Err(failed("you can only sort by either \"key\" or \"value\"")),
            };
            let case = case.is_some_and(Value::truth);
            let mut keyed = Vec::new();
            for (key, value) in dict.entries() {
                let by = if by_value { value } else { key };
                let pair = Value::tuple(limits, vec![key.clone(), value.clone()])?;
                keyed.push((folded(render, by.clone(), case)?, pair));
            }
            sorted(render, keyed, reverse.is_some_and(Value::truth))
        }
        "unique" => {
            let [case, attribute] = arguments.bind(name, ["case_sensitive", "attribute"])?;
            let getter = Getter::new(attribute.unwrap_or(&Value::None), None);
            let case = case.is_some_and(Value::truth);
            let mut seen = HashSet::new();
            let mut kept = Vec::new();
            let mut leases = Vec::new();
            for item in plain(name, items(limits, value)?)? {
                let key = folded(render, getter.get(render, &item)?, case)?;
                let bytes = 64 + key.as_str().map_or(0, str::len);
                if seen.insert(Key::of(limits, &key)?) {
                    leases.push(limits.lease(bytes)?);
                    kept.push(item);
                }
            }
            Value::iterator(limits, kept)
        }
        "min" | "max" => {
            let [case, attribute] = arguments.bind(name, ["case_sensitive", "attribute"])?;
            let getter = Getter::new(attribute.unwrap_or(&Value::None), None);
            let case = case.is_some_and(Value::truth);
            let (wanted, operator) = if name == "min" { (Ordering::Less, "<") } else { (Ordering::Greater, ">") };
            let mut cursor = Cursor::of(value)?;
            let mut best: Option<(Value, Value)> = None;
            while let Some(item) = cursor.next(limits)? {
                let key = folded(render, getter.get(render, &item)?, case)?;
                let better = match &best {
                    Some((best, _)) => order(limits, &key, best, operator)? == Some(wanted),
                    None => true,
                };
                if better {
                    best = Some((key, item));
                }
            }
            Ok(best.map_or_else(|| Value::undefined("no aggregated item, the sequence was empty"), |(_, item)| item))
        }
        "sum" => sum(render, value, arguments),
        "groupby" => group(render, value, arguments),
        "batch" | "slice" => pieces(render, name, value, arguments),
        _ => {
            let [] = arguments.positions(name, 0)?;
            simple(render, name, value)
        }
    }
}

fn simple(render: &dyn Runtime, name: &str, value: &Value) -> Result<Value> {
    let limits = render.limits();
    match name {
        "list" => Value::list(limits, items(limits, value)?),
        "first" => {
            let first = Cursor::of(value)?.next(limits)?;
            Ok(first.unwrap_or_else(|| Value::undefined("no first item, the sequence was empty")))
        }
        "last" => {
            if matches!(value, Value::Iterator(_)) {
                return Err(failed("'generator' object is not reversible"));
            }
            let last = match value {
                Value::List(seq) | Value::Tuple(seq) => seq.items.last().cloned(),
                other => items(limits, other)?.pop(),
            };
            Ok(last.unwrap_or_else(|| Value::undefined("no last item, the sequence was empty")))
        }
        "reverse" => match value {
            Value::Str(text) => {
                limits.charge_bytes(text.as_str().len())?;
                Value::text(limits, text.as_str().chars().rev().collect::<String>())
            }
            Value::Markup(_) => Err(refused("the filter reverse of an escaped text")),
            other => {
                let mut all = items(limits, other)?;
                all.reverse();
                match other {
                    Value::Iterator(_) => Value::list(limits, all),
                    _ => Value::iterator(limits, all),
                }
            }
        },
        _ => match value {
            Value::Undefined(_) => Value::iterator(limits, Vec::new()),
            Value::Dict(dict) => Value::iterator(limits, items(limits, &Value::View(View::Items, dict.clone()))?),
            _ => Err(failed("can only get item pairs from a mapping")),
        },
    }
}

/// The items of a sequence; empty for a value that is false, over which Jinja2 does not iterate.
fn settled(render: &dyn Runtime, name: &str, value: &Value) -> Result<Vec<Value>> {
    if !render.truth(value)? {
        return Ok(Vec::new());
    }
    plain(name, items(render.limits(), value)?)
}

/// The items for a filter that Jinja2 would compute later. Items that could change in between are refused.
fn plain(name: &str, all: Vec<Value>) -> Result<Vec<Value>> {
    match all.iter().find(|item| !item.is_plain()) {
        Some(item) => Err(refused(format!("the filter {name} of objects of type {}", item.type_name()))),
        None => Ok(all),
    }
}

/// Looks up an attribute by a path such as `a.b.0`.
struct Getter {
    path: Vec<Step>,
    default: Option<Value>,
}

enum Step {
    Name(String),
    Value(Value),
}

impl Getter {
    fn new(attribute: &Value, default: Option<&Value>) -> Self {
        let default = default.filter(|default| !matches!(default, Value::None)).cloned();
        let path = match attribute {
            Value::None => Vec::new(),
            Value::Str(path) => Getter::named(path.as_str()).path,
            other => vec![Step::Value(other.clone())],
        };
        Getter { path, default }
    }

    fn named(path: &str) -> Self {
        let step = |part: &str| match part.parse() {
            Ok(number) if part.bytes().all(|b| b.is_ascii_digit()) => Step::Value(Value::Int(number)),
            _ => Step::Name(part.to_owned()),
        };
        Getter { path: path.split('.').map(step).collect(), default: None }
    }

    fn get(&self, render: &dyn Runtime, item: &Value) -> Result<Value> {
        let mut value = item.clone();
        for step in &self.path {
            value = match step {
                Step::Value(key) => access::item(render, &value, key)?,
                Step::Name(name) => {
                    let key = Value::text(render.limits(), name.as_str())?;
                    access::item(render, &value, &key)?
                }
            };
            if let (Value::Undefined(_), Some(default)) = (&value, &self.default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// A string in lower case, unless the filter is case-sensitive.
fn folded(render: &dyn Runtime, value: Value, case_sensitive: bool) -> Result<Value> {
    match &value {
        Value::Str(text) if !case_sensitive => {
            render.limits().charge_bytes(text.as_str().len())?;
            Value::text(render.limits(), text.as_str().to_lowercase())
        }
        _ => Ok(value),
    }
}

fn sorted(render: &dyn Runtime, keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Value> {
    let limits = render.limits();
    let sorted = sort(&keyed, &mut |a: &(Value, Value), b: &(Value, Value)| match reverse {
        false => sorts_before(limits, &a.0, &b.0),
        true => sorts_before(limits, &b.0, &a.0),
    })?;
    Value::list(limits, sorted.into_iter().map(|(_, item)| item).collect())
}

fn map(render: &dyn Runtime, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let mut mapped = Vec::new();
    let all = settled(render, "map", value)?;
    match arguments.positional.split_first() {
        None if arguments.named.iter().any(|(name, _)| name == "attribute") => {
            let [attribute, default] = arguments.bind("map", ["attribute", "default"])?;
            let getter = Getter::new(required(attribute, "map", "attribute")?, default);
            for item in all {
                mapped.push(getter.get(render, &item)?);
            }
        }
        None if all.is_empty() => {}
        None => return Err(failed("map requires a filter argument")),
        Some((filter, rest)) => {
            let arguments = Arguments { positional: rest.to_vec(), named: arguments.named.clone() };
            for item in all {
                mapped.push(render.filter(text(filter, "a filter's name")?, &item, &arguments)?);
            }
        }
    }
    Value::iterator(limits, mapped)
}

fn select(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let all = settled(render, name, value)?;
    let mut rest = arguments.positional.as_slice();
    let mut getter = Getter::new(&Value::None, None);
    if name.ends_with("attr") {
        match rest.split_first() {
            Some((attribute, others)) => {
                getter = Getter::new(attribute, None);
                rest = others;
            }
            None if all.is_empty() => {}
            None => return Err(failed("missing parameter for attribute name")),
        }
    }
    let test = rest.split_first();
    let given = test.map(|(_, rest)| Arguments { positional: rest.to_vec(), named: arguments.named.clone() });
    let mut kept = Vec::new();
    for item in all {
        let looked_at = getter.get(render, &item)?;
        let answer = match (test, &given) {
            (Some((test, _)), Some(given)) => render.test(text(test, "a test's name")?, &looked_at, given)?,
            _ => render.truth(&looked_at)?,
        };
        if answer == name.starts_with("select") {
            kept.push(item);
        }
    }
    Value::iterator(limits, kept)
}

fn sum(render: &dyn Runtime, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"])?;
    let getter = Getter::new(attribute.unwrap_or(&Value::None), None);
    let mut total = start.cloned().unwrap_or(Value::Int(0));
    if total.as_str().is_some() {
        return Err(failed("sum() can't sum strings"));
    }
    // From version 3.12 on, Python corrects rounding in sums of floats. Where that changes the sum, the result depends
    // on Python's version, and is refused.
    let (mut corrected, mut lost) = (number(&total), 0.0);
    let mut cursor = Cursor::of(value)?;
    while let Some(item) = cursor.next(limits)? {
        let item = getter.get(render, &item)?;
        corrected = match (corrected, number(&item)) {
            (Some(sum), Some(next)) => {
                let more = sum + next;
                lost += if sum.abs() >= next.abs() { (sum - more) + next } else { (next - more) + sum };
                Some(more)
            }
            _ => None,
        };
        total = binary(limits, Binary::Add, &total, &item)?;
    }
    match (&total, corrected) {
        (Value::Float(total), Some(sum)) if sum + lost != *total && total.is_finite() => {
            Err(refused("a sum of floats whose last digit depends on Python's version"))
        }
        _ => Ok(total),
    }
}

fn group(render: &dyn Runtime, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let [attribute, default, case] = arguments.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let getter = Getter::new(required(attribute, "groupby", "attribute")?, default);
    let case = case.is_some_and(Value::truth);
    let mut keyed = Vec::new();
    for item in items(limits, value)? {
        keyed.push((folded(render, getter.get(render, &item)?, case)?, item));
    }
    let keyed = sort(&keyed, &mut |a: &(Value, Value), b: &(Value, Value)| sorts_before(limits, &a.0, &b.0))?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in keyed {
        match groups.last_mut() {
            Some((last, members)) if equal(limits, last, &key)? => members.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (key, members) in groups {
        // A group has the name of its first member, in that member's case.
        let key = match members.first() {
            Some(first) if !case => getter.get(render, first)?,
            _ => key,
        };
        out.push(Value::group(limits, vec![key, Value::list(limits, members)?])?);
    }
    Value::list(limits, out)
}

fn pieces(render: &dyn Runtime, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    let count = if name == "batch" { "linecount" } else { "slices" };
    let [size, fill] = arguments.bind(name, [count, "fill_with"])?;
    let size = int(required(size, name, count)?, count)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let all = plain(name, items(limits, value)?)?;
    let mut out = Vec::new();
    if name == "batch" {
        // A size below 1 never fills a slice.
        let length = usize::try_from(size).ok().filter(|length| *length > 0);
        if size == 0 && !all.is_empty() {
            return Err(refused("batches of no items"));
        }
        for piece in all.chunks(length.unwrap_or(usize::MAX)) {
            let mut piece = piece.to_vec();
            if let (Some(fill), Some(length)) = (fill, length) {
                limits.charge((length - piece.len()) as u64)?;
                drop(limits.lease(length.saturating_mul(size_of::<Value>()))?);
                piece.resize(length, fill.clone());
            }
            out.push(Value::list(limits, piece)?);
        }
        return Value::iterator(limits, out);
    }
    if size == 0 {
        return Err(failed("integer division or modulo by zero"));
    }
    let slices = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
    limits.charge(slices as u64)?;
    let (each, longer) = (all.len().checked_div(slices).unwrap_or(0), all.len().checked_rem(slices).unwrap_or(0));
    let mut rest = all.as_slice();
    for slice in 0..slices {
        let (piece, after) = rest.split_at(each + usize::from(slice < longer));
        rest = after;
        let mut piece = piece.to_vec();
        if slice >= longer {
            piece.extend(fill.cloned());
        }
        out.push(Value::list(limits, piece)?);
    }
    Value::iterator(limits, out)
}
