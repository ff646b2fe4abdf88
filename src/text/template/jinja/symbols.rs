//! Names that a block reads before the template assigns them in a scope around that block.
//!
//! Jinja2 decides at compile time which scope a name belongs to. A name that a scope assigns, and has not read before,
//! starts undefined there, and a block inside that scope does not see the variable of the same name that transformers
//! passes. fanfold would find that variable, so reading such a name from the given variables is refused. Source of the
//! rules: `jinja2/idtracking.py` of Jinja2 3.1.

use super::ast::{Arguments, Expr, ExprKind, Statement, StatementKind, Target};
use std::collections::BTreeSet;

/// The names in `body` that may not be read from the given variables, by the rule at the top of this file.
pub(super) fn hidden(body: &[Statement]) -> BTreeSet<String> {
    let mut hidden = BTreeSet::new();
    frame(body, Vec::new(), &mut Vec::new(), &mut hidden);
    hidden.into_iter().map(str::to_owned).collect()
}

type NameSet<'t> = BTreeSet<&'t str>;

/// A scope while its statements are examined.
#[derive(Default)]
struct Frame<'t> {
    /// The names that the scope has read or assigned.
    known: NameSet<'t>,
    /// The names that blocks inside it have read so far.
    read_within: NameSet<'t>,
    /// The blocks inside it, each with the names that are assigned before it runs, such as a loop's target.
    blocks: Vec<(Vec<&'t str>, &'t [Statement])>,
}

fn frame<'t>(body: &'t [Statement], given: Vec<&'t str>, outer: &mut Vec<NameSet<'t>>, hidden: &mut NameSet<'t>) {
    let mut here = Frame { known: given.into_iter().collect(), ..Frame::default() };
    statements(body, false, &mut here, outer, hidden);
    outer.push(here.known);
    for (given, body) in here.blocks {
        frame(body, given, outer, hidden);
    }
    outer.pop();
}

fn statements<'t>(
    body: &'t [Statement],
    within_if: bool,
    here: &mut Frame<'t>,
    outer: &[NameSet<'t>],
    hidden: &mut NameSet<'t>,
) {
    for statement in body {
        match &statement.kind {
            StatementKind::Data(_) | StatementKind::Break | StatementKind::Continue => {}
            StatementKind::Print(values) => values.iter().for_each(|value| here.read(value)),
            StatementKind::If(branches, otherwise) => {
                for (test, body) in branches {
                    here.read(test);
                    statements(body, true, here, outer, hidden);
                }
                statements(otherwise, true, here, outer, hidden);
            }
            StatementKind::For(of) => {
                here.read(&of.iterable);
                let mut given = vec!["loop"];
                targets(&of.target, &mut given);
                if let Some(test) = &of.test {
                    names(test, &mut |name| _ = here.read_within.insert(name));
                }
                here.block(given, &of.body);
                here.block(Vec::new(), &of.otherwise);
            }
            StatementKind::Set(target, value) => {
                here.read(value);
                set(target, within_if, here, outer, hidden);
            }
            StatementKind::SetBlock(target, filter, body) => {
                filter.iter().for_each(|filter| here.read(filter));
                here.block(Vec::new(), body);
                set(target, within_if, here, outer, hidden);
            }
            StatementKind::With(pairs, body) => {
                let mut given = Vec::new();
                for (target, value) in pairs {
                    here.read(value);
                    targets(target, &mut given);
                }
                here.block(given, body);
            }
            StatementKind::Macro(of) => {
                let given = of.parameters.iter().map(|(name, _)| name.as_str());
                here.block(given.chain(["caller", "kwargs", "varargs"]).collect(), &of.body);
                if let Some(name) = &of.name {
                    store(name, within_if, here, outer, hidden);
                }
            }
            StatementKind::Call(call, of) => {
                here.read(call);
                here.block(of.parameters.iter().map(|(name, _)| name.as_str()).collect(), &of.body);
            }
            StatementKind::Filter(filter, body) => {
                here.read(filter);
                here.block(Vec::new(), body);
            }
            StatementKind::Generation(body) => here.block(Vec::new(), body),
        }
    }
}

impl<'t> Frame<'t> {
    fn read(&mut self, value: &'t Expr) {
        names(value, &mut |name| _ = self.known.insert(name));
    }

    fn block(&mut self, given: Vec<&'t str>, body: &'t [Statement]) {
        read_in(body, &mut |name| _ = self.read_within.insert(name));
        self.blocks.push((given, body));
    }
}

