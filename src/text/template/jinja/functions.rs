//! The global functions of a chat template: `raise_exception`, `strftime_now`, `range`, `namespace`, `dict` and others.
//!
//! Each behaves as in transformers' environment, so that a template gives the same text. Read `render.rs` for how
//! they are found.

use super::call::{Arguments, int, required, text};
use super::fault::{Fault, Result, failed, fault, refused};
use super::print;
use super::runtime::Runtime;
use super::value::Dict;
use super::value::{Cursor, Cycler, Function, Joiner, Namespace, Range, Seq, Value, items};
use jiff::fmt::strtime;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The longest range that Jinja2's sandbox allows.
const LONGEST: usize = 100_000;
/// The longest format string of a time, in bytes.
const FORMAT: usize = 4096;

/// The global function `name`.
pub(super) fn find(name: &str) -> Option<Result<Function>> {
    Some(Ok(match name {
        "range" => Function::Range,
        "dict" => Function::Dict,
        "namespace" => Function::Namespace,
        "cycler" => Function::Cycler,
        "joiner" => Function::Joiner,
        "raise_exception" => Function::RaiseException,
        "strftime_now" => Function::StrftimeNow,
        "lipsum" => return Some(Err(refused("the function lipsum, which is random"))),
        _ => return None,
    }))
}

pub(super) fn call(render: &dyn Runtime, function: Function, arguments: &Arguments) -> Result<Value> {
    let limits = render.limits();
    match function {
        Function::Range => range(arguments),
        Function::Dict => Dict::new(limits, pairs(render, "dict", arguments)?).map(Value::Dict),
        Function::Namespace => {
            let entries = Dict::new(limits, pairs(render, "namespace", arguments)?)?;
            let space = Rc::new(Namespace { entries: RefCell::new(Vec::new()) });
            for (name, value) in entries.entries() {
                store(render, &space, name.clone(), value.clone())?;
            }
            Ok(Value::Namespace(space))
        }
        Function::Cycler => {
            if arguments.positional.is_empty() || !arguments.named.is_empty() {
                return Err(failed("cycler needs items"));
            }
            let items = Seq::new(limits, arguments.positional.clone(), false)?;
            Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
        }
        Function::Joiner => {
            let [separator] = arguments.bind("joiner", ["sep"])?;
            let separator = match separator {
                Some(separator) => separator.clone(),
                None => Value::text(limits, ", ")?,
            };
            if !separator.is_plain() {
                return Err(refused("a joiner of what is no text"));
            }
            Ok(Value::Joiner(Rc::new(Joiner { separator, used: Cell::new(false) })))
        }
        Function::RaiseException => {
            let [message] = arguments.bind("raise_exception", ["message"])?;
            let message = print::string(limits, required(message, "raise_exception", "message")?)?;
            Err(fault(Fault::Raised(message)))
        }
        Function::StrftimeNow => {
            let [format] = arguments.bind("strftime_now", ["format"])?;
            let format = text(required(format, "strftime_now", "format")?, "a format")?;
            told(format, render.now()).and_then(|told| Value::text(limits, told))
        }
    }
}

fn range(arguments: &Arguments) -> Result<Value> {
    let [first, second, step] = arguments.positions("range", 1)?;
    let first = int(required(first, "range", "stop")?, "an argument of range")?;
    let second = second.map(|second| int(second, "an argument of range")).transpose()?;
    let step = step.map(|step| int(step, "an argument of range")).transpose()?.unwrap_or(1);
    if step == 0 {
        return Err(failed("range's step must not be zero"));
    }
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let range = Range { start, stop, step };
    if range.len() > LONGEST {
        return Err(failed(format!("a range of more than {LONGEST} numbers")));
    }
    Ok(Value::Range(range))
}

/// The keys and values from which `dict(...)` is made.
fn pairs(render: &dyn Runtime, function: &str, arguments: &Arguments) -> Result<Vec<(Value, Value)>> {
    let limits = render.limits();
    let mut all = Vec::new();
    if arguments.positional.len() > 1 {
        return Err(failed(format!("{function} takes at most one argument without a name")));
    }
    match arguments.positional.first() {
        None => {}
        Some(Value::Dict(dict)) => {
            limits.charge(dict.len() as u64)?;
            all.extend(dict.entries().iter().cloned());
        }
        Some(value) => {
            value.defined()?;
            let mut cursor = Cursor::of(value)?;
            while let Some(pair) = cursor.next(limits)? {
                match <[Value; 2]>::try_from(items(limits, &pair)?) {
                    Ok([key, value]) => all.push((key, value)),
                    Err(_) => return Err(failed(format!("{function} needs pairs of a key and a value"))),
                }
            }
        }
    }
    for (name, value) in &arguments.named {
        all.push((Value::text(limits, name.as_str())?, value.clone()));
    }
    Ok(all)
}

/// Stores a value into a namespace. A namespace cannot be stored, so that none can contain itself.
pub(super) fn store(render: &dyn Runtime, space: &Rc<Namespace>, name: Value, value: Value) -> Result<()> {
    if name.as_str().is_some_and(|name| name.starts_with('_')) {
        return Err(failed("a namespace stores no name that begins with an underscore"));
    }
    if value.holds_namespace() {
        return Err(refused("a namespace inside a namespace"));
    }
    let mut at = None;
    for (i, (key, _)) in space.entries.borrow().iter().enumerate() {
        if super::compare::equal(render.limits(), key, &name)? {
            at = Some(i);
        }
    }
    let mut entries = space.entries.borrow_mut();
    let old = match at.and_then(|at| entries.get_mut(at)) {
        Some((_, slot)) => Some(std::mem::replace(slot, value)),
        None => {
            entries.push((name, value));
            None
        }
    };
    // The old value is dropped after the borrow has ended.
    drop(entries);
    drop(old);
    Ok(())
}

/// The time in a `strftime` format. Only directives that Python and jiff define alike are supported.
fn told(format: &str, now: jiff::Timestamp) -> Result<String> {
    if format.len() > FORMAT {
        return Err(refused(format!("a format of a time with more than {FORMAT} bytes")));
    }
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let flag = chars.next_if_eq(&'-');
        let directive = chars.next().unwrap_or('%');
        let known = if flag.is_some() { "dmyHIMSj" } else { "aAbBdeDFHIjmMpRSTuUwWyYCGgVhnt%" };
        if !known.contains(directive) {
            return Err(refused(format!("the directive `{directive}` of strftime_now")));
        }
    }
    strtime::format(format, now).map_err(|e| refused(format!("strftime_now: {e}")))
}
