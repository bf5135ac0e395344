//! The pattern that is evaluated: joins in the order in which their facts were fetched, and a count of
//! the rows that they make.
//!
//! The evaluator's own order is guessed without looking at the data; the order of fetching was decided
//! by what had come back. And the evaluator holds the rows of one half of each join in memory, which
//! nobody counts: a product of three times a thousand rows would take the node's memory, and could not
//! be stopped, since no fact is read on the way. So on top of each join whose rows can outnumber those
//! of its halves stands a filter that is always true, and counts: see [`ROW`].

use super::fetch::{Part, expressions, flatten};
use oxrdf::{Literal, NamedNode, Variable};
use spargebra::algebra::{AggregateExpression, Expression, Function, GraphPattern, OrderExpression};
use std::collections::{BTreeSet, HashMap};

/// The function that is called for each row of a join. It has an argument only so that the optimiser
/// leaves it where it stands: one with a variable of each half.
pub const ROW: &str = "urn:beam:function:row";

/// In which order the parts of each join were fetched, by the address of its pattern.
pub type Orders = HashMap<usize, Vec<usize>>;

/// The address of a pattern, which names it while it is not moved.
pub fn address(pattern: &GraphPattern) -> usize {
    std::ptr::from_ref(pattern).addr()
}

/// The pattern to evaluate. `named`: whether it stands inside of GRAPH.
pub fn plan(pattern: &GraphPattern, orders: &Orders, named: bool) -> GraphPattern {
    let same = |p: &GraphPattern| Box::new(plan(p, orders, named));
    let expr = |e: &Expression| expression(e, orders, named);
    match pattern {
        GraphPattern::Bgp { .. } | GraphPattern::Path { .. } | GraphPattern::Join { .. } => {
            let mut parts = vec![];
            flatten(pattern, named, &mut parts);
            let order = orders.get(&address(pattern)).cloned().unwrap_or_default();
            let rest = (0..parts.len()).filter(|i| !order.contains(i));
            let in_order = order.iter().copied().chain(rest).map(|i| part(&parts[i], orders, named));
            let join = |left: GraphPattern, right: GraphPattern| {
                let halves = [variables(&left), variables(&right)];
                counted(GraphPattern::Join { left: Box::new(left), right: Box::new(right) }, halves)
            };
            in_order.reduce(join).unwrap_or_default()
        }
        GraphPattern::LeftJoin { left, right, expression } => {
            let halves = [variables(left), variables(right)];
            let expression = expression.as_ref().map(expr);
            counted(GraphPattern::LeftJoin { left: same(left), right: same(right), expression }, halves)
        }
        GraphPattern::Filter { expr: e, inner } => GraphPattern::Filter { expr: expr(e), inner: same(inner) },
        GraphPattern::Union { left, right } => GraphPattern::Union { left: same(left), right: same(right) },
        GraphPattern::Graph { name, inner } => {
            GraphPattern::Graph { name: name.clone(), inner: Box::new(plan(inner, orders, true)) }
        }
        GraphPattern::Extend { inner, variable, expression } => {
            GraphPattern::Extend { inner: same(inner), variable: variable.clone(), expression: expr(expression) }
        }
        GraphPattern::Minus { left, right } => GraphPattern::Minus { left: same(left), right: same(right) },
        GraphPattern::Values { .. } => pattern.clone(),
        GraphPattern::OrderBy { inner, expression } => {
            let order = |o: &OrderExpression| match o {
                OrderExpression::Asc(e) => OrderExpression::Asc(expr(e)),
                OrderExpression::Desc(e) => OrderExpression::Desc(expr(e)),
            };
            GraphPattern::OrderBy { inner: same(inner), expression: expression.iter().map(order).collect() }
        }
        GraphPattern::Project { inner, variables } => {
            GraphPattern::Project { inner: same(inner), variables: variables.clone() }
        }
        GraphPattern::Distinct { inner } => GraphPattern::Distinct { inner: same(inner) },
        GraphPattern::Reduced { inner } => GraphPattern::Reduced { inner: same(inner) },
        GraphPattern::Slice { inner, start, length } => {
            GraphPattern::Slice { inner: same(inner), start: *start, length: *length }
        }
        GraphPattern::Group { inner, variables, aggregates } => {
            let aggregate = |(v, a): &(Variable, AggregateExpression)| {
                let mut a = a.clone();
                if let AggregateExpression::FunctionCall { expr: e, .. } = &mut a {
                    *e = expr(e);
                }
                (v.clone(), a)
            };
            let aggregates = aggregates.iter().map(aggregate).collect();
            GraphPattern::Group { inner: same(inner), variables: variables.clone(), aggregates }
        }
        GraphPattern::Service { .. } => pattern.clone(),
    }
}

fn part(part: &Part<'_>, orders: &Orders, named: bool) -> GraphPattern {
    match part {
        Part::Triple(t) => GraphPattern::Bgp { patterns: vec![(*t).clone()] },
        Part::Path(subject, path, object) => {
            GraphPattern::Path { subject: (*subject).clone(), path: (*path).clone(), object: (*object).clone() }
        }
        Part::Graph => GraphPattern::default(),
        Part::Other(pattern) => plan(pattern, orders, named),
    }
}

fn expression(original: &Expression, orders: &Orders, named: bool) -> Expression {
    let mut copy = original.clone();
    replace_exists(original, &mut copy, orders, named);
    copy
}

/// The original's addresses name the orders of the patterns within.
fn replace_exists(original: &Expression, copy: &mut Expression, orders: &Orders, named: bool) {
    if let (Expression::Exists(pattern), Expression::Exists(copy)) = (original, &mut *copy) {
        **copy = plan(pattern, orders, named);
        return;
    }
    for (original, copy) in expressions::children(original).into_iter().zip(expressions::children_mut(copy)) {
        replace_exists(original, copy, orders, named);
    }
}

fn variables(pattern: &GraphPattern) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    pattern.on_in_scope_variable(|v| {
        found.insert(v.as_str().to_owned());
    });
    found
}

/// Counts the rows of a join, if both halves have variables of their own: else there are at most as
/// many as in one half, give or take doubles.
fn counted(join: GraphPattern, [left, right]: [BTreeSet<String>; 2]) -> GraphPattern {
    let (Some(a), Some(b)) = (left.difference(&right).next(), right.difference(&left).next()) else {
        return join;
    };
    let variable = |name: &String| Box::new(Expression::Variable(Variable::new_unchecked(name)));
    let both = Expression::SameTerm(variable(a), variable(b));
    let row = Expression::FunctionCall(Function::Custom(NamedNode::new_unchecked(ROW)), vec![both]);
    // Where one of them is unbound, the row is not counted, and kept all the same.
    let expr = Expression::Coalesce(vec![row, Literal::from(true).into()]);
    GraphPattern::Filter { expr, inner: Box::new(join) }
}
