//! Jinja2's language, as transformers sets it up for chat templates, with bounds that no template escapes.
//!
//! What a template means is Jinja2's and Python's: each difference that is left is an error, never another text. It
//! deliberately knows no model and no files. Read `parser.rs` and `render.rs` for how it runs, `limits.rs` for the
//! bounds, and `tests/fixtures/templates/expressions.py` for what it is compared with.

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

/// What a variable of the context holds.
pub(super) enum Variable<'a> {
    None,
    Bool(bool),
    Text(&'a str),
    /// A list of dicts of texts.
    Records(Vec<Vec<(&'a str, &'a str)>>),
}

impl Template {
    pub(super) fn parse(source: &str) -> fault::Result<Self> {
        let body = parser::parse(source)?;
        let hidden = symbols::hidden(&body);
        Ok(Template { body, hidden })
    }

    /// The template's text. `now` is what `strftime_now` tells; `given` are the bytes of the conversation, which widen
    /// the limits.
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
