//! [`Config`]: a JSON object of settings such as config.json, read field by field. Every error names the file and the
//! field.
//!
//! This module deliberately knows no model family: the code of each family in `families/` reads its own fields. A
//! [`Config`] records which fields were read. A field that no code read may be a setting that changes the model, so it
//! is reported as an error. Read [`super::folder`] next for how the files are found, `defaults.rs` for the values of
//! fields that are left out, and `inert.rs` for the fields that may stay unread.

use crate::import::ImportError;
use crate::import::files::bytes::{FLOAT_TAG, PYTHON_CONSTANTS, python_json, shortened};
use crate::import::files::defaults::{self, FieldDefault};
use crate::import::files::inert::{inert, same};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest size that a configuration may state, 2^31. A larger one is a mistake, and the product of two of them
/// could overflow.
#[doc(hidden)]
pub const MAX_SIZE: usize = 1 << 31;

/// The name of a field, or several names that families use for the same field: `"vocab_size"`, or `["hidden_size",
/// "n_embd"]`. The first one that the file states is read.
#[doc(hidden)]
pub trait FieldNames {
    /// The names, at least one, the preferred one first.
    fn names(&self) -> &[&str];
}

impl FieldNames for &str {
    fn names(&self) -> &[&str] {
        std::slice::from_ref(self)
    }
}

impl<const N: usize> FieldNames for [&str; N] {
    fn names(&self) -> &[&str] {
        self
    }
}

impl FieldNames for &[&str] {
    fn names(&self) -> &[&str] {
        self
    }
}

/// The settings in one JSON file, or in one object nested in it.
///
/// A field that the file leaves out has the default of its family's configuration class in transformers, if
/// `Config::of_family` has set a family and its class has a default. Otherwise the field is absent. A field that is
/// `null` is absent too, even if it has a default. If the class does not accept `null` for the field, reading it is an
/// error.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Config {
    path: PathBuf,
    /// The place of this object in the file, which error messages put before a field's name, such as
    /// `rope_parameters.`. Empty for the outermost object.
    prefix: String,
    /// What comes before a field's name when a person names the field to have it ignored, such as
    /// `1_Pooling/config.json:`. Empty for config.json itself.
    file: String,
    map: Map<String, Value>,
    /// The family whose defaults apply to fields that are left out.
    family: Option<&'static str>,
    /// The fields that were read, with their prefixes: `rope_parameters.factor`. An object whose fields are read one by
    /// one is entered with a trailing dot: `rope_parameters.`. Clones and nested objects share this set.
    read: Arc<Mutex<HashSet<String>>>,
}

