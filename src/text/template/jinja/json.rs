//! The filter `tojson` as transformers has it: Python's `json.dumps`, without the HTML escapes of Jinja2's own.
//!
//! Each value takes a step, and each string is counted before it grows. Read `print.rs` for `str()` and `repr()`.

use super::call::{Arguments, int_or_text};
use super::compare::{sort, sorts_before};
use super::fault::{Result, failed, refused};
use super::limits::{Buffer, Limits};
use super::print;
use super::value::Value;
use std::rc::Rc;

/// Evaluates `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(limits: &Rc<Limits>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let [ascii, indent, separators, sorted] =
        arguments.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let truth = |value: Option<&Value>| value.is_some_and(Value::truth);
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(value) => Some(int_or_text(limits, value, "indent")?),
    };
    let separators = match separators {
        None | Some(Value::None) => None,
        Some(Value::List(seq) | Value::Tuple(seq)) => match seq.items.as_slice() {
            [Value::Str(item), Value::Str(key)] => Some([item.as_str().to_owned(), key.as_str().to_owned()]),
            _ => return Err(failed("separators are two texts")),
        },
        Some(_) => return Err(refused("separators that are no list of two texts")),
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let [item, key] = separators.unwrap_or_else(|| [comma.into(), ": ".into()]);
    let out = Buffer::new(limits);
    let mut json = Json { limits, out, indent, item, key, ascii: truth(ascii), sorted: truth(sorted) };
    json.value(value, 0)?;
    Ok(Value::from_buffer(json.out))
}

struct Json<'a> {
    limits: &'a Rc<Limits>,
    out: Buffer,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

impl Json<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.limits.charge(1)?;
        match value {
            Value::None => self.out.push("null"),
            Value::Bool(true) => self.out.push("true"),
            Value::Bool(false) => self.out.push("false"),
            Value::Int(value) => self.out.push(&value.to_string()),
            Value::Float(value) => self.out.push(&float(*value)),
            Value::Str(text) | Value::Markup(text) => self.string(text.as_str()),
            Value::List(seq) | Value::Tuple(seq) => {
                self.out.push("[")?;
                for (i, item) in seq.items.iter().enumerate() {
                    self.begin(i, depth)?;
                    self.value(item, depth + 1)?;
                }
                self.end(seq.items.len(), depth, "]")
            }
            Value::Dict(dict) => {
                let mut entries: Vec<usize> = (0..dict.len()).collect();
                self.limits.charge(dict.len() as u64)?;
                if self.sorted {
                    let limits = self.limits;
                    entries = sort(&entries, &mut |&a, &b| match (dict.entry(a), dict.entry(b)) {
                        (Some(a), Some(b)) => sorts_before(limits, &a.0, &b.0),
                        _ => Ok(false),
                    })?;
                }
                self.out.push("{")?;
                for (i, (key, value)) in entries.into_iter().filter_map(|at| dict.entry(at)).enumerate() {
                    self.begin(i, depth)?;
                    self.name(key)?;
                    self.out.push(&self.key)?;
                    self.value(value, depth + 1)?;
                }
                self.end(dict.len(), depth, "}")
            }
            Value::Undefined(reason) => Err(failed(format!("an undefined value has no form in JSON: {reason}"))),
            other => Err(failed(format!("an object of type {} has no form in JSON", other.type_name()))),
        }
    }

    fn name(&mut self, key: &Value) -> Result<()> {
        match key {
            Value::None => self.string("null"),
            Value::Bool(true) => self.string("true"),
            Value::Bool(false) => self.string("false"),
            Value::Int(value) => self.string(&value.to_string()),
            Value::Float(value) => self.string(&float(*value)),
            Value::Str(text) | Value::Markup(text) => self.string(text.as_str()),
            other => Err(failed(format!("a key of type {} has no form in JSON", other.type_name()))),
        }
    }

    fn begin(&mut self, index: usize, depth: usize) -> Result<()> {
        if index > 0 {
            self.out.push(&self.item)?;
        }
        self.line(depth + 1)
    }

    fn end(&mut self, items: usize, depth: usize, close: &str) -> Result<()> {
        if items > 0 {
            self.line(depth)?;
        }
        self.out.push(close)
    }

    fn line(&mut self, depth: usize) -> Result<()> {
        if let Some(indent) = &self.indent {
            self.out.push("\n")?;
            self.out.repeat(indent, depth)?;
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<()> {
        self.out.push("\"")?;
        let mut from = 0;
        for (at, c) in text.char_indices() {
            if c >= ' ' && c != '"' && c != '\\' && (c.is_ascii() || !self.ascii) && !(c == '\x7f' && self.ascii) {
                continue;
            }
            self.out.push(&text[from..at])?;
            from = at + c.len_utf8();
            match c {
                '"' => self.out.push("\\\"")?,
                '\\' => self.out.push("\\\\")?,
                '\n' => self.out.push("\\n")?,
                '\r' => self.out.push("\\r")?,
                '\t' => self.out.push("\\t")?,
                '\x08' => self.out.push("\\b")?,
                '\x0c' => self.out.push("\\f")?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push(&format!("\\u{unit:04x}"))?;
                    }
                }
            }
        }
        self.out.push(&text[from..])?;
        self.out.push("\"")
    }
}

fn float(value: f64) -> String {
    if value.is_finite() {
        return print::float(value);
    }
    // Python's spelling of numbers that JSON cannot express.
    let word = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    word.into()
}
