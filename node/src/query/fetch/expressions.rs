//! What expressions tell the fetching: patterns of EXISTS, variables, and terms that a filter demands.

use spargebra::algebra::{AggregateExpression, Expression, GraphPattern, OrderExpression};
use std::collections::{BTreeMap, BTreeSet};

/// The expressions that an expression is made of; none for EXISTS.
pub fn children(expression: &Expression) -> Vec<&Expression> {
    match expression {
        Expression::NamedNode(_)
        | Expression::Literal(_)
        | Expression::Variable(_)
        | Expression::Bound(_)
        | Expression::Exists(_) => vec![],
        Expression::UnaryPlus(a) | Expression::UnaryMinus(a) | Expression::Not(a) => vec![a],
        Expression::Or(a, b)
        | Expression::And(a, b)
        | Expression::Equal(a, b)
        | Expression::SameTerm(a, b)
        | Expression::Greater(a, b)
        | Expression::GreaterOrEqual(a, b)
        | Expression::Less(a, b)
        | Expression::LessOrEqual(a, b)
        | Expression::Add(a, b)
        | Expression::Subtract(a, b)
        | Expression::Multiply(a, b)
        | Expression::Divide(a, b) => vec![a, b],
        Expression::If(a, b, c) => vec![a, b, c],
        Expression::In(a, list) => std::iter::once(&**a).chain(list).collect(),
        Expression::Coalesce(list) | Expression::FunctionCall(_, list) => list.iter().collect(),
    }
}

/// As [`children`], to change them.
pub fn children_mut(expression: &mut Expression) -> Vec<&mut Expression> {
    match expression {
        Expression::NamedNode(_)
        | Expression::Literal(_)
        | Expression::Variable(_)
        | Expression::Bound(_)
        | Expression::Exists(_) => vec![],
        Expression::UnaryPlus(a) | Expression::UnaryMinus(a) | Expression::Not(a) => vec![a],
        Expression::Or(a, b)
        | Expression::And(a, b)
        | Expression::Equal(a, b)
        | Expression::SameTerm(a, b)
        | Expression::Greater(a, b)
        | Expression::GreaterOrEqual(a, b)
        | Expression::Less(a, b)
        | Expression::LessOrEqual(a, b)
        | Expression::Add(a, b)
        | Expression::Subtract(a, b)
        | Expression::Multiply(a, b)
        | Expression::Divide(a, b) => vec![a, b],
        Expression::If(a, b, c) => vec![a, b, c],
        Expression::In(a, list) => std::iter::once(&mut **a).chain(list).collect(),
        Expression::Coalesce(list) | Expression::FunctionCall(_, list) => list.iter_mut().collect(),
    }
}

/// The patterns of every EXISTS in an expression, outermost ones only.
pub fn exists(expression: &Expression) -> Vec<&GraphPattern> {
    match expression {
        Expression::Exists(pattern) => vec![pattern],
        _ => children(expression).into_iter().flat_map(exists).collect(),
    }
}

/// The expression of an ordering.
pub fn of_order(order: &OrderExpression) -> &Expression {
    let (OrderExpression::Asc(e) | OrderExpression::Desc(e)) = order;
    e
}

/// The expression of an aggregate, if it has one.
pub fn of_aggregate(aggregate: &AggregateExpression) -> Option<&Expression> {
    match aggregate {
        AggregateExpression::CountSolutions { .. } => None,
        AggregateExpression::FunctionCall { expr, .. } => Some(expr),
    }
}

