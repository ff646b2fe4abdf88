//! The arguments of filters, tests, functions and methods, bound to parameter names as Python binds them.
//!
//! It deliberately knows no function: each declares its own parameters. Read `filters.rs` for a user of it.

use super::fault::{Result, failed, refused};
use super::limits::{Buffer, Limits};
use super::value::Value;
use std::rc::Rc;

/// The values of a call's arguments.
#[derive(Clone, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Arguments {
    /// The arguments by the names of their parameters. A parameter without an argument is `None`.
    pub(super) fn bind<const N: usize>(&self, function: &str, parameters: [&str; N]) -> Result<[Option<&Value>; N]> {
        if self.positional.len() > N {
            return Err(failed(format!("{function} takes at most {N} arguments, got {}", self.positional.len())));
        }
        let mut bound: [Option<&Value>; N] = [None; N];
        for (slot, value) in bound.iter_mut().zip(&self.positional) {
            *slot = Some(value);
        }
        for (name, value) in &self.named {
            let place = parameters.iter().position(|parameter| parameter == name);
            let place = place.and_then(|place| bound.get_mut(place));
            match place {
                Some(slot) if slot.is_none() => *slot = Some(value),
                Some(_) => return Err(failed(format!("{function} got two values for its argument {name}"))),
                None => return Err(failed(format!("{function} takes no argument {name}"))),
            }
        }
        Ok(bound)
    }

    /// The positional arguments, at least `least` of them. Python's own methods take no named ones.
    pub(super) fn positions<const N: usize>(&self, function: &str, least: usize) -> Result<[Option<&Value>; N]> {
        if let Some((name, _)) = self.named.first() {
            return Err(failed(format!("{function} takes no argument {name} by its name")));
        }
        if self.positional.len() < least {
            return Err(failed(format!("{function} needs {least} arguments, got {}", self.positional.len())));
        }
        self.bind(function, [""; N])
    }
}

/// A required argument.
pub(super) fn required<'v>(value: Option<&'v Value>, function: &str, name: &str) -> Result<&'v Value> {
    value.ok_or_else(|| failed(format!("{function} needs its argument {name}")))
}

/// An integer argument, by Python's rules for an index.
pub(super) fn int(value: &Value, what: &str) -> Result<i128> {
    value.defined()?;
    value.as_int().ok_or_else(|| failed(format!("{what} is an integer, not {}", value.type_name())))
}

/// An argument that is a size. As in Python, a negative one counts as 0.
pub(super) fn size(value: &Value, what: &str) -> Result<usize> {
    int(value, what).map(|value| usize::try_from(value.max(0)).unwrap_or(usize::MAX))
}

/// A string argument that is not escaped.
pub(super) fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str> {
    value.defined()?;
    match value {
        Value::Str(text) => Ok(text.as_str()),
        Value::Markup(_) => Err(refused(format!("an escaped text for {what}"))),
        other => Err(failed(format!("{what} is a text, not {}", other.type_name()))),
    }
}

/// An indentation: a string, or a number of spaces.
pub(super) fn int_or_text(limits: &Rc<Limits>, value: &Value, what: &str) -> Result<String> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut spaces = Buffer::new(limits);
    spaces.repeat(" ", size(value, what)?)?;
    Ok(spaces.into_parts().0)
}
