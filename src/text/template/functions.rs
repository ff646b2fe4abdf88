//! What transformers gives a chat template beyond Jinja: `raise_exception`, `strftime_now`, `tojson`, `generation`.
//!
//! Each does what it does there, so that one template gives one text. It deliberately knows no model. Read `mod.rs` for
//! the bounds they run under.

use jiff::fmt::strtime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use std::fmt::Write;

/// Adds them to `environment`; `now` is what `strftime_now` tells.
pub(super) fn add(environment: &mut Environment<'static>, now: jiff::Timestamp) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
    });
    environment.add_function("strftime_now", move |format: String| {
        strtime::format(format, now).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
    });
    environment.add_filter("tojson", to_json);
}

/// Marks an error as the template's own.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

/// The message of `raise_exception`, if that is where `error` comes from.
pub(super) fn raised(error: &Error) -> Option<&str> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut message = None;
    while let Some(error) = next {
        if error.is::<Raised>() {
            return message;
        }
        if let Some(error) = error.downcast_ref::<Error>() {
            message = error.detail();
        }
        next = error.source();
    }
    None
}

/// Turns `{% generation %}` blocks, which mark the assistant's part for training, into blocks that only hold it.
pub(super) fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        for (word, other) in [("generation", "with"), ("endgeneration", "endwith")] {
            let inner = tag.trim_start_matches(['-', '+']).trim_start();
            let Some(after) = inner.strip_prefix(word) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..tag.len() - inner.len()]);
                out.push_str(other);
                rest = after;
            }
        }
    }
    out + rest
}

/// Python's `json.dumps`, with its separators and without the HTML escapes of Jinja's own `tojson`.
fn to_json(state: &State, value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let named: Option<bool> = options.get("ensure_ascii")?;
    let ascii = ensure_ascii.or(named).unwrap_or(false);
    let indent = match options.get::<Option<Value>>("indent")? {
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(number) if !number.is_none() => {
            let width = usize::try_from(number).unwrap_or(0);
            Some(" ".repeat(width.min(DEEPEST)))
        }
        _ => None,
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators are two texts")),
        None if indent.is_some() => [",".into(), ": ".into()],
        None => [", ".into(), ": ".into()],
    };
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut json = Json { state, out: String::new(), indent, item, key, ascii, sorted };
    json.value(value, 0)?;
    Ok(json.out)
}

/// Values nested deeper are refused: they come from a loop, not from a conversation.
const DEEPEST: usize = 64;

struct Json<'a, 'e> {
    state: &'a State<'a, 'e>,
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

impl Json<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.state.consume_fuel(1)?;
        if depth > DEEPEST {
            return Err(Error::new(ErrorKind::BadSerialization, "values are nested too deep for tojson"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut first = true;
                for item in value.try_iter()? {
                    self.begin(&mut first, depth)?;
                    self.value(&item, depth + 1)?;
                }
                self.end(first, depth, ']')?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.out.push('{');
                let mut first = true;
                for key in keys {
                    self.begin(&mut first, depth)?;
                    match key.kind() {
                        ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" })?,
                        ValueKind::None => self.string("null")?,
                        _ => self.string(&key.to_string())?,
                    }
                    self.out.push_str(&self.key);
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.end(first, depth, '}')?;
            }
            kind => return Err(Error::new(ErrorKind::BadSerialization, format!("{kind} has no form in JSON"))),
        }
        Ok(())
    }

    fn begin(&mut self, first: &mut bool, depth: usize) -> Result<(), Error> {
        if !std::mem::take(first) {
            self.out.push_str(&self.item);
        }
        self.line(depth + 1)
    }

    fn end(&mut self, empty: bool, depth: usize, close: char) -> Result<(), Error> {
        if !empty {
            self.line(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.state.consume_fuel((indent.len() * depth / 64) as u64)?;
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel(text.len() as u64 / 64)?;
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            self.out.push_str(&quoted);
            return Ok(());
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                self.out.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(self.out, "\\u{unit:04x}");
            }
        }
        Ok(())
    }
}
