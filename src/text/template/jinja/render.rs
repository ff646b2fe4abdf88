//! Runs a parsed template: statements print text, expressions give values.
//!
//! Scopes are those of Jinja2: a loop, a macro, a `with` and a block set each have one, an `if` has none. Every node
//! takes a step, and every level of nesting is counted, so that no template can overflow the stack. Read `ast.rs` and
//! `value/mod.rs` first.

use super::ast::{self, Comparison, Expr, ExprKind, For, Statement, StatementKind, Target};
use super::call::Arguments;
use super::fault::{Result, at, failed, refused};
use super::limits::{Buffer, Limits};
use super::operators::{binary, sign};
use super::runtime::{Runtime, runs};
use super::value::{Cursor, Dict, LoopState, Macro, Scope, Value, items};
use super::{access, compare, filters, functions, methods, predicates, print};
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// One rendering.
pub(super) struct Render<'t> {
    limits: Rc<Limits>,
    /// The time that `strftime_now` returns.
    now: jiff::Timestamp,
    /// The variables that the template is given.
    context: BTreeMap<String, Value>,
    /// Variables that may not be read; see `symbols.rs`.
    hidden: &'t BTreeSet<String>,
}

/// How a list of statements ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'t> Render<'t> {
    pub(super) fn new(
        limits: Rc<Limits>,
        context: BTreeMap<String, Value>,
        hidden: &'t BTreeSet<String>,
        now: jiff::Timestamp,
    ) -> Self {
        Render { limits, now, context, hidden }
    }

    /// Renders the whole template.
    pub(super) fn template(&self, body: &[Statement]) -> Result<String> {
        let root = Rc::new(Scope::default());
        let mut out = Buffer::new(&self.limits);
        let result = self.run(body, &root, &mut out);
        root.leave();
        result?;
        Ok(out.into_parts().0)
    }

    fn run(&self, body: &[Statement], scope: &Rc<Scope>, out: &mut Buffer) -> Result<Flow> {
        self.limits.deeper(|| {
            for statement in body {
                self.limits.charge(1)?;
                let flow = self.statement(statement, scope, out).map_err(at(statement.line))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    /// Runs `body` in a new scope, which `fill` prepares.
    fn scoped<T>(&self, outer: &Rc<Scope>, work: impl FnOnce(&Rc<Scope>) -> Result<T>) -> Result<T> {
        let scope = Scope::within(outer);
        let result = work(&scope);
        scope.leave();
        result
    }

    fn statement(&self, statement: &Statement, scope: &Rc<Scope>, out: &mut Buffer) -> Result<Flow> {
        match &statement.kind {
            StatementKind::Data(text) => out.push(text)?,
            StatementKind::Print(values) => {
                for value in values {
                    let value = self.value(value, scope)?;
                    self.print(out, &value)?;
                }
            }
            StatementKind::If(branches, otherwise) => {
                for (test, body) in branches {
                    let test = self.value(test, scope)?;
                    if self.truth(&test)? {
                        return self.run(body, scope, out);
                    }
                }
                return self.run(otherwise, scope, out);
            }
            StatementKind::For(definition) => {
                let iterable = self.value(&definition.iterable, scope)?;
                if definition.recursive {
                    let text = self.recursive(definition, scope, &iterable, 0)?;
                    out.push(text.as_str())?;
                } else {
                    return self.for_loop(definition, scope, &iterable, 0, out);
                }
            }
            StatementKind::Set(target, value) => {
                let value = self.value(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StatementKind::SetBlock(target, filter, body) => {
                let mut text = Buffer::new(&self.limits);
                let flow = self.scoped(scope, |inner| self.run(body, inner, &mut text))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let mut value = Value::from_buffer(text);
                if let Some(filter) = filter {
                    value = self.filtered(filter, value, scope)?;
                }
                self.assign(target, value, scope)?;
            }
            StatementKind::With(pairs, body) => {
                return self.scoped(scope, |inner| {
                    for (target, value) in pairs {
                        let value = self.value(value, scope)?;
                        self.assign(target, value, inner)?;
                    }
                    self.run(body, inner, out)
                });
            }
            StatementKind::Macro(definition) => {
                let value = Value::Macro(Rc::new(Macro { definition: definition.clone(), scope: scope.clone() }));
                if let Some(name) = &definition.name {
                    scope.set(name, value);
                }
            }
            StatementKind::Call(call, body) => {
                let ExprKind::Call(callee, arguments) = &call.kind else { return Err(failed("expected a call")) };
                let callee = self.value(callee, scope)?;
                let mut arguments = self.arguments(arguments, scope)?;
                if !matches!(callee, Value::Macro(_)) {
                    callee.defined()?;
                    return Err(refused("a call block of what is no macro"));
                }
                let caller = Macro { definition: body.clone(), scope: scope.clone() };
                arguments.named.push(("caller".into(), Value::Macro(Rc::new(caller))));
                let value = self.call(&callee, &arguments)?;
                self.print(out, &value)?;
            }
            StatementKind::Filter(filter, body) => {
                let mut text = Buffer::new(&self.limits);
                let (flow, value) = self.scoped(scope, |inner| {
                    let flow = self.run(body, inner, &mut text)?;
                    let value = match flow {
                        Flow::Next => self.filtered(filter, Value::from_buffer(text), inner)?,
                        _ => Value::None,
                    };
                    Ok((flow, value))
                })?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                self.print(out, &value)?;
            }
            StatementKind::Generation(body) => {
                self.scoped(scope, |inner| self.run(body, inner, out))?;
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn print(&self, out: &mut Buffer, value: &Value) -> Result<()> {
        if let Value::Loop(state) = value {
            let length = self.loop_length(state)?;
            return out.push(&format!("<LoopContext {}/{length}>", state.index0.get() + 1));
        }
        print::print(out, &self.limits, value)
    }

    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Attribute(name, attribute) => match self.name(name, scope)? {
                Value::Namespace(space) => {
                    functions::store(self, &space, Value::text(&self.limits, attribute.as_str())?, value)?;
                }
                _ => return Err(failed("cannot assign attribute on non-namespace object")),
            },
            Target::Tuple(targets) => {
                value.defined()?;
                let values = self.limits.deeper(|| items(&self.limits, &value))?;
                if values.len() != targets.len() {
                    return Err(failed(format!("{} values for {} names", values.len(), targets.len())));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the value back from a loop's target. A loop with a test assigns the target in order to test the item, and
    /// Jinja2 then passes on the assigned value instead of the original item.
    fn unpacked(&self, target: &Target, scope: &Rc<Scope>) -> Result<Value> {
        match target {
            Target::Name(name) => self.name(name, scope),
            Target::Attribute(..) => Err(refused("a loop over attributes")),
            Target::Tuple(targets) => {
                let values = targets.iter().map(|target| self.unpacked(target, scope)).collect::<Result<_>>()?;
                Value::tuple(&self.limits, values)
            }
        }
    }

    // Loops.

    fn recursive(&self, definition: &Arc<For>, scope: &Rc<Scope>, iterable: &Value, depth: usize) -> Result<Buffer> {
        let mut text = Buffer::new(&self.limits);
        self.limits.deeper(|| self.for_loop(definition, scope, iterable, depth, &mut text).map(drop))?;
        Ok(text)
    }

    fn for_loop(
        &self,
        definition: &Arc<For>,
        scope: &Rc<Scope>,
        iterable: &Value,
        depth: usize,
        out: &mut Buffer,
    ) -> Result<Flow> {
        let state = Rc::new(LoopState {
            definition: definition.clone(),
            scope: scope.clone(),
            source: RefCell::new(Cursor::of(iterable)?),
            length: Cell::new(if definition.test.is_some() { None } else { iterable.len() }),
            index0: Cell::new(0),
            started: Cell::new(false),
            tested: Cell::new(false),
            left: Cell::new(false),
            depth0: depth,
            before: RefCell::new(None),
            current: RefCell::new(None),
            after: RefCell::new(None),
            changed: RefCell::new(None),
        });
        let result = self.iterations(&state, out);
        state.leave();
        if result? {
            return Ok(Flow::Next);
        }
        // The part after `else` is outside this loop: a `break` there leaves the loop around it.
        self.scoped(scope, |inner| self.run(&definition.otherwise, inner, out))
    }

    /// Runs a loop's body for each item. Returns whether any run reached its end.
    fn iterations(&self, state: &Rc<LoopState>, out: &mut Buffer) -> Result<bool> {
        let mut completed = false;
        loop {
            let peeked = state.after.take();
            let item = match peeked {
                Some(item) => item,
                None => self.pull(state)?,
            };
            let Some(item) = item else { return Ok(completed) };
            if state.started.replace(true) {
                state.index0.set(state.index0.get() + 1);
            }
            let before = state.current.replace(Some(item.clone()));
            let _older = state.before.replace(before);
            let flow = self.scoped(&state.scope, |inner| {
                inner.set("loop", Value::Loop(state.clone()));
                self.assign(&state.definition.target, item, inner)?;
                self.run(&state.definition.body, inner, out)
            })?;
            match flow {
                // For Jinja2 a loop has run only if its body reached the end, which a `continue` prevents.
                Flow::Next => completed = true,
                Flow::Continue => {}
                Flow::Break => return Ok(completed),
            }
        }
    }

    /// The next item that passes the loop's test.
    fn pull(&self, state: &Rc<LoopState>) -> Result<Option<Value>> {
        loop {
            let item = match state.source.try_borrow_mut() {
                Ok(mut source) => source.next(&self.limits)?,
                Err(_) => return Err(refused("a loop whose test looks at the loop")),
            };
            let (Some(item), Some(test), false) = (&item, &state.definition.test, state.tested.get()) else {
                return Ok(item);
            };
            let passed = self.scoped(&state.scope, |inner| {
                self.assign(&state.definition.target, item.clone(), inner)?;
                let answer = self.value(test, inner)?;
                if self.truth(&answer)? { self.unpacked(&state.definition.target, inner).map(Some) } else { Ok(None) }
            })?;
            if passed.is_some() {
                return Ok(passed);
            }
        }
    }

    // Expressions.

    fn value(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.limits.charge(1)?;
        self.limits.deeper(|| self.evaluate(expr, scope)).map_err(at(expr.line))
    }

    fn values(&self, exprs: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.value(expr, scope)).collect()
    }

    fn name(&self, name: &str, scope: &Rc<Scope>) -> Result<Value> {
        if let Some(value) = scope.get(name) {
            return Ok(value);
        }
        let given = match self.context.get(name) {
            Some(value) => Some(Ok(value.clone())),
            None => functions::find(name).map(|function| function.map(Value::Function)),
        };
        match given {
            Some(_) if self.hidden.contains(name) => {
                Err(refused(format!("reading {name} in a block before it is set in a scope around the block")))
            }
            Some(given) => given,
            None if name == "self" => Err(refused("the name self")),
            None => Ok(Value::undefined(format!("'{name}' is undefined"))),
        }
    }

    fn evaluate(&self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        let limits = &self.limits;
        match &expr.kind {
            ExprKind::Text(text) => Value::text(limits, text.as_str()),
            ExprKind::Int(value) => Ok(Value::Int(*value)),
            ExprKind::Float(value) => Ok(Value::Float(*value)),
            ExprKind::Bool(value) => Ok(Value::Bool(*value)),
            ExprKind::None => Ok(Value::None),
            ExprKind::Name(name) => self.name(name, scope),
            ExprKind::List(all) => Value::list(limits, self.values(all, scope)?),
            ExprKind::Tuple(all) => Value::tuple(limits, self.values(all, scope)?),
            ExprKind::Dict(pairs) => {
                let mut all = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    all.push((self.value(key, scope)?, self.value(value, scope)?));
                }
                Dict::new(limits, all).map(Value::Dict)
            }
            ExprKind::Negative(value) => sign(true, &self.value(value, scope)?),
            ExprKind::Positive(value) => sign(false, &self.value(value, scope)?),
            ExprKind::Not(value) => {
                let value = self.value(value, scope)?;
                Ok(Value::Bool(!self.truth(&value)?))
            }
            ExprKind::Binary(operator, a, b) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                binary(limits, *operator, &a, &b)
            }
            ExprKind::Compare(first, rest) => {
                let mut left = self.value(first, scope)?;
                for (comparison, right) in rest {
                    let right = self.value(right, scope)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            ExprKind::And(a, b) => {
                let a = self.value(a, scope)?;
                if self.truth(&a)? { self.value(b, scope) } else { Ok(a) }
            }
            ExprKind::Or(a, b) => {
                let a = self.value(a, scope)?;
                if self.truth(&a)? { Ok(a) } else { self.value(b, scope) }
            }
            ExprKind::Concat(all) => {
                let mut out = Buffer::new(limits);
                for part in all {
                    let part = self.value(part, scope)?;
                    self.print(&mut out, &part)?;
                }
                Ok(Value::from_buffer(out))
            }
            ExprKind::Condition { test, yes, no } => {
                let test = self.value(test, scope)?;
                match (self.truth(&test)?, no) {
                    (true, _) => self.value(yes, scope),
                    (false, Some(no)) => self.value(no, scope),
                    (false, None) => Ok(Value::undefined("an inline if without an else was false")),
                }
            }
            ExprKind::Filter { input, name, arguments } => {
                let Some(input) = input else { return Err(failed("a filter without a value")) };
                let input = self.value(input, scope)?;
                filters::call(self, name, &input, &self.arguments(arguments, scope)?)
            }
            ExprKind::Test { input, name, arguments } => {
                let input = self.value(input, scope)?;
                let arguments = self.arguments(arguments, scope)?;
                predicates::call(self, name, &input, &arguments).map(Value::Bool)
            }
            ExprKind::Call(callee, arguments) => {
                let callee = self.value(callee, scope)?;
                self.call(&callee, &self.arguments(arguments, scope)?)
            }
            ExprKind::Attribute(value, name) => access::attribute(self, &self.value(value, scope)?, name),
            ExprKind::Item(value, key) => {
                let value = self.value(value, scope)?;
                access::item(self, &value, &self.value(key, scope)?)
            }
            ExprKind::Slice(value, bounds) => {
                let value = self.value(value, scope)?;
                let mut given = [None, None, None];
                for (slot, bound) in given.iter_mut().zip(bounds) {
                    if let Some(bound) = bound {
                        *slot = Some(self.value(bound, scope)?);
                    }
                }
                access::slice(self, &value, given)
            }
        }
    }

    /// Applies a filter, or a chain of filters, to the text that a block has printed.
    fn filtered(&self, filter: &Expr, text: Value, scope: &Rc<Scope>) -> Result<Value> {
        let ExprKind::Filter { input, name, arguments } = &filter.kind else { return Err(failed("expected a filter")) };
        self.limits.charge(1)?;
        let input = match input {
            Some(before) => self.limits.deeper(|| self.filtered(before, text, scope))?,
            None => text,
        };
        filters::call(self, name, &input, &self.arguments(arguments, scope)?).map_err(at(filter.line))
    }

    fn arguments(&self, arguments: &ast::Arguments, scope: &Rc<Scope>) -> Result<Arguments> {
        let mut given = Arguments { positional: self.values(&arguments.positional, scope)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            given.named.push((name.clone(), self.value(value, scope)?));
        }
        if let Some(more) = &arguments.unpacked {
            let more = self.value(more, scope)?;
            given.positional.extend(items(&self.limits, &more)?);
        }
        if let Some(more) = &arguments.unpacked_named {
            let more = self.value(more, scope)?;
            let Value::Dict(dict) = &more else {
                return Err(failed(format!("argument after ** must be a mapping, not {}", more.type_name())));
            };
            for (name, value) in dict.entries() {
                let name = name.as_str().ok_or_else(|| failed("keywords must be strings"))?;
                self.limits.charge(1 + given.named.len() as u64)?;
                if given.named.iter().any(|(other, _)| other == name) {
                    return Err(failed(format!("got two values for the argument {name}")));
                }
                given.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(given)
    }

    fn compare(&self, comparison: Comparison, a: &Value, b: &Value) -> Result<bool> {
        let order = |operator: &str, accepts: fn(Ordering) -> bool| {
            Ok(compare::order(&self.limits, a, b, operator)?.is_some_and(accepts))
        };
        match comparison {
            Comparison::Equal => compare::equal(&self.limits, a, b),
            Comparison::Unequal => Ok(!compare::equal(&self.limits, a, b)?),
            Comparison::Less => order("<", Ordering::is_lt),
            Comparison::LessOrEqual => order("<=", Ordering::is_le),
            Comparison::Greater => order(">", Ordering::is_gt),
            Comparison::GreaterOrEqual => order(">=", Ordering::is_ge),
            Comparison::In => compare::contains(&self.limits, a, b),
            Comparison::NotIn => Ok(!compare::contains(&self.limits, a, b)?),
        }
    }

    // Calls.

    fn call(&self, callee: &Value, arguments: &Arguments) -> Result<Value> {
        self.limits.charge(1)?;
        match callee {
            Value::Function(function) => functions::call(self, *function, arguments),
            Value::Method(method) => methods::call(self, &method.0, &method.1, arguments),
            Value::Macro(of) => self.macro_call(of, arguments),
            Value::Loop(state) => {
                let [iterable] = arguments.bind("loop", ["iterable"])?;
                let iterable = super::call::required(iterable, "loop", "iterable")?;
                runs(state)?;
                if !state.definition.recursive {
                    return Err(failed("the loop must have the 'recursive' marker to be called recursively"));
                }
                let text = self.recursive(&state.definition, &state.scope, iterable, state.depth0 + 1)?;
                Ok(Value::from_buffer(text))
            }
            Value::Joiner(joiner) => {
                let [] = arguments.positions("joiner", 0)?;
                if joiner.used.replace(true) { Ok(joiner.separator.clone()) } else { Value::text(&self.limits, "") }
            }
            other => {
                other.defined()?;
                Err(failed(format!("'{}' object is not callable", other.type_name())))
            }
        }
    }

    /// Calls a macro as Jinja2 does: named arguments fill the parameters without a positional one.
    fn macro_call(&self, of: &Rc<Macro>, arguments: &Arguments) -> Result<Value> {
        if of.scope.was_left() {
            return Err(refused("a macro that is called after the block that defines it has ended"));
        }
        let definition = &*of.definition;
        let title = definition.name.as_deref().unwrap_or("caller");
        let mut named = arguments.named.clone();
        self.limits.charge((named.len() as u64).saturating_mul(1 + definition.parameters.len() as u64))?;
        let mut take = |name: &str| named.iter().position(|(other, _)| other == name).map(|at| named.remove(at).1);
        let mut given: Vec<Option<Value>> = arguments.positional.iter().cloned().map(Some).collect();
        let extra = given.split_off(definition.parameters.len().min(given.len()));
        for (name, _) in definition.parameters.iter().skip(given.len()) {
            given.push(take(name));
        }
        let caller = if definition.reads.caller { take("caller") } else { None };
        self.scoped(&of.scope, |scope| {
            if definition.reads.caller {
                let missing = || Value::undefined("no caller is defined");
                scope.set("caller", caller.unwrap_or_else(missing));
            }
            if definition.reads.kwargs {
                let mut pairs = Vec::new();
                for (name, value) in named {
                    pairs.push((Value::text(&self.limits, name)?, value));
                }
                scope.set("kwargs", Value::Dict(Dict::new(&self.limits, pairs)?));
            } else if let Some((name, _)) = named.first() {
                return Err(failed(format!("macro '{title}' takes no keyword argument '{name}'")));
            }
            if definition.reads.varargs {
                scope.set("varargs", Value::tuple(&self.limits, extra.into_iter().flatten().collect())?);
            } else if !extra.is_empty() {
                let max = definition.parameters.len();
                return Err(failed(format!("macro '{title}' takes not more than {max} argument(s)")));
            }
            // A default value sees the parameters before it. A name of a later parameter does not refer to the
            // variable of that name outside.
            for ((name, _), value) in definition.parameters.iter().zip(&given) {
                let missing = || Value::undefined(format!("parameter '{name}' was not provided"));
                scope.set(name, value.clone().unwrap_or_else(missing));
            }
            for ((name, default), value) in definition.parameters.iter().zip(&given) {
                if let (None, Some(default)) = (value, default) {
                    let value = self.value(default, scope)?;
                    scope.set(name, value);
                }
            }
            let mut text = Buffer::new(&self.limits);
            self.run(&definition.body, scope, &mut text)?;
            Ok(Value::from_buffer(text))
        })
    }
}

impl Runtime for Render<'_> {
    fn limits(&self) -> &Rc<Limits> {
        &self.limits
    }

    fn now(&self) -> jiff::Timestamp {
        self.now
    }

    fn truth(&self, value: &Value) -> Result<bool> {
        match value {
            Value::Loop(state) => Ok(self.loop_length(state)? > 0),
            other => Ok(other.truth()),
        }
    }

    fn length(&self, value: &Value) -> Result<usize> {
        if let Value::Loop(state) = value {
            return self.loop_length(state);
        }
        if let Some(text) = value.as_str() {
            self.limits.charge_bytes(text.len())?;
        }
        value.len().ok_or_else(|| failed(format!("object of type '{}' has no len()", value.type_name())))
    }

    fn peek(&self, state: &Rc<LoopState>) -> Result<Option<Value>> {
        runs(state)?;
        if let Some(item) = state.after.borrow().clone() {
            return Ok(item);
        }
        let item = self.pull(state)?;
        *state.after.borrow_mut() = Some(item.clone());
        Ok(item)
    }

    fn loop_length(&self, state: &Rc<LoopState>) -> Result<usize> {
        runs(state)?;
        if let Some(length) = state.length.get() {
            return Ok(length);
        }
        let peeked = usize::from(matches!(*state.after.borrow(), Some(Some(_))));
        let mut rest = Vec::new();
        while let Some(item) = self.pull(state)? {
            rest.push(item);
        }
        let length = state.index0.get() + 1 + peeked + rest.len();
        let rest = Value::list(&self.limits, rest)?;
        state.tested.set(true);
        *state.source.borrow_mut() = Cursor::of(&rest)?;
        state.length.set(Some(length));
        Ok(length)
    }

    fn attribute(&self, value: &Value, name: &str) -> Result<Value> {
        access::attribute(self, value, name)
    }

    fn item(&self, value: &Value, key: &Value) -> Result<Value> {
        access::item(self, value, key)
    }

    fn filter(&self, name: &str, value: &Value, arguments: &Arguments) -> Result<Value> {
        filters::call(self, name, value, arguments)
    }

    fn test(&self, name: &str, value: &Value, arguments: &Arguments) -> Result<bool> {
        predicates::call(self, name, value, arguments)
    }
}
