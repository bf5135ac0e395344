//! From text to algebra, checked for what Beam can do.
//!
//! Some rewrites make the rest simpler, and the evaluator agree with the standard:
//!
//! - Blank nodes in patterns become variables that no query can name, numbered in the order in which
//!   they appear.
//! - A path that may have length zero, from or to a constant, matches that constant even where the
//!   data does not know it (SPARQL 1.1, 18.4, `ZeroLengthPath`). The evaluator wants it to be a node
//!   of the graph, so outside of GRAPH such a path becomes a union with the constant itself.
//! - VALUES inside of GRAPH has its rows in every graph: it is joined with the graphs themselves where
//!   nothing else beside it names them.
//! - BNODE with an argument makes a new node in every solution, the same for the same argument: it gets
//!   a number of the solution to make it from ([`NEW_BLANK`]).
//! - `SELECT *` shows variables in the order in which the query names them.

use super::error::QueryError;
use super::fetch::expressions::children_mut;
use super::{columns, guard};
use oxrdf::{BlankNode, NamedNode, Variable};
use spargebra::SparqlParser;
use spargebra::algebra::{
    AggregateExpression, Expression, Function, GraphPattern, OrderExpression, PropertyPathExpression as Path,
};
use spargebra::term::{GroundTerm, Term, TermPattern, TriplePattern};
use std::collections::HashMap;

/// A query that can be evaluated, and a hash of it as it was asked: the parser draws labels for blank nodes
/// that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query(pub(super) spargebra::Query, pub(super) blake3::Hash);

/// An update that can be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update(pub(super) spargebra::Update);

/// Reads a query. `base` is for relative IRIs.
pub fn parse_query(sparql: &str, base: Option<&str>) -> Result<Query, QueryError> {
    guard::check(sparql)?;
    let mut query = parser(base)?.parse_query(sparql).map_err(|e| syntax(&e))?;
    if let spargebra::Query::Select { pattern, .. } = &mut query
        && columns::selects_all(sparql)
    {
        columns::order(pattern);
    }
    match &mut query {
        spargebra::Query::Select { pattern, .. }
        | spargebra::Query::Construct { pattern, .. }
        | spargebra::Query::Describe { pattern, .. }
        | spargebra::Query::Ask { pattern, .. } => Rewrite::default().pattern(pattern, false)?,
    }
    let asked = blake3::hash(format!("{}\n{sparql}", base.unwrap_or_default()).as_bytes());
    Ok(Query(query, asked))
}

/// Reads an update. `base` is for relative IRIs.
pub fn parse_update(sparql: &str, base: Option<&str>) -> Result<Update, QueryError> {
    use spargebra::GraphUpdateOperation as Operation;
    guard::check(sparql)?;
    let mut update = parser(base)?.parse_update(sparql).map_err(|e| syntax(&e))?;
    let mut rewrite = Rewrite::default();
    for operation in &mut update.operations {
        match operation {
            Operation::DeleteInsert { pattern, .. } => rewrite.pattern(pattern, false)?,
            // A failing LOAD SILENT is a LOAD SILENT that does nothing.
            Operation::Load { source, silent: false, .. } => {
                return Err(QueryError::Unsupported(format!(
                    "LOAD {source} is not supported: Beam opens no connections on behalf of an update; use `beam load` with a file"
                )));
            }
            _ => {}
        }
    }
    Ok(Update(update))
}

fn parser(base: Option<&str>) -> Result<SparqlParser, QueryError> {
    match base {
        None => Ok(SparqlParser::new()),
        Some(base) => SparqlParser::new()
            .with_base_iri(base)
            .map_err(|e| QueryError::Syntax { message: format!("{base:?} is not a base IRI: {e}"), at: None }),
    }
}

/// The parser says "error at 3:14: expected …" and keeps the numbers to itself.
fn syntax(error: &spargebra::SparqlSyntaxError) -> QueryError {
    let text = error.to_string();
    let parsed = text.strip_prefix("error at ").and_then(|rest| {
        let (line, rest) = rest.split_once(':')?;
        let (column, message) = rest.split_once(": ")?;
        Some((line.parse().ok()?, column.parse().ok()?, message))
    });
    match parsed {
        Some((line, column, message)) => QueryError::Syntax { message: message.to_owned(), at: Some((line, column)) },
        None => QueryError::Syntax { message: text, at: None },
    }
}