fn set<'t>(target: &'t Target, within_if: bool, here: &mut Frame<'t>, outer: &[NameSet<'t>], hidden: &mut NameSet<'t>) {
    match target {
        Target::Name(name) => store(name, within_if, here, outer, hidden),
        Target::Attribute(name, _) => _ = here.known.insert(name),
        Target::Tuple(all) => all.iter().for_each(|target| set(target, within_if, here, outer, hidden)),
    }
}

fn store<'t>(name: &'t str, within_if: bool, here: &mut Frame<'t>, outer: &[NameSet<'t>], hidden: &mut NameSet<'t>) {
    let known = here.known.contains(name) || outer.iter().any(|names| names.contains(name));
    // A name that only a branch of an `if` assigns is looked up outside, like a name that is read first.
    if !known && !within_if && here.read_within.contains(name) {
        hidden.insert(name);
    }
    here.known.insert(name);
}

fn targets<'t>(target: &'t Target, names: &mut Vec<&'t str>) {
    match target {
        Target::Name(name) => names.push(name),
        Target::Attribute(..) => {}
        Target::Tuple(all) => all.iter().for_each(|target| targets(target, names)),
    }
}

/// All names that the expressions of `body` read.
fn read_in<'t>(body: &'t [Statement], found: &mut impl FnMut(&'t str)) {
    for statement in body {
        match &statement.kind {
            StatementKind::Data(_) | StatementKind::Break | StatementKind::Continue => {}
            StatementKind::Print(values) => values.iter().for_each(|value| names(value, found)),
            StatementKind::If(branches, otherwise) => {
                for (test, body) in branches {
                    names(test, found);
                    read_in(body, found);
                }
                read_in(otherwise, found);
            }
            StatementKind::For(of) => {
                names(&of.iterable, found);
                of.test.iter().for_each(|test| names(test, found));
                read_in(&of.body, found);
                read_in(&of.otherwise, found);
            }
            StatementKind::Set(_, value) => names(value, found),
            StatementKind::SetBlock(_, filter, body) => {
                filter.iter().for_each(|filter| names(filter, found));
                read_in(body, found);
            }
            StatementKind::With(pairs, body) => {
                pairs.iter().for_each(|(_, value)| names(value, found));
                read_in(body, found);
            }
            StatementKind::Macro(of) => {
                of.parameters.iter().filter_map(|(_, default)| default.as_ref()).for_each(|d| names(d, found));
                read_in(&of.body, found);
            }
            StatementKind::Call(value, of) => {
                names(value, found);
                read_in(&of.body, found);
            }
            StatementKind::Filter(value, body) => {
                names(value, found);
                read_in(body, found);
            }
            StatementKind::Generation(body) => read_in(body, found),
        }
    }
}

/// All names that an expression reads.
fn names<'t>(expr: &'t Expr, found: &mut dyn FnMut(&'t str)) {
    let of_arguments = |arguments: &'t Arguments, found: &mut dyn FnMut(&'t str)| {
        arguments.positional.iter().for_each(|e| names(e, found));
        arguments.named.iter().for_each(|(_, e)| names(e, found));
        arguments.unpacked.iter().chain(&arguments.unpacked_named).for_each(|e| names(e, found));
    };
    match &expr.kind {
        ExprKind::Name(name) => found(name),
        ExprKind::Text(_) | ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::None => {}
        ExprKind::List(all) | ExprKind::Tuple(all) | ExprKind::Concat(all) => {
            all.iter().for_each(|e| names(e, found));
        }
        ExprKind::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
            names(key, found);
            names(value, found);
        }),
        ExprKind::Negative(e) | ExprKind::Positive(e) | ExprKind::Not(e) | ExprKind::Attribute(e, _) => names(e, found),
        ExprKind::Binary(_, a, b) | ExprKind::And(a, b) | ExprKind::Or(a, b) | ExprKind::Item(a, b) => {
            names(a, found);
            names(b, found);
        }
        ExprKind::Compare(first, rest) => {
            names(first, found);
            rest.iter().for_each(|(_, e)| names(e, found));
        }
        ExprKind::Condition { test, yes, no } => {
            names(test, found);
            names(yes, found);
            no.iter().for_each(|e| names(e, found));
        }
        ExprKind::Filter { input, arguments, .. } => {
            input.iter().for_each(|e| names(e, found));
            of_arguments(arguments, found);
        }
        ExprKind::Test { input, arguments, .. } => {
            names(input, found);
            of_arguments(arguments, found);
        }
        ExprKind::Call(callee, arguments) => {
            names(callee, found);
            of_arguments(arguments, found);
        }
        ExprKind::Slice(e, bounds) => {
            names(e, found);
            bounds.iter().flatten().for_each(|e| names(e, found));
        }
    }
}
