//! Jinja2's language, as transformers sets it up for chat templates, with limits that no template can escape.
//!
//! The meaning of a template is that of Jinja2 and Python. Where fanfold differs, the result is an error, never
//! another text. The module deliberately knows no model and no files. Read `parser.rs` and `render.rs` for how a
//! template runs, `limits.rs` for the limits, and `tests/fixtures/templates/expressions.py` for the comparison with
//! Jinja2.

mod access;
mod ast;
mod brace;
mod call;
mod compare;
mod fault;
mod filters;
mod functions;
mod json;
mod lexer;
mod limits;
mod list_filters;
mod methods;
mod numbers;
mod operators;
mod parser;
mod percent;
mod predicates;
mod print;
mod render;
mod runtime;
mod spec;
mod strings;
mod symbols;
mod text_filters;
mod text_methods;
mod value;

pub(super) use fault::{Error, Fault};
use limits::Limits;
use std::collections::{BTreeMap, BTreeSet};
use value::Value;

/// A parsed template.
pub(super) struct Template {
    body: Vec<ast::Statement>,
    hidden: BTreeSet<String>,
}

/// The value of a variable that the template is given.
pub(super) enum Variable<'a> {
    None,
    Bool(bool),
    Text(&'a str),
    /// A list of dicts of strings.
    Records(Vec<Vec<(&'a str, &'a str)>>),
}

impl Template {
    pub(super) fn parse(source: &str) -> fault::Result<Self> {
        let body = parser::parse(source)?;
        let hidden = symbols::hidden(&body);
        Ok(Template { body, hidden })
    }

    /// Renders the template. `now` is the time that `strftime_now` returns. `given` is the size of the conversation in
    /// bytes, which widens the limits.
    pub(super) fn render(
        &self,
        variables: &BTreeMap<&str, Variable>,
        now: jiff::Timestamp,
        given: usize,
    ) -> fault::Result<String> {
        let limits = Limits::new(given);
        let mut context = BTreeMap::new();
        for (name, variable) in variables {
            let value = match variable {
                Variable::None => Value::None,
                Variable::Bool(value) => Value::Bool(*value),
                Variable::Text(text) => Value::text(&limits, *text)?,
                Variable::Records(records) => {
                    let mut dicts = Vec::new();
                    for record in records {
                        let mut pairs = Vec::new();
                        for (key, text) in record {
                            pairs.push((Value::text(&limits, *key)?, Value::text(&limits, *text)?));
                        }
                        dicts.push(Value::Dict(value::Dict::new(&limits, pairs)?));
                    }
                    Value::list(&limits, dicts)?
                }
            };
            context.insert((*name).to_owned(), value);
        }
        render::Render::new(limits, context, &self.hidden, now).template(&self.body)
    }
}