impl Config {
    /// Parses the JSON object `json`. `path` is the file that error messages name. Errors when `json` is not an object.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Config, ImportError> {
        Ok(Config::new(path, String::new(), python_json(path, json)?))
    }

    /// Parses a JSON list of objects, such as modules.json. Messages name the fields of the first object `0.type`,
    /// `0.path` and so on. Errors when `json` is not a list of objects.
    pub fn parse_list(path: &Path, json: &[u8]) -> Result<Vec<Config>, ImportError> {
        let maps: Vec<Map<String, Value>> = python_json(path, json)?;
        let configs = maps.into_iter().enumerate();
        Ok(configs.map(|(i, map)| Config::new(path, format!("{i}."), map)).collect())
    }

    fn new(path: &Path, prefix: String, map: Map<String, Value>) -> Config {
        Config { path: path.to_owned(), prefix, file: String::new(), map, family: None, read: Arc::default() }
    }

    /// The same settings, marked as those of the file `file`, which is not config.json. A person who has a field of it
    /// ignored names it `FILE:FIELD`.
    pub(crate) fn of_file(mut self, file: &str) -> Config {
        self.file = format!("{file}:");
        self
    }

    /// The same settings, in which a field that the file leaves out has the default of `family`'s configuration class
    /// in transformers.
    pub(crate) fn of_family(&self, family: &'static str) -> Config {
        Config { family: Some(family), ..self.clone() }
    }

    /// The same settings without `fields`. A field of a nested object is named as in error messages:
    /// `rope_parameters.factor`. Errors when one of the fields does not exist.
    pub fn without(mut self, fields: &[impl AsRef<str>]) -> Result<Config, ImportError> {
        for field in fields.iter().map(AsRef::as_ref) {
            let mut path: Vec<&str> = field.split('.').collect();
            let last = path.pop().unwrap_or(field);
            // `a.b` is first taken as the field `b` of the object `a`, and if there is none, as a field with the name
            // `a.b`.
            let inside = path.iter().try_fold(&mut self.map, |map, name| map.get_mut(*name)?.as_object_mut());
            let removed = inside.and_then(|map| map.remove(last));
            if removed.or_else(|| self.map.remove(field)).is_none() {
                return Err(self.error(field, "is to be ignored, and is not there"));
            }
        }
        Ok(self)
    }

    /// Errors with [`ImportError::NotUnderstood`] when a field was not read and is not in `inert.rs`'s list of fields
    /// that change nothing. The error lists all such fields. Called after the family has read its fields.
    pub fn understood(&self) -> Result<(), ImportError> {
        let family = self.family.unwrap_or_default();
        self.understood_but(&|name, value| inert(family, name, value))
    }

    /// As [`Config::understood`], for a file other than config.json, to which the list in `inert.rs` does not apply.
    /// Every field has to be read, except for those whose names begin with an underscore: they record how the file was
    /// written.
    pub fn wholly_understood(&self) -> Result<(), ImportError> {
        self.understood_but(&|name, _| name.starts_with('_'))
    }

    fn understood_but(&self, harmless: &dyn Fn(&str, &Value) -> bool) -> Result<(), ImportError> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fields = Vec::new();
        unread(&self.prefix, &self.map, &read, harmless, &mut fields);
        if fields.is_empty() {
            return Ok(());
        }
        let names = fields.iter().map(|(name, _)| format!("{}{name}", self.file)).collect::<Vec<_>>().join(",");
        let line = |(name, value): &(String, &Value)| {
            let what = crate::import::files::inert::what(name).map(|what| format!(" ({what})")).unwrap_or_default();
            format!("{name}: {}{what}", shown(value))
        };
        let fields = fields.iter().map(line).collect();
        Err(ImportError::NotUnderstood { path: self.path.clone(), fields, names })
    }

    /// The path of the JSON file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An [`ImportError::Config`] about `field`, for faults that the caller finds, such as a contradiction between two
    /// fields.
    pub fn error(&self, field: impl FieldNames, reason: impl Into<String>) -> ImportError {
        let field = format!("{}{}", self.prefix, field.names().join(" or "));
        ImportError::Config { path: self.path.clone(), field, reason: reason.into() }
    }

    /// Whether the field has a value, from the file or by default. Does not mark the field as read.
    pub fn has(&self, field: impl FieldNames) -> bool {
        self.entry(&field).is_some()
    }

    /// The names of all fields in the file, including those that are `null`. Defaults are not included.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// The field's value as JSON, from the file or by default; the field is marked as read. If the file states the
    /// field under several of its names, the first name's value is returned. Another name is marked as read only if its
    /// value is the same; otherwise the contradiction is reported as a field that was not read.
    pub fn value(&self, field: impl FieldNames) -> Option<&Value> {
        let (_, value) = self.entry(&field)?;
        self.mark(field.names(), value);
        Some(value)
    }

    /// Marks the field as read if the file gives it the value `value`, which the caller has computed from other fields.
    /// With another value it stays unread and is reported. For example, `head_dim` may be stated where it equals
    /// `hidden_size / num_attention_heads`.
    pub fn agrees(&self, field: &str, value: impl Into<Value>) {
        self.mark(&[field], &value.into());
    }

    /// A size: a whole number from 1 to [`MAX_SIZE`]. This method and those below error when the field has another type
    /// or is out of range, and, where the result is not an `Option` and no default is given, when it is absent.
    pub fn usize(&self, field: impl FieldNames) -> Result<usize, ImportError> {
        self.required(&field, self.size(&field)?)
    }

    /// A whole number from 1 to [`MAX_SIZE`], or `default` if the field is absent.
    pub fn usize_or(&self, field: impl FieldNames, default: usize) -> Result<usize, ImportError> {
        Ok(self.size(&field)?.unwrap_or(default))
    }

    /// A whole number from 0 to [`MAX_SIZE`].
    pub fn whole(&self, field: impl FieldNames) -> Result<usize, ImportError> {
        self.required(&field, self.at_least(&field, 0)?)
    }

    /// A whole number from 0 to [`MAX_SIZE`], or `default` if the field is absent.
    pub fn whole_or(&self, field: impl FieldNames, default: usize) -> Result<usize, ImportError> {
        Ok(self.at_least(&field, 0)?.unwrap_or(default))
    }

    /// A whole number from 1 to [`MAX_SIZE`], or `None` if the field is absent.
    pub fn opt_usize(&self, field: impl FieldNames) -> Result<Option<usize>, ImportError> {
        self.size(&field)
    }

    /// A finite number.
    pub fn f64(&self, field: impl FieldNames) -> Result<f64, ImportError> {
        self.required(&field, self.number(&field)?)
    }

    /// A finite number, or `default` if the field is absent.
    pub fn f64_or(&self, field: impl FieldNames, default: f64) -> Result<f64, ImportError> {
        Ok(self.number(&field)?.unwrap_or(default))
    }

    /// A finite number, or `None` if the field is absent.
    pub fn opt_f64(&self, field: impl FieldNames) -> Result<Option<f64>, ImportError> {
        self.number(&field)
    }

    /// A finite number above zero.
    pub fn positive(&self, field: impl FieldNames) -> Result<f64, ImportError> {
        self.required(&field, self.above_zero(&field)?)
    }

    /// A finite number above zero, such as an epsilon or a RoPE base, or `default` if the field is absent.
    pub fn positive_or(&self, field: impl FieldNames, default: f64) -> Result<f64, ImportError> {
        Ok(self.above_zero(&field)?.unwrap_or(default))
    }

    /// A finite number above zero, or `None` if the field is absent.
    pub fn opt_positive(&self, field: impl FieldNames) -> Result<Option<f64>, ImportError> {
        self.above_zero(&field)
    }

    /// A list of finite numbers.
    pub fn numbers(&self, field: impl FieldNames) -> Result<Vec<f64>, ImportError> {
        let number = |v: &Value| v.as_f64().filter(|n| n.is_finite());
        let numbers = self.typed(&field, "a list of finite numbers", |v| v.as_array()?.iter().map(number).collect())?;
        self.required(&field, numbers)
    }

    /// A list of whole numbers, each 0 or more. Empty if the field is absent.
    pub fn wholes(&self, field: impl FieldNames) -> Result<Vec<usize>, ImportError> {
        let whole = |v: &Value| usize::try_from(v.as_u64()?).ok();
        let numbers = self.typed(&field, "a list of whole numbers", |v| v.as_array()?.iter().map(whole).collect())?;
        Ok(numbers.unwrap_or_default())
    }

    /// A boolean, or `false` if the field is absent, as an unset (`None`) option counts as false in Python.
    pub fn flag(&self, field: impl FieldNames) -> Result<bool, ImportError> {
        self.bool_or(field, false)
    }

    /// A boolean, or `default` if the field is absent.
    pub fn bool_or(&self, field: impl FieldNames, default: bool) -> Result<bool, ImportError> {
        Ok(self.opt_bool(field)?.unwrap_or(default))
    }

    /// A boolean, or `None` if the field is absent.
    pub fn opt_bool(&self, field: impl FieldNames) -> Result<Option<bool>, ImportError> {
        self.typed(&field, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn str(&self, field: impl FieldNames) -> Result<&str, ImportError> {
        self.required(&field, self.typed(&field, "a text", Value::as_str)?)
    }

    /// A string, or `default` if the field is absent.
    pub fn str_or<'a>(&'a self, field: impl FieldNames, default: &'a str) -> Result<&'a str, ImportError> {
        Ok(self.opt_str(field)?.unwrap_or(default))
    }

    /// A string, or `None` if the field is absent.
    pub fn opt_str(&self, field: impl FieldNames) -> Result<Option<&str>, ImportError> {
        self.typed(&field, "a text", Value::as_str)
    }

    /// A list of strings. Empty if the field is absent.
    pub fn strings(&self, field: impl FieldNames) -> Result<Vec<&str>, ImportError> {
        let texts = self.typed(&field, "a list of texts", |v| v.as_array()?.iter().map(Value::as_str).collect())?;
        Ok(texts.unwrap_or_default())
    }

    /// Token ids, which the file states as one number or as a list. Empty if the field is absent. Ids are signed and
    /// are not checked against the vocabulary: files state -1 or a number beyond the vocabulary where a model has no
    /// such token.
    pub fn ids(&self, field: impl FieldNames) -> Result<Vec<i64>, ImportError> {
        let id = Value::as_i64;
        let ids = self.typed(&field, "a token id or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// A nested object, or an object without fields if it is absent.
    pub fn object_or_empty(&self, field: &str) -> Result<Config, ImportError> {
        let (path, file) = (self.path.clone(), self.file.clone());
        let prefix = format!("{}{field}.", self.prefix);
        let empty = || Config { path, prefix, file, map: Map::new(), family: None, read: self.read.clone() };
        Ok(self.object(field)?.unwrap_or_else(empty))
    }

    /// A nested object, or `None` if it is absent. Its fields then have to be read one by one; they have no defaults.
    pub fn object(&self, field: impl FieldNames) -> Result<Option<Config>, ImportError> {
        let plain = |value| Value::as_object(value).filter(|map| !map.contains_key(FLOAT_TAG));
        let Some(map) = self.typed(&field, "an object", plain)? else { return Ok(None) };
        let name = self.entry(&field).map_or("", |(name, _)| name);
        let prefix = format!("{}{name}.", self.prefix);
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(prefix.clone());
        let (path, file, map, read) = (self.path.clone(), self.file.clone(), map.clone(), self.read.clone());
        Ok(Some(Config { path, prefix, file, map, family: None, read }))
    }

    /// Whether the object has no fields at all.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The field's value and the name that it was found under: the first name with a value other than `null` in the
    /// file, or else the family's default if the file has none of the names.
    fn entry<'n>(&self, field: &'n impl FieldNames) -> Option<(&'n str, &Value)> {
        let names = field.names();
        let mut stated = names.iter().filter_map(|&name| Some((name, self.map.get(name)?)));
        if let Some(found) = stated.find(|(_, value)| !value.is_null()) {
            return Some(found);
        }
        let (name, default) = self.default(names)?;
        let left_out = names.iter().all(|name| !self.map.contains_key(*name));
        (left_out && !default.value.is_null()).then_some((name, &default.value))
    }

    /// The default that the family's configuration class has for the field, and the name under which it has it.
    fn default<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'static FieldDefault)> {
        let family = self.family?;
        names.iter().find_map(|name| Some((*name, defaults::find(family, name)?)))
    }

    /// Marks as read each of `names` whose value in the file is `value`.
    fn mark(&self, names: &[&str], value: &Value) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let saying = names.iter().filter(|name| self.map.get(**name).is_some_and(|said| same(said, value)));
        read.extend(saying.map(|name| format!("{}{name}", self.prefix)));
    }

    /// The field's value, converted by `read`; the field is marked as read. `None` when the field is absent. Errors
    /// when `read` returns `None`, with a message that says what was `expected`, and when the file says `null` although
    /// the family's class does not accept it.
    fn typed<'a, T>(
        &'a self,
        field: &impl FieldNames,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ImportError> {
        if let Some((_, value)) = self.entry(field) {
            self.mark(field.names(), value);
            return read(value).map(Some).ok_or_else(|| self.wrong(field, expected));
        }
        match self.default(field.names()) {
            Some((name, default)) if self.map.contains_key(name) && !default.nullable => {
                let reason = format!("expected {expected}, found null; left out, it is {}", shown(&default.value));
                Err(self.error(name, reason))
            }
            _ => Ok(None),
        }
    }

    fn size(&self, field: &impl FieldNames) -> Result<Option<usize>, ImportError> {
        self.at_least(field, 1)
    }

    fn at_least(&self, field: &impl FieldNames, least: usize) -> Result<Option<usize>, ImportError> {
        self.typed(field, &format!("a whole number from {least} to 2^31"), |value| {
            usize::try_from(value.as_u64()?).ok().filter(|n| (least..=MAX_SIZE).contains(n))
        })
    }

    fn above_zero(&self, field: &impl FieldNames) -> Result<Option<f64>, ImportError> {
        self.typed(field, "a number above zero", |value| value.as_f64().filter(|n| n.is_finite() && *n > 0.0))
    }

    fn number(&self, field: &impl FieldNames) -> Result<Option<f64>, ImportError> {
        self.typed(field, "a finite number", |value| value.as_f64().filter(|n| n.is_finite()))
    }

    fn required<T>(&self, field: &impl FieldNames, value: Option<T>) -> Result<T, ImportError> {
        value.ok_or_else(|| self.error(field.names(), "is missing"))
    }

    fn wrong(&self, field: &impl FieldNames, expected: &str) -> ImportError {
        match self.entry(field) {
            Some((name, value)) => self.error(name, format!("expected {expected}, found {}", shown(value))),
            None => self.error(field.names(), format!("expected {expected}")),
        }
    }
}