#[derive(Default)]
struct Rewrite {
    blanks: HashMap<BlankNode, Variable>,
    solutions: usize,
}

/// The function that stands for BNODE with an argument. Its second argument is the solution's number.
pub(super) const NEW_BLANK: &str = "urn:beam:function:new-blank";

impl Rewrite {
    /// `named`: whether the pattern stands inside of GRAPH.
    fn pattern(&mut self, pattern: &mut GraphPattern, named: bool) -> Result<(), QueryError> {
        match pattern {
            GraphPattern::Bgp { patterns } => {
                for TriplePattern { subject, object, .. } in patterns {
                    self.term(subject)?;
                    self.term(object)?;
                }
                Ok(())
            }
            GraphPattern::Path { subject, path, object } => {
                self.term(subject)?;
                self.term(object)?;
                if may_be_empty(path) && !named {
                    let (subject, object) = (subject.clone(), object.clone());
                    zero_length(pattern, subject, object);
                }
                Ok(())
            }
            GraphPattern::Join { left, right }
            | GraphPattern::Union { left, right }
            | GraphPattern::Minus { left, right } => {
                self.pattern(left, named)?;
                self.pattern(right, named)
            }
            GraphPattern::LeftJoin { left, right, expression } => {
                self.pattern(left, named)?;
                self.pattern(right, named)?;
                expression.iter_mut().try_for_each(|e| self.expression(e, named))
            }
            GraphPattern::Filter { expr, inner } => {
                self.pattern(inner, named)?;
                self.expression(expr, named)
            }
            GraphPattern::Extend { .. } => self.extends(pattern, named),
            GraphPattern::Graph { inner, .. } => {
                with_graph(inner);
                self.pattern(inner, true)
            }
            GraphPattern::OrderBy { inner, expression } => {
                self.pattern(inner, named)?;
                expression.iter_mut().try_for_each(|e| match e {
                    OrderExpression::Asc(e) | OrderExpression::Desc(e) => self.expression(e, named),
                })
            }
            GraphPattern::Project { inner, .. }
            | GraphPattern::Distinct { inner }
            | GraphPattern::Reduced { inner }
            | GraphPattern::Slice { inner, .. } => self.pattern(inner, named),
            GraphPattern::Group { inner, aggregates, .. } => {
                self.pattern(inner, named)?;
                aggregates.iter_mut().try_for_each(|(_, a)| match a {
                    AggregateExpression::CountSolutions { .. } => Ok(()),
                    AggregateExpression::FunctionCall { expr, .. } => self.expression(expr, named),
                })
            }
            GraphPattern::Values { .. } => Ok(()),
            GraphPattern::Service { name, .. } => Err(QueryError::Unsupported(format!(
                "SERVICE {name} is not supported: Beam opens no connections on behalf of a query"
            ))),
        }
    }

    /// A chain of BIND and the expressions of SELECT: one solution.
    fn extends(&mut self, pattern: &mut GraphPattern, named: bool) -> Result<(), QueryError> {
        let solution = Variable::new_unchecked(format!("_:solution{}", self.solutions));
        let (mut at, mut numbered) = (pattern, false);
        while let GraphPattern::Extend { inner, expression, .. } = at {
            self.expression(expression, named)?;
            numbered |= number_blanks(expression, &solution);
            at = inner;
        }
        self.pattern(at, named)?;
        if numbered {
            self.solutions += 1;
            let inner = Box::new(std::mem::take(at));
            let expression = Expression::FunctionCall(Function::BNode, vec![]);
            *at = GraphPattern::Extend { inner, variable: solution, expression };
        }
        Ok(())
    }

    fn expression(&mut self, expression: &mut Expression, named: bool) -> Result<(), QueryError> {
        match expression {
            Expression::Exists(pattern) => self.pattern(pattern, named),
            _ => children_mut(expression).into_iter().try_for_each(|e| self.expression(e, named)),
        }
    }