/// Variables, and IRIs of which each must be one in every row that the expression is true for. A row
/// in which such a variable is unbound is not one of those: comparing it is an error.
///
/// Literals demand nothing here: `=` compares values, and there are many ways to write one.
pub fn demands(expression: &Expression) -> BTreeMap<String, BTreeSet<String>> {
    match expression {
        Expression::And(a, b) => {
            let mut all = demands(a);
            for (variable, iris) in demands(b) {
                all.entry(variable).and_modify(|a| a.retain(|iri| iris.contains(iri))).or_insert(iris);
            }
            all
        }
        Expression::Or(a, b) => {
            let mut b = demands(b);
            let merge = |(variable, mut iris): (String, BTreeSet<String>)| {
                iris.extend(b.remove(&variable)?);
                Some((variable, iris))
            };
            demands(a).into_iter().filter_map(merge).collect()
        }
        Expression::Equal(a, b) | Expression::SameTerm(a, b) => match (&**a, &**b) {
            (Expression::Variable(v), Expression::NamedNode(n))
            | (Expression::NamedNode(n), Expression::Variable(v)) => {
                BTreeMap::from([(v.as_str().to_owned(), BTreeSet::from([n.as_str().to_owned()]))])
            }
            _ => BTreeMap::new(),
        },
        Expression::In(a, list) => {
            let iris = list.iter().map(|e| match e {
                Expression::NamedNode(n) => Some(n.as_str().to_owned()),
                _ => None,
            });
            match (&**a, iris.collect::<Option<BTreeSet<_>>>()) {
                (Expression::Variable(v), Some(iris)) => BTreeMap::from([(v.as_str().to_owned(), iris)]),
                _ => BTreeMap::new(),
            }
        }
        _ => BTreeMap::new(),
    }
}

/// The variables whose texts an evaluation may look at: those of expressions. What is projected at
/// the end, or put into a template, comes on top.
pub fn looked_at(pattern: &GraphPattern, into: &mut BTreeSet<String>) {
    match pattern {
        GraphPattern::Bgp { .. } | GraphPattern::Path { .. } | GraphPattern::Values { .. } => {}
        GraphPattern::Join { left, right }
        | GraphPattern::Union { left, right }
        | GraphPattern::Minus { left, right } => {
            looked_at(left, into);
            looked_at(right, into);
        }
        GraphPattern::LeftJoin { left, right, expression } => {
            looked_at(left, into);
            looked_at(right, into);
            expression.iter().for_each(|e| variables(e, into));
        }
        GraphPattern::Filter { expr: expression, inner } | GraphPattern::Extend { inner, expression, .. } => {
            looked_at(inner, into);
            variables(expression, into);
        }
        GraphPattern::OrderBy { inner, expression } => {
            looked_at(inner, into);
            expression.iter().for_each(|e| variables(of_order(e), into));
        }
        GraphPattern::Group { inner, aggregates, .. } => {
            looked_at(inner, into);
            aggregates.iter().filter_map(|(_, a)| of_aggregate(a)).for_each(|e| variables(e, into));
        }
        GraphPattern::Graph { inner, .. }
        | GraphPattern::Project { inner, .. }
        | GraphPattern::Distinct { inner }
        | GraphPattern::Reduced { inner }
        | GraphPattern::Slice { inner, .. }
        | GraphPattern::Service { inner, .. } => looked_at(inner, into),
    }
}

fn variables(expression: &Expression, into: &mut BTreeSet<String>) {
    match expression {
        Expression::Variable(v) => {
            into.insert(v.as_str().to_owned());
        }
        Expression::Exists(pattern) => looked_at(pattern, into),
        _ => children(expression).into_iter().for_each(|e| variables(e, into)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demanded(filter: &str) -> String {
        let query = spargebra::SparqlParser::new().parse_query(&format!("ASK {{ FILTER({filter}) }}")).unwrap();
        let spargebra::Query::Ask { pattern: GraphPattern::Project { inner, .. }, .. } = query else {
            panic!("{query}")
        };
        let GraphPattern::Filter { expr, .. } = *inner else { panic!("{inner}") };
        demands(&expr).iter().map(|(v, iris)| format!("{v}={iris:?} ")).collect()
    }

    #[test]
    fn only_what_is_sure_is_demanded() {
        assert_eq!(demanded("?x = <a:1>"), r#"x={"a:1"} "#);
        assert_eq!(demanded("sameTerm(<a:1>, ?x) && ?y > 3"), r#"x={"a:1"} "#);
        assert_eq!(demanded("?x IN (<a:1>, <a:2>)"), r#"x={"a:1", "a:2"} "#);
        assert_eq!(demanded("?x = <a:1> || ?x = <a:2>"), r#"x={"a:1", "a:2"} "#);
        assert_eq!(demanded("?x IN (<a:1>, <a:2>) && ?x = <a:2>"), r#"x={"a:2"} "#);
        for nothing in
            ["?x = <a:1> || ?y = <a:1>", "!(?x = <a:1>)", "?x = 1", "?x IN (<a:1>, 2)", "?x = ?y", "?x != <a:1>"]
        {
            assert_eq!(demanded(nothing), "", "{nothing}");
        }
    }
}
