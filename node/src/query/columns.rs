//! The order of columns of `SELECT *`: the parser sorts them by name, people expect them as written.

use oxrdf::Variable;
use spargebra::algebra::GraphPattern;
use spargebra::term::{NamedNodePattern, TermPattern};

/// Whether the query's own SELECT is a `SELECT *`.
pub fn selects_all(sparql: &str) -> bool {
    let mut words = words(sparql).skip_while(|w| !w.eq_ignore_ascii_case("select")).skip(1);
    words.find(|w| !w.eq_ignore_ascii_case("distinct") && !w.eq_ignore_ascii_case("reduced")) == Some("*")
}

/// Words and signs, without comments, IRIs and the names of prefixes: enough of a tokenizer for what
/// stands before the first brace.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let first = rest.chars().next()?;
            let end = match first {
                '#' => rest.find('\n').unwrap_or(rest.len()),
                '<' => rest.find('>').map_or(rest.len(), |i| i + 1),
                c if c.is_alphanumeric() => {
                    rest.find(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c))).unwrap_or(rest.len())
                }
                c => c.len_utf8(),
            };
            let (word, after) = rest.split_at(end);
            rest = after;
            if first != '#' && first != '<' && !word.contains(':') {
                return Some(word);
            }
        }
    })
}

/// Puts the columns of the outermost projection into the order in which the pattern names them.
pub fn order(pattern: &mut GraphPattern) {
    match pattern {
        GraphPattern::Project { inner, variables } => {
            let mut named = vec![];
            name(inner, &mut named);
            variables.sort_by_key(|v| named.iter().position(|n| n == v).unwrap_or(usize::MAX));
        }
        GraphPattern::Distinct { inner }
        | GraphPattern::Reduced { inner }
        | GraphPattern::Slice { inner, .. }
        | GraphPattern::OrderBy { inner, .. } => order(inner),
        _ => {}
    }
}

fn name(pattern: &GraphPattern, into: &mut Vec<Variable>) {
    let mut add = |v: &Variable| {
        if !into.contains(v) {
            into.push(v.clone());
        }
    };
    let term = |t: &TermPattern, add: &mut dyn FnMut(&Variable)| {
        if let TermPattern::Variable(v) = t {
            add(v);
        }
    };
    match pattern {
        GraphPattern::Bgp { patterns } => {
            for t in patterns {
                term(&t.subject, &mut add);
                if let NamedNodePattern::Variable(v) = &t.predicate {
                    add(v);
                }
                term(&t.object, &mut add);
            }
        }
        GraphPattern::Path { subject, object, .. } => {
            term(subject, &mut add);
            term(object, &mut add);
        }
        GraphPattern::Join { left, right }
        | GraphPattern::LeftJoin { left, right, .. }
        | GraphPattern::Union { left, right }
        | GraphPattern::Minus { left, right } => {
            name(left, into);
            name(right, into);
        }
        GraphPattern::Graph { name: graph, inner } => {
            if let NamedNodePattern::Variable(v) = graph {
                add(v);
            }
            name(inner, into);
        }
        GraphPattern::Extend { inner, variable, .. } => {
            name(inner, into);
            name_all(std::slice::from_ref(variable), into);
        }
        GraphPattern::Values { variables, .. } | GraphPattern::Project { variables, .. } => name_all(variables, into),
        GraphPattern::Group { variables, aggregates, .. } => {
            name_all(variables, into);
            aggregates.iter().for_each(|(v, _)| name_all(std::slice::from_ref(v), into));
        }
        GraphPattern::Filter { inner, .. }
        | GraphPattern::OrderBy { inner, .. }
        | GraphPattern::Distinct { inner }
        | GraphPattern::Reduced { inner }
        | GraphPattern::Slice { inner, .. }
        | GraphPattern::Service { inner, .. } => name(inner, into),
    }
}

fn name_all(variables: &[Variable], into: &mut Vec<Variable>) {
    for v in variables {
        if !into.contains(v) {
            into.push(v.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(sparql: &str) -> String {
        let query = crate::query::parse_query(sparql, None).unwrap();
        let spargebra::Query::Select { pattern, .. } = &query.0 else { panic!("{query:?}") };
        let mut at = pattern;
        loop {
            at = match at {
                GraphPattern::Project { variables, .. } => {
                    return variables.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(" ");
                }
                GraphPattern::Distinct { inner } | GraphPattern::Slice { inner, .. } => inner,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_star_shows_columns_as_written() {
        assert_eq!(columns("SELECT * { ?s ?p ?o }"), "s p o");
        assert_eq!(columns("PREFIX select: <x:select> # select ?\nselect distinct*{ ?z select:a ?b } LIMIT 1"), "z b");
        assert_eq!(columns("SELECT * { ?z <x:p> ?y OPTIONAL { ?y <x:q> ?a } BIND(1 AS ?b) }"), "z y a b");
        assert_eq!(columns("SELECT * { GRAPH ?g { ?z <x:p>/<x:q> ?a } }"), "g z a");
        // What is listed stays as listed.
        assert_eq!(columns("SELECT ?o ?p ?s { ?s ?p ?o }"), "o p s");
        assert_eq!(columns("SELECT (1 * 2 AS ?z) ?a { ?a ?b ?z0 { SELECT * { ?z0 ?p ?q } } }"), "z a");
    }
}
