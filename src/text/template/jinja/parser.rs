//! Parses tokens into a template, by the grammar of Jinja2's parser with loop controls and `{% generation %}`.
//!
//! What Jinja2 refuses at compile time is refused here, and so is access to other templates. Depth is limited here
//! once, so that later code can walk a template recursively. Read `ast.rs` first.
//! Source of the grammar: `jinja2/parser.py` of Jinja2 3.1.

use super::ast::{
    Arguments, Binary, Comparison, Expr, ExprKind, For, Macro, Specials, Statement, StatementKind, Target,
};
use super::fault::{Error, Fault, Result, syntax};
use super::lexer::{Token, tokens};
use super::{filters, predicates};
use std::sync::Arc;

/// The most nested expressions or blocks. Jinja2 itself runs out of Python's stack at about 70 parentheses.
const NESTED: u32 = 120;
/// The most levels of an expression; `a + b + c + d` has four.
const DEEPEST: u32 = 600;
/// The most parameters of a macro, and named arguments of a call.
const ARGUMENTS: usize = 255;

/// Parses the template `source`.
pub(super) fn parse(source: &str) -> Result<Vec<Statement>> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nested: 0, soft: false, loops: 0, macros: Vec::new() };
    let (body, _) = parser.statements(&[])?;
    Ok(body)
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nested: u32,
    /// Whether an `if` surrounds the current position. There, an unknown filter is an error only when it is reached.
    soft: bool,
    /// The number of surrounding loops inside the innermost macro.
    loops: u32,
    /// For each surrounding macro, the special names that its body uses.
    macros: Vec<Specials>,
}

