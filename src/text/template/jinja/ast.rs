//! The syntax tree of a template.
//!
//! It holds no run-time values, so that one template can be rendered on any thread. It deliberately knows nothing of
//! how it runs. Read `parser.rs` for how it is made and `render.rs` for how it runs.

use std::sync::Arc;

/// An expression and the line on which it begins.
pub(super) struct Expr {
    pub(super) line: u32,
    /// The depth of the expression, itself included.
    pub(super) depth: u32,
    pub(super) kind: ExprKind,
}

pub(super) enum ExprKind {
    Text(String),
    Int(i128),
    Float(f64),
    Bool(bool),
    None,
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Not(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `a < b in c`: each operator compares its two neighbours.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// `a ~ b ~ c`
    Concat(Vec<Expr>),
    /// `yes if test else no`
    Condition {
        test: Box<Expr>,
        yes: Box<Expr>,
        no: Option<Box<Expr>>,
    },
    Filter {
        input: Option<Box<Expr>>,
        name: String,
        arguments: Arguments,
    },
    Test {
        input: Box<Expr>,
        name: String,
        arguments: Arguments,
    },
    Call(Box<Expr>, Arguments),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// `a[from:to:step]`
    Slice(Box<Expr>, [Option<Box<Expr>>; 3]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// The arguments of a call, a filter or a test.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(String, Expr)>,
    /// `*values`
    pub(super) unpacked: Option<Box<Expr>>,
    /// `**values`
    pub(super) unpacked_named: Option<Box<Expr>>,
}

/// The target of an assignment.
pub(super) enum Target {
    Name(String),
    /// `{% set space.name = ... %}`
    Attribute(String, String),
    Tuple(Vec<Target>),
}

pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) kind: StatementKind,
}

pub(super) enum StatementKind {
    Data(String),
    Print(Vec<Expr>),
    If(Vec<(Expr, Vec<Statement>)>, Vec<Statement>),
    For(Arc<For>),
    Set(Target, Expr),
    SetBlock(Target, Option<Expr>, Vec<Statement>),
    With(Vec<(Target, Expr)>, Vec<Statement>),
    Macro(Arc<Macro>),
    /// `{% call(arguments) macro() %}`
    Call(Expr, Arc<Macro>),
    Filter(Expr, Vec<Statement>),
    /// `{% generation %}` marks the assistant's part for training. Here it only prints its body.
    Generation(Vec<Statement>),
    Break,
    Continue,
}

pub(super) struct For {
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Vec<Statement>,
}

pub(super) struct Macro {
    /// The macro's name; `None` for the body of a `{% call %}`.
    pub(super) name: Option<String>,
    pub(super) parameters: Vec<(String, Option<Expr>)>,
    pub(super) body: Vec<Statement>,
    /// Whether the body uses `caller`, `kwargs` or `varargs` without declaring it as a parameter.
    pub(super) reads: Specials,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Specials {
    pub(super) caller: bool,
    pub(super) kwargs: bool,
    pub(super) varargs: bool,
}

impl ExprKind {
    /// The depth of the deepest child.
    pub(super) fn deepest_child(&self) -> u32 {
        let max = |all: &[Expr]| all.iter().map(|e| e.depth).max().unwrap_or(0);
        let of = |e: &Option<Box<Expr>>| e.as_ref().map_or(0, |e| e.depth);
        let arguments = |a: &Arguments| {
            let named = a.named.iter().map(|(_, e)| e.depth).max().unwrap_or(0);
            max(&a.positional).max(named).max(of(&a.unpacked)).max(of(&a.unpacked_named))
        };
        match self {
            Self::Text(_) | Self::Int(_) | Self::Float(_) | Self::Bool(_) | Self::None | Self::Name(_) => 0,
            Self::List(all) | Self::Tuple(all) | Self::Concat(all) => max(all),
            Self::Dict(pairs) => pairs.iter().map(|(k, v)| k.depth.max(v.depth)).max().unwrap_or(0),
            Self::Negative(e) | Self::Positive(e) | Self::Not(e) | Self::Attribute(e, _) => e.depth,
            Self::Binary(_, a, b) | Self::And(a, b) | Self::Or(a, b) | Self::Item(a, b) => a.depth.max(b.depth),
            Self::Compare(first, rest) => rest.iter().map(|(_, e)| e.depth).max().unwrap_or(0).max(first.depth),
            Self::Condition { test, yes, no } => test.depth.max(yes.depth).max(of(no)),
            Self::Filter { input, arguments: a, .. } => of(input).max(arguments(a)),
            Self::Test { input, arguments: a, .. } => input.depth.max(arguments(a)),
            Self::Call(callee, a) => callee.depth.max(arguments(a)),
            Self::Slice(e, bounds) => bounds.iter().map(of).max().unwrap_or(0).max(e.depth),
        }
    }
}