    fn term(&mut self, term: &mut TermPattern) -> Result<(), QueryError> {
        match term {
            TermPattern::BlankNode(node) => {
                let next = self.blanks.len() + 1;
                let name = || Variable::new_unchecked(format!("_:{next}"));
                *term = self.blanks.entry(node.clone()).or_insert_with(name).clone().into();
                Ok(())
            }
            TermPattern::Triple(_) if ground(term).is_none() => Err(QueryError::Unsupported(format!(
                "the triple term {term} holds a variable: patterns may hold whole triple terms only"
            ))),
            _ => Ok(()),
        }
    }
}

/// The term, if it holds no variable and no blank node.
pub(super) fn ground(term: &TermPattern) -> Option<GroundTerm> {
    Term::try_from(term.clone()).ok()?.try_into().ok()
}

/// Turns each BNODE with an argument into one that also takes the number of the solution.
fn number_blanks(expression: &mut Expression, solution: &Variable) -> bool {
    let mut numbered = false;
    for child in children_mut(expression) {
        numbered |= number_blanks(child, solution);
    }
    match expression {
        Expression::FunctionCall(function @ Function::BNode, arguments) if arguments.len() == 1 => {
            *function = Function::Custom(NamedNode::new_unchecked(NEW_BLANK));
            arguments.push(solution.clone().into());
            true
        }
        _ => numbered,
    }
}

/// Joins a pattern inside of GRAPH with the graphs themselves, where it would not name them.
fn with_graph(pattern: &mut GraphPattern) {
    match pattern {
        GraphPattern::Union { left, right } => {
            with_graph(left);
            with_graph(right);
        }
        GraphPattern::LeftJoin { left: inner, .. }
        | GraphPattern::Minus { left: inner, .. }
        | GraphPattern::Filter { inner, .. }
        | GraphPattern::Extend { inner, .. } => with_graph(inner),
        _ if names_graph(pattern) => {}
        _ => {
            let right = Box::new(std::mem::take(pattern));
            *pattern = GraphPattern::Join { left: Box::default(), right };
        }
    }
}

/// Whether every row of a pattern inside of GRAPH tells the graph. Of what this does not look into,
/// sub-selects above all, the evaluator knows best.
fn names_graph(pattern: &GraphPattern) -> bool {
    match pattern {
        GraphPattern::Values { .. } => false,
        GraphPattern::Join { left, right } => names_graph(left) || names_graph(right),
        GraphPattern::Union { left, right } => names_graph(left) && names_graph(right),
        GraphPattern::LeftJoin { left: inner, .. }
        | GraphPattern::Minus { left: inner, .. }
        | GraphPattern::Filter { inner, .. }
        | GraphPattern::Extend { inner, .. } => names_graph(inner),
        _ => true,
    }
}

/// Whether a path matches from a node to itself without a fact.
pub(super) fn may_be_empty(path: &Path) -> bool {
    match path {
        Path::NamedNode(_) | Path::NegatedPropertySet(_) => false,
        Path::ZeroOrMore(_) | Path::ZeroOrOne(_) => true,
        Path::Reverse(p) | Path::OneOrMore(p) => may_be_empty(p),
        Path::Sequence(a, b) => may_be_empty(a) && may_be_empty(b),
        Path::Alternative(a, b) => may_be_empty(a) || may_be_empty(b),
    }
}

fn zero_length(pattern: &mut GraphPattern, subject: TermPattern, object: TermPattern) {
    let (variable, constant) = match (subject, object) {
        (TermPattern::Variable(_), TermPattern::Variable(_)) => return,
        (TermPattern::Variable(v), constant) | (constant, TermPattern::Variable(v)) => (v, constant),
        (a, b) => {
            if a == b {
                *pattern = GraphPattern::default();
            }
            return;
        }
    };
    let Some(constant) = ground(&constant) else { return };
    let path = std::mem::take(pattern);
    let itself = GraphPattern::Values { variables: vec![variable.clone()], bindings: vec![vec![Some(constant)]] };
    let union = GraphPattern::Union { left: Box::new(path), right: Box::new(itself) };
    let project = GraphPattern::Project { inner: Box::new(union), variables: vec![variable] };
    *pattern = GraphPattern::Distinct { inner: Box::new(project) };
}