impl Parser {
    fn token(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn next_token(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(token, _)| token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(syntax(self.line(), reason))
    }

    fn refuse<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Box::new(Error { fault: Fault::Refused(what.into()), line: Some(self.line()) }))
    }

    fn is_name(&self, word: &str) -> bool {
        matches!(self.token(), Token::Name(name) if name == word)
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.token(), Token::Operator(other) if *other == operator)
    }

    fn skip_name(&mut self, word: &str) -> bool {
        let found = self.is_name(word);
        self.at += usize::from(found);
        found
    }

    fn skip(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip(operator) { Ok(()) } else { self.fail(format!("expected {operator:?}, got {}", self.got())) }
    }

    fn expect_name(&mut self) -> Result<String> {
        match self.token().clone() {
            Token::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.fail(format!("expected a name, got {}", self.got())),
        }
    }

    fn expect_block_end(&mut self) -> Result<()> {
        match self.token() {
            Token::BlockEnd => {
                self.at += 1;
                Ok(())
            }
            _ => self.fail(format!("expected the end of the statement, got {}", self.got())),
        }
    }

    fn got(&self) -> String {
        match self.token() {
            Token::Data(_) => "text".into(),
            Token::VariableBegin => "{{".into(),
            Token::VariableEnd => "}}".into(),
            Token::BlockBegin => "{%".into(),
            Token::BlockEnd => "%}".into(),
            Token::Name(name) => format!("{:?}", name.chars().take(40).collect::<String>()),
            Token::Text(_) => "a text".into(),
            Token::Int(_) | Token::Float(_) => "a number".into(),
            Token::Operator(operator) => format!("{operator:?}"),
            Token::End => "the end of the template".into(),
        }
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nested >= NESTED {
            return self.fail("nested too deep: the recursion has a limit");
        }
        self.nested += 1;
        let result = work(self);
        self.nested -= 1;
        result
    }

    fn expr(&self, line: u32, kind: ExprKind) -> Result<Expr> {
        let depth = 1 + kind.deepest_child();
        if depth > DEEPEST {
            return Err(syntax(line, "an expression is nested too deep: the recursion has a limit"));
        }
        Ok(Expr { line, depth, kind })
    }

    // Statements.

    /// Parses statements up to a block that begins with one of `ends`; consumes and returns that word. Without `ends`,
    /// up to the end of the template.
    fn statements(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        self.deeper(|this| this.statements_here(ends))
    }

    fn statements_here(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.token().clone() {
                Token::End if ends.is_empty() => return Ok((body, String::new())),
                Token::End => return self.fail(format!("the template ends before {}", ends.join(" or "))),
                Token::Data(text) => {
                    self.at += 1;
                    body.push(Statement { line, kind: StatementKind::Data(text) });
                }
                Token::VariableBegin => {
                    self.at += 1;
                    let value = self.tuple(true, &[])?;
                    if *self.token() != Token::VariableEnd {
                        return self.fail(format!("expected the end of the print statement, got {}", self.got()));
                    }
                    self.at += 1;
                    body.push(Statement { line, kind: StatementKind::Print(vec![value]) });
                }
                Token::BlockBegin => {
                    self.at += 1;
                    let word = self.expect_name()?;
                    if ends.contains(&word.as_str()) {
                        return Ok((body, word));
                    }
                    let kind = self.statement(&word)?;
                    self.expect_block_end()?;
                    body.push(Statement { line, kind });
                }
                _ => return self.fail(format!("unexpected {}", self.got())),
            }
        }
    }

    /// A block's body. A colon before it is allowed, as in Python.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        self.skip(":");
        self.expect_block_end()?;
        self.statements(ends)
    }

    /// Parses a body with a scope of its own. An `if` around it no longer counts.
    fn scoped(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String)> {
        let soft = std::mem::replace(&mut self.soft, false);
        let body = self.body(ends);
        self.soft = soft;
        body
    }

    /// Parses a body that runs as a function: `break` and `continue` in it cannot reach a loop around it.
    fn function(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, Specials)> {
        let loops = std::mem::replace(&mut self.loops, 0);
        self.macros.push(Specials::default());
        let body = self.scoped(ends);
        self.loops = loops;
        let reads = self.macros.pop().unwrap_or_default();
        // A macro around this one uses the names, too, because it passes them on.
        if let Some(outer) = self.macros.last_mut() {
            outer.caller |= reads.caller;
            outer.kwargs |= reads.kwargs;
            outer.varargs |= reads.varargs;
        }
        Ok((body?.0, reads))
    }

    fn statement(&mut self, word: &str) -> Result<StatementKind> {
        match word {
            "if" => self.if_statement(),
            "for" => self.for_statement(),
            "set" => self.set_statement(),
            "with" => self.with_statement(),
            "macro" => {
                let name = self.expect_name()?;
                self.assigned(&name)?;
                let parameters = self.signature()?;
                let (body, reads) = self.function(&["endmacro"])?;
                self.macro_of(Some(name), parameters, body, reads).map(StatementKind::Macro)
            }
            "call" => {
                let parameters = if self.is("(") { self.signature()? } else { Vec::new() };
                let call = self.expression(true)?;
                if !matches!(call.kind, ExprKind::Call(..)) {
                    return self.fail("expected a call");
                }
                let (body, reads) = self.function(&["endcall"])?;
                Ok(StatementKind::Call(call, self.macro_of(None, parameters, body, reads)?))
            }
            "filter" => {
                let filter = self.filter(None)?;
                let filter = self.filters(filter)?;
                Ok(StatementKind::Filter(filter, self.scoped(&["endfilter"])?.0))
            }
            "generation" => Ok(StatementKind::Generation(self.function(&["endgeneration"])?.0)),
            "print" => {
                let mut values = Vec::new();
                while *self.token() != Token::BlockEnd {
                    if !values.is_empty() {
                        self.expect(",")?;
                    }
                    values.push(self.expression(true)?);
                }
                Ok(StatementKind::Print(values))
            }
            "break" | "continue" if self.loops == 0 => self.fail(format!("{word} outside a loop")),
            "break" => Ok(StatementKind::Break),
            "continue" => Ok(StatementKind::Continue),
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                self.refuse(format!("unknown statement {word}: a chat template stands alone"))
            }
            _ => self.fail(format!("unknown statement {word}")),
        }
    }

    fn if_statement(&mut self) -> Result<StatementKind> {
        let soft = std::mem::replace(&mut self.soft, true);
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let test = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end.as_str() {
                "elif" => continue,
                "else" => otherwise = self.body(&["endif"])?.0,
                _ => {}
            }
            break;
        }
        self.soft = soft;
        Ok(StatementKind::If(branches, otherwise))
    }

    fn for_statement(&mut self) -> Result<StatementKind> {
        let target = self.target(false, &["in"])?;
        if !self.skip_name("in") {
            return self.fail(format!("expected \"in\", got {}", self.got()));
        }
        let iterable = self.tuple(false, &["recursive"])?;
        let soft = std::mem::replace(&mut self.soft, false);
        let test = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.skip_name("recursive");
        self.loops += 1;
        let (body, end) = self.body(&["endfor", "else"])?;
        self.loops -= 1;
        // The part after `else` is outside this loop. A recursive loop is a function of its own.
        let loops = self.loops;
        if recursive {
            self.loops = 0;
        }
        let otherwise = if end == "else" { self.body(&["endfor"])?.0 } else { Vec::new() };
        self.loops = loops;
        self.soft = soft;
        if stores_loop(&target) || body.iter().chain(&otherwise).any(statement_stores_loop) {
            return self.fail("the name loop cannot be set within a for loop");
        }
        Ok(StatementKind::For(Arc::new(For { target, iterable, test, recursive, body, otherwise })))
    }

    fn set_statement(&mut self) -> Result<StatementKind> {
        let target = self.target(true, &[])?;
        if self.skip("=") {
            return Ok(StatementKind::Set(target, self.tuple(true, &[])?));
        }
        let filter = if self.is("|") {
            self.at += 1;
            let filter = self.filter(None)?;
            Some(self.filters(filter)?)
        } else {
            None
        };
        Ok(StatementKind::SetBlock(target, filter, self.scoped(&["endset"])?.0))
    }

    fn with_statement(&mut self) -> Result<StatementKind> {
        let mut pairs = Vec::new();
        while !matches!(self.token(), Token::BlockEnd) {
            if !pairs.is_empty() {
                self.expect(",")?;
            }
            let target = self.target(false, &[])?;
            self.expect("=")?;
            pairs.push((target, self.expression(true)?));
        }
        Ok(StatementKind::With(pairs, self.scoped(&["endwith"])?.0))
    }

    fn signature(&mut self) -> Result<Vec<(String, Option<Expr>)>> {
        self.expect("(")?;
        let mut parameters: Vec<(String, Option<Expr>)> = Vec::new();
        while !self.is(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            let name = self.expect_name()?;
            let default = if self.skip("=") { Some(self.expression(true)?) } else { None };
            if default.is_none() && parameters.iter().any(|(_, default)| default.is_some()) {
                return self.fail("a parameter without a default follows one with a default");
            }
            if parameters.len() >= ARGUMENTS {
                return self.refuse(format!("more than {ARGUMENTS} parameters"));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return self.fail(format!("two parameters are called {name}"));
            }
            parameters.push((name, default));
        }
        self.expect(")")?;
        Ok(parameters)
    }

    fn macro_of(
        &self,
        name: Option<String>,
        parameters: Vec<(String, Option<Expr>)>,
        body: Vec<Statement>,
        mut reads: Specials,
    ) -> Result<Arc<Macro>> {
        let parameter = |word: &str| parameters.iter().find(|(name, _)| name == word);
        if reads.caller && parameter("caller").is_some_and(|(_, default)| default.is_none()) {
            return self.fail("the parameter caller needs a default");
        }
        reads.caller &= parameter("caller").is_none();
        reads.kwargs &= parameter("kwargs").is_none();
        reads.varargs &= parameter("varargs").is_none();
        Ok(Arc::new(Macro { name, parameters, body, reads }))
    }

    /// Parses the name of a variable that is assigned. Inside a macro, names with a special meaning in Jinja2 are
    /// refused.
    fn assigned(&self, name: &str) -> Result<()> {
        if !self.macros.is_empty() && ["caller", "kwargs", "varargs"].contains(&name) {
            return self.refuse(format!("setting {name} within a macro"));
        }
        Ok(())
    }

    /// Parses the target of an assignment, up to one of the names in `ends`.
    fn target(&mut self, namespaces: bool, ends: &[&str]) -> Result<Target> {
        let mut all = Vec::new();
        let mut tuple = false;
        loop {
            let ended = matches!(self.token(), Token::VariableEnd | Token::BlockEnd) || self.is(")");
            if ended || matches!(self.token(), Token::Name(name) if ends.contains(&name.as_str())) {
                break;
            }
            if self.skip("(") {
                all.push(self.deeper(|this| this.target(namespaces, &[]))?);
                self.expect(")")?;
            } else {
                let name = self.expect_name()?;
                if ["true", "false", "True", "False", "none", "None"].contains(&name.as_str()) {
                    return self.fail(format!("{name} cannot be set"));
                }
                self.assigned(&name)?;
                if namespaces && self.skip(".") {
                    all.push(Target::Attribute(name, self.expect_name()?));
                } else {
                    all.push(Target::Name(name));
                }
            }
            if !self.skip(",") {
                break;
            }
            tuple = true;
        }
        match all.pop() {
            Some(one) if !tuple => Ok(one),
            Some(last) => {
                all.push(last);
                Ok(Target::Tuple(all))
            }
            None => self.fail(format!("expected a name to set, got {}", self.got())),
        }
    }

    // Expressions, those that bind most loosely first.

    fn tuple(&mut self, conditions: bool, ends: &[&str]) -> Result<Expr> {
        match self.tuple_or_empty(conditions, ends)? {
            Some(value) => Ok(value),
            None => self.fail(format!("expected an expression, got {}", self.got())),
        }
    }

    fn tuple_or_empty(&mut self, conditions: bool, ends: &[&str]) -> Result<Option<Expr>> {
        let line = self.line();
        let mut all = Vec::new();
        let mut tuple = false;
        loop {
            let ended = matches!(self.token(), Token::VariableEnd | Token::BlockEnd) || self.is(")");
            if ended || matches!(self.token(), Token::Name(name) if ends.contains(&name.as_str())) {
                break;
            }
            all.push(self.expression(conditions)?);
            if !self.skip(",") {
                break;
            }
            tuple = true;
        }
        if tuple { self.expr(line, ExprKind::Tuple(all)).map(Some) } else { Ok(all.pop()) }
    }

    fn expression(&mut self, conditions: bool) -> Result<Expr> {
        self.deeper(|this| if conditions { this.condition() } else { this.or() })
    }

    fn condition(&mut self) -> Result<Expr> {
        let line = self.line();
        let start = self.at;
        let soft = self.soft;
        let mut value = self.or()?;
        if self.is_name("if") && !soft {
            // In a conditional expression, filter names are looked up only when they are reached, so it is parsed
            // again in that mode.
            self.at = start;
            self.soft = true;
            let value = self.condition();
            self.soft = soft;
            return value;
        }
        while self.skip_name("if") {
            let test = self.or()?;
            let no = if self.skip_name("else") { Some(Box::new(self.expression(true)?)) } else { None };
            value = self.expr(line, ExprKind::Condition { test: Box::new(test), yes: Box::new(value), no })?;
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.expr(line, ExprKind::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.expr(line, ExprKind::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.skip_name("not") {
            let inner = self.deeper(Self::not)?;
            return self.expr(line, ExprKind::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.token() {
                Token::Operator("==") => Comparison::Equal,
                Token::Operator("!=") => Comparison::Unequal,
                Token::Operator("<") => Comparison::Less,
                Token::Operator("<=") => Comparison::LessOrEqual,
                Token::Operator(">") => Comparison::Greater,
                Token::Operator(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name) if name == "not" && matches!(self.next_token(), Token::Name(n) if n == "in") => {
                    self.at += 1;
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((comparison, self.sum()?));
        }
        if rest.is_empty() { Ok(first) } else { self.expr(line, ExprKind::Compare(Box::new(first), rest)) }
    }

    fn binary(
        &mut self,
        operators: &[(&'static str, Binary)],
        operand: impl Fn(&mut Self) -> Result<Expr>,
    ) -> Result<Expr> {
        let line = self.line();
        let mut left = operand(self)?;
        while let Some((_, binary)) = operators.iter().find(|(operator, _)| self.is(operator)) {
            self.at += 1;
            let right = operand(self)?;
            left = self.expr(line, ExprKind::Binary(*binary, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.binary(&[("+", Binary::Add), ("-", Binary::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut all = vec![self.product()?];
        while self.skip("~") {
            all.push(self.product()?);
        }
        match all.pop() {
            Some(one) if all.is_empty() => Ok(one),
            last => {
                all.extend(last);
                self.expr(line, ExprKind::Concat(all))
            }
        }
    }

    fn product(&mut self) -> Result<Expr> {
        const OPERATORS: [(&str, Binary); 4] =
            [("*", Binary::Multiply), ("/", Binary::Divide), ("//", Binary::FloorDivide), ("%", Binary::Modulo)];
        self.binary(&OPERATORS, |this| this.binary(&[("**", Binary::Power)], |this| this.unary(true)))
    }

    fn unary(&mut self, with_filter: bool) -> Result<Expr> {
        let line = self.line();
        let mut value = if self.skip("-") {
            let inner = self.deeper(|this| this.unary(false))?;
            self.expr(line, ExprKind::Negative(Box::new(inner)))?
        } else if self.skip("+") {
            let inner = self.deeper(|this| this.unary(false))?;
            self.expr(line, ExprKind::Positive(Box::new(inner)))?
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if with_filter { self.filters_and_tests(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.token().clone() {
            Token::Name(name) => {
                self.at += 1;
                match name.as_str() {
                    "true" | "True" => ExprKind::Bool(true),
                    "false" | "False" => ExprKind::Bool(false),
                    "none" | "None" => ExprKind::None,
                    _ => {
                        if let Some(specials) = self.macros.last_mut() {
                            specials.caller |= name == "caller";
                            specials.kwargs |= name == "kwargs";
                            specials.varargs |= name == "varargs";
                        }
                        ExprKind::Name(name)
                    }
                }
            }
            Token::Text(mut text) => {
                self.at += 1;
                while let Token::Text(more) = self.token() {
                    text.push_str(more);
                    self.at += 1;
                }
                ExprKind::Text(text)
            }
            Token::Int(value) => {
                self.at += 1;
                ExprKind::Int(value)
            }
            Token::Float(value) => {
                self.at += 1;
                ExprKind::Float(value)
            }
            Token::Operator("(") => {
                self.at += 1;
                let value = self.tuple_or_empty(true, &[])?;
                self.expect(")")?;
                return match value {
                    Some(value) => Ok(value),
                    None => self.expr(line, ExprKind::Tuple(Vec::new())),
                };
            }
            Token::Operator("[") => {
                self.at += 1;
                ExprKind::List(self.items("]", |this| this.expression(true))?)
            }
            Token::Operator("{") => {
                self.at += 1;
                ExprKind::Dict(self.items("}", |this| {
                    let key = this.expression(true)?;
                    this.expect(":")?;
                    Ok((key, this.expression(true)?))
                })?)
            }
            _ => return self.fail(format!("unexpected {}", self.got())),
        };
        self.expr(line, kind)
    }

    /// Parses items separated by commas, up to and including `close`.
    fn items<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is(close) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            if self.is(close) {
                break;
            }
            items.push(item(self)?);
        }
        self.expect(close)?;
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            if self.skip(".") {
                value = match self.token().clone() {
                    Token::Name(name) => {
                        self.at += 1;
                        self.expr(line, ExprKind::Attribute(Box::new(value), name))?
                    }
                    Token::Int(index) => {
                        self.at += 1;
                        let index = self.expr(line, ExprKind::Int(index))?;
                        self.expr(line, ExprKind::Item(Box::new(value), Box::new(index)))?
                    }
                    _ => return self.fail(format!("expected a name or a number, got {}", self.got())),
                };
            } else if self.skip("[") {
                value = self.subscript(value, line)?;
            } else if self.is("(") {
                let arguments = self.arguments()?;
                value = self.expr(line, ExprKind::Call(Box::new(value), arguments))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, value: Expr, line: u32) -> Result<Expr> {
        let mut bounds: [Option<Box<Expr>>; 3] = [None, None, None];
        let mut colons = 0;
        let mut all = Vec::new();
        while !self.is("]") {
            if self.skip(":") {
                colons += 1;
                if colons > 2 || !all.is_empty() {
                    return self.fail("unexpected \":\"");
                }
            } else if self.is(",") && colons > 0 {
                return self.refuse("a slice among several subscripts");
            } else if colons > 0 || all.is_empty() {
                let bound = self.expression(true)?;
                if colons == 0 && !self.is(":") {
                    all.push(bound);
                } else if let Some(slot) = bounds.get_mut(colons).filter(|slot| slot.is_none()) {
                    *slot = Some(Box::new(bound));
                } else {
                    return self.fail(format!("unexpected {}", self.got()));
                }
            } else {
                self.expect(",")?;
                all.push(self.expression(true)?);
                if self.is(":") {
                    return self.refuse("a slice among several subscripts");
                }
            }
        }
        self.expect("]")?;
        if colons > 0 {
            return self.expr(line, ExprKind::Slice(Box::new(value), bounds));
        }
        let index = match all.pop() {
            Some(one) if all.is_empty() => one,
            last => {
                all.extend(last);
                self.expr(line, ExprKind::Tuple(all))?
            }
        };
        self.expr(line, ExprKind::Item(Box::new(value), Box::new(index)))
    }

    fn arguments(&mut self) -> Result<Arguments> {
        self.expect("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is(")") {
            if !std::mem::take(&mut first) {
                self.expect(",")?;
                if self.is(")") {
                    break;
                }
            }
            let unpacked = arguments.unpacked.is_some() || arguments.unpacked_named.is_some();
            if self.skip("*") {
                if unpacked {
                    return self.fail("invalid arguments of a call");
                }
                arguments.unpacked = Some(Box::new(self.expression(true)?));
            } else if self.skip("**") {
                if arguments.unpacked_named.is_some() {
                    return self.fail("invalid arguments of a call");
                }
                arguments.unpacked_named = Some(Box::new(self.expression(true)?));
            } else if matches!(self.token(), Token::Name(_)) && *self.next_token() == Token::Operator("=") {
                if arguments.unpacked_named.is_some() {
                    return self.fail("invalid arguments of a call");
                }
                let name = self.expect_name()?;
                self.expect("=")?;
                if arguments.named.len() >= ARGUMENTS {
                    return self.refuse(format!("more than {ARGUMENTS} named arguments"));
                }
                if arguments.named.iter().any(|(other, _)| *other == name) {
                    return self.fail(format!("the argument {name} is given twice"));
                }
                let value = self.expression(true)?;
                arguments.named.push((name, value));
            } else {
                if unpacked || !arguments.named.is_empty() {
                    return self.fail("invalid arguments of a call");
                }
                arguments.positional.push(self.expression(true)?);
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    fn filters_and_tests(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            if self.skip("|") {
                value = self.filter(Some(value))?;
            } else if self.skip_name("is") {
                value = self.test(value, line)?;
            } else if self.is("(") {
                let arguments = self.arguments()?;
                value = self.expr(line, ExprKind::Call(Box::new(value), arguments))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn filters(&mut self, mut value: Expr) -> Result<Expr> {
        while self.skip("|") {
            value = self.filter(Some(value))?;
        }
        Ok(value)
    }

    fn filter(&mut self, input: Option<Expr>) -> Result<Expr> {
        let line = self.line();
        let name = self.dotted()?;
        if !self.soft && !filters::exists(&name) {
            return self.fail(format!("no filter is called {name}"));
        }
        let arguments = if self.is("(") { self.arguments()? } else { Arguments::default() };
        self.expr(line, ExprKind::Filter { input: input.map(Box::new), name, arguments })
    }

    fn dotted(&mut self) -> Result<String> {
        let mut name = self.expect_name()?;
        while self.skip(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name)
    }

    fn test(&mut self, input: Expr, line: u32) -> Result<Expr> {
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        if !self.soft && !predicates::exists(&name) {
            return self.fail(format!("no test is called {name}"));
        }
        let operand = match self.token() {
            Token::Name(word) => !["else", "or", "and"].contains(&word.as_str()),
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        let mut arguments = Arguments::default();
        if self.is("(") {
            arguments = self.arguments()?;
        } else if operand {
            if self.is_name("is") {
                return self.fail("tests cannot be chained");
            }
            let argument = self.deeper(Self::primary)?;
            arguments.positional.push(self.postfix(argument)?);
        }
        let test = self.expr(line, ExprKind::Test { input: Box::new(input), name, arguments })?;
        if negated { self.expr(line, ExprKind::Not(Box::new(test))) } else { Ok(test) }
    }
}

fn stores_loop(target: &Target) -> bool {
    match target {
        Target::Name(name) => name == "loop",
        Target::Attribute(..) => false,
        Target::Tuple(all) => all.iter().any(stores_loop),
    }
}

fn statement_stores_loop(statement: &Statement) -> bool {
    let any = |body: &[Statement]| body.iter().any(statement_stores_loop);
    match &statement.kind {
        StatementKind::Data(_) | StatementKind::Print(_) | StatementKind::Break | StatementKind::Continue => false,
        StatementKind::If(branches, otherwise) => branches.iter().any(|(_, body)| any(body)) || any(otherwise),
        // This was checked when it was parsed.
        StatementKind::For(_) => false,
        StatementKind::Set(target, _) => stores_loop(target),
        StatementKind::SetBlock(target, _, body) => stores_loop(target) || any(body),
        StatementKind::With(_, body) | StatementKind::Filter(_, body) | StatementKind::Generation(body) => any(body),
        StatementKind::Macro(of) | StatementKind::Call(_, of) => any(&of.body),
    }
}
