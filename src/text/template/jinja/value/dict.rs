//! Python's dict: in the order of insertion, with keys that compare as Python's do.
//!
//! A dict deliberately never changes after it is made. Read `value/mod.rs` for the values that it holds.

use super::super::fault::{Result, failed, refused};
use super::super::limits::Limits;
use super::{Inside, Value};
use std::collections::HashMap;
use std::rc::Rc;

pub(in crate::text::template) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    inside: Inside,
}

/// A key in the form by which the dict finds it. Two forms are equal if Python treats the keys as the same: `1`, `1.0`
/// and `True` are one key.
#[derive(PartialEq, Eq, Hash)]
pub(in crate::text::template) enum Key {
    Undefined,
    None,
    Int(i128),
    Float(u64),
    Str(String),
    Tuple(Vec<Key>),
    Range(usize, i128, i128),
    /// A value that is equal only to itself.
    Object(usize),
}

impl Key {
    pub(in crate::text::template) fn of(limits: &Limits, value: &Value) -> Result<Self> {
        limits.charge(1)?;
        Ok(match value {
            Value::Undefined(_) => Key::Undefined,
            Value::None => Key::None,
            Value::Bool(value) => Key::Int(i128::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.is_nan() => return Err(refused("nan as a key")),
            // A whole number below 2^127 is one that an integer holds.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 2f64.powi(127) => Key::Int(*value as i128),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Str(text) | Value::Markup(text) => {
                limits.charge_bytes(text.as_str().len())?;
                Key::Str(text.as_str().to_owned())
            }
            Value::Tuple(seq) => Key::Tuple(seq.items.iter().map(|item| Key::of(limits, item)).collect::<Result<_>>()?),
            Value::Range(range) => match range.len() {
                0 => Key::Range(0, 0, 0),
                1 => Key::Range(1, range.start, 0),
                len => Key::Range(len, range.start, range.step),
            },
            Value::Namespace(space) => Key::Object(Rc::as_ptr(space).addr()),
            Value::Macro(of) => Key::Object(Rc::as_ptr(of).addr()),
            Value::Iterator(items) => Key::Object(Rc::as_ptr(items).addr()),
            Value::Cycler(cycler) => Key::Object(Rc::as_ptr(cycler).addr()),
            Value::Joiner(joiner) => Key::Object(Rc::as_ptr(joiner).addr()),
            other => return Err(failed(format!("unhashable type: '{}'", other.type_name()))),
        })
    }
}

impl Dict {
    /// A later value replaces an earlier one with the same key, at the earlier one's position.
    pub(in crate::text::template) fn new(
        limits: &Rc<Limits>,
        pairs: impl IntoIterator<Item = (Value, Value)>,
    ) -> Result<Rc<Self>> {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let mut index = HashMap::new();
        let mut keys = 0;
        for (key, value) in pairs {
            limits.charge(2)?;
            keys += key.as_str().map_or(64, |text| text.len() + 64);
            match index.entry(Key::of(limits, &key)?) {
                std::collections::hash_map::Entry::Occupied(place) => {
                    let place: &usize = place.get();
                    if let Some((_, old)) = entries.get_mut(*place) {
                        *old = value;
                    }
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(entries.len());
                    entries.push((key, value));
                }
            }
        }
        let all = entries.iter().flat_map(|(key, value)| [key, value]);
        let inside = Inside::of(limits, all, entries.capacity() * 2 + keys / size_of::<Value>())?;
        Ok(Rc::new(Dict { entries, index, inside }))
    }

    pub(in crate::text::template) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(in crate::text::template) fn inside(&self) -> &Inside {
        &self.inside
    }

    pub(in crate::text::template) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub(in crate::text::template) fn entry(&self, at: usize) -> Option<&(Value, Value)> {
        self.entries.get(at)
    }

    /// The value of `key`. Fails if `key` cannot be a key.
    pub(in crate::text::template) fn get(&self, limits: &Limits, key: &Value) -> Result<Option<&Value>> {
        let key = Key::of(limits, key)?;
        Ok(self.index.get(&key).and_then(|&at| self.entries.get(at)).map(|(_, value)| value))
    }

    /// The value of a key that is a string.
    pub(in crate::text::template) fn get_str(&self, limits: &Limits, key: &str) -> Result<Option<&Value>> {
        limits.charge_bytes(key.len())?;
        Ok(self.index.get(&Key::Str(key.to_owned())).and_then(|&at| self.entries.get(at)).map(|(_, value)| value))
    }
}