/// A value as JSON text for messages, cut to 60 characters. A tagged constant is shown as the file spells it:
/// `Infinity`.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    for constant in PYTHON_CONSTANTS {
        text = text.replace(&format!("{{\"{FLOAT_TAG}\":\"{constant}\"}}"), constant);
    }
    shortened(&text, 60)
}

/// Adds to `found` the full names and values of the fields of `map` that are not in `read`, not `null`, and for which
/// `harmless` is false. `prefix` is the place of `map` in the file. A nested object is searched if its fields are read
/// one by one; otherwise it counts as a single field.
fn unread<'a>(
    prefix: &str,
    map: &'a Map<String, Value>,
    read: &HashSet<String>,
    harmless: &dyn Fn(&str, &Value) -> bool,
    found: &mut Vec<(String, &'a Value)>,
) {
    for (name, value) in map.iter().filter(|(name, value)| !value.is_null() && !harmless(name, value)) {
        let whole = format!("{prefix}{name}");
        let inside = format!("{whole}.");
        match value {
            Value::Object(map) if read.contains(&inside) => unread(&inside, map, read, harmless, found),
            _ if read.contains(&whole) => {}
            _ => found.push((whole, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse(Path::new("m/config.json"), json.as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_read_by_any_of_their_names() {
        let c = config(
            r#"{"n_embd": 48, "head_dim": null, "eps": 1e-5, "tie": true, "eos": [0, 7], "bos": 0,
                "rope": {"theta": 1e6, "size": 0}, "names": ["a", "b"], "kind": "x"}"#,
        );
        assert_eq!(c.usize(["hidden_size", "n_embd"]).unwrap(), 48);
        assert_eq!(c.opt_usize("head_dim").unwrap(), None);
        assert_eq!(c.usize_or("layers", 3).unwrap(), 3);
        assert_eq!(c.f64("eps").unwrap(), 1e-5);
        assert!(c.bool_or("tie", false).unwrap() && c.bool_or("untie", true).unwrap());
        assert_eq!(
            (c.ids("eos").unwrap(), c.ids("bos").unwrap(), c.ids("pad").unwrap()),
            (vec![0, 7], vec![0], vec![])
        );
        assert_eq!(config(r#"{"pad": -1}"#).ids("pad").unwrap(), [-1]);
        assert_eq!(c.strings("names").unwrap(), ["a", "b"]);
        assert_eq!((c.str("kind").unwrap(), c.str_or("sort", "y").unwrap()), ("x", "y"));
        let rope = c.object("rope").unwrap().unwrap();
        assert_eq!(rope.positive_or("theta", 1.0).unwrap(), 1e6);
        assert_eq!(
            rope.usize("size").unwrap_err().to_string(),
            "m/config.json: rope.size: expected a whole number from 1 to 2^31, found 0"
        );
        assert!(c.object("rope_scaling").unwrap().is_none());
        assert_eq!(
            c.usize(["layers", "n_layer"]).unwrap_err().to_string(),
            "m/config.json: layers or n_layer: is missing"
        );
    }

    #[test]
    fn fields_that_nobody_read_are_listed() {
        let json = r#"{"hidden_size": 8, "n_embd": 9, "hidden_sise": 10, "gone": null, "use_cache": true, "_note": 1,
            "mlp_bias": false, "lm_head_bias": true, "rope": {"theta": 1e6, "fctor": [2.0]}, "other": {"a": 1}}"#;
        let read = |c: &Config| {
            c.usize(["hidden_size", "n_embd"]).unwrap();
            c.object("rope").unwrap().unwrap().f64("theta").unwrap();
        };
        let c = config(json);
        read(&c);
        // `has` does not mark a field as read.
        assert!(c.has("hidden_sise"));
        let message = c.understood().unwrap_err().to_string();
        for line in ["hidden_sise: 10", "lm_head_bias: true", "n_embd: 9", "other: {\"a\":1}", "rope.fctor: [2.0]"] {
            assert!(message.contains(&format!("\n  {line}\n")), "{message}");
        }
        assert_eq!(message.matches("\n  ").count(), 5, "{message}");
        assert!(message.contains("can be ignored: hidden_sise,lm_head_bias,n_embd,other,rope.fctor"), "{message}");
        let c = config(json).without(&["hidden_sise", "lm_head_bias", "n_embd", "other", "rope.fctor"]).unwrap();
        read(&c);
        c.understood().unwrap();
        let error = config(json).without(&["rope.factor"]).unwrap_err().to_string();
        assert_eq!(error, "m/config.json: rope.factor: is to be ignored, and is not there");
    }

    #[test]
    fn senseless_sizes_are_errors() {
        for size in ["0", "-1", "1.5", "2147483649", "18446744073709551616", "\"64\"", "[]", "true", "1e30"] {
            let error = config(&format!("{{\"hidden_size\": {size}}}")).usize("hidden_size").unwrap_err();
            assert!(matches!(&error, ImportError::Config { .. }), "{error:?}");
            assert!(error.to_string().starts_with("m/config.json: hidden_size: expected a whole number"), "{error}");
        }
        assert_eq!(config(r#"{"a": 2147483648}"#).usize("a").unwrap(), MAX_SIZE);
        assert!(config(r#"{"a": -1}"#).positive_or("a", 1.0).is_err());
        assert!(config(r#"{"a": 1e30}"#).ids("a").is_err());
        assert!(config(r#"{"a": 1}"#).str("a").is_err());
    }
}
