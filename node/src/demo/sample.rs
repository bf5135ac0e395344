//! The built-in sample: facts about the world, and questions to ask of them.

use crate::rdf::read::{Format, Quads, ReadError, read};

/// Some thousand facts; see its own first lines.
const FACTS: &str = include_str!("sample.ttl");

/// Each begins with a comment, which is the question. `queries/answers.md` says what they answer.
const QUERIES: [&str; 6] = [
    include_str!("queries/1_neighbours.rq"),
    include_str!("queries/2_most_neighbours.rq"),
    include_str!("queries/3_danube.rq"),
    include_str!("queries/4_elements.rq"),
    include_str!("queries/5_overland.rq"),
    include_str!("queries/6_discoverers.rq"),
];

/// The facts. They have no blank nodes, so `load` does not show in them.
pub fn open(load: u64) -> Result<Quads, ReadError> {
    read(FACTS.as_bytes(), "the built-in sample", Format::Turtle, load)
}

/// Questions in words, without a question mark, and in SPARQL.
pub fn queries() -> Vec<(String, String)> {
    QUERIES
        .iter()
        .map(|query| {
            let (question, _) = query.split_once('\n').unwrap_or((query, ""));
            (question.trim_start_matches(['#', ' ']).to_owned(), (*query).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdf::convert::to_quad;
    use crate::rdf::read::Quad;
    use beam_wire::Term;
    use oxrdf::Dataset;
    use spareval::{QueryEvaluator, QueryResults};
    use spargebra::SparqlParser;
    use std::collections::BTreeSet;

    fn facts() -> Vec<Quad> {
        open(1).unwrap().map(|quad| quad.unwrap()).collect()
    }

    fn local(term: &Term) -> &str {
        let Term::Iri(iri) = term else { panic!("{term:?}") };
        iri.rsplit(['/', '#']).next().unwrap()
    }

    #[test]
    fn there_are_facts_enough_and_no_blank_nodes() {
        let facts = facts();
        let distinct: BTreeSet<_> = facts.iter().collect();
        assert_eq!(distinct.len(), facts.len(), "a fact is written twice");
        assert!(facts.len() >= 1000, "{}", facts.len());
        for quad in &facts {
            assert!(quad.fact.iter().all(|term| term.check().is_ok() && !matches!(term, Term::Blank(_))), "{quad:?}");
            assert_eq!(quad.graph, None);
        }
    }

    /// A misspelt name would make a query miss a fact without a word.
    #[test]
    fn every_thing_that_a_fact_points_to_is_described() {
        let facts = facts();
        let described: BTreeSet<_> = facts.iter().map(|quad| &quad.fact[0]).collect();
        for quad in facts.iter().filter(|quad| local(&quad.fact[1]) != "type") {
            let object = &quad.fact[2];
            assert!(!matches!(object, Term::Iri(_)) || described.contains(object), "{quad:?}");
        }
    }

    #[test]
    fn borders_have_two_sides() {
        let facts = facts();
        let borders = facts.iter().filter(|quad| local(&quad.fact[1]) == "borders");
        let pairs: BTreeSet<_> = borders.map(|quad| (&quad.fact[0], &quad.fact[2])).collect();
        assert!(pairs.iter().all(|(a, b)| a != b && pairs.contains(&(*b, *a))));
        assert_eq!(pairs.len() % 2, 0);
    }

    #[test]
    fn queries_answer_what_their_table_says() {
        let dataset: Dataset = facts().iter().map(|quad| to_quad(quad).unwrap()).collect();
        let table = include_str!("queries/answers.md");
        let names = ["1_neighbours", "2_most_neighbours", "3_danube", "4_elements", "5_overland", "6_discoverers"];
        assert_eq!(table.lines().filter(|line| line.starts_with("| ")).count(), names.len() + 2);
        for (name, (question, sparql)) in names.into_iter().zip(queries()) {
            assert!(!question.is_empty() && !question.ends_with('?'), "{question}");
            let line = table.lines().find(|line| line.starts_with(&format!("| {name} |"))).expect(name);
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let query = SparqlParser::new().parse_query(&sparql).unwrap();
            let evaluator = QueryEvaluator::new();
            let results = evaluator.prepare(&query).execute(&dataset).unwrap();
            let QueryResults::Solutions(rows) = results else { panic!("{name} is no SELECT") };
            let text = |term: &oxrdf::Term| match term {
                oxrdf::Term::Literal(literal) => literal.value().to_owned(),
                other => other.to_string(),
            };
            let rows: Vec<Vec<String>> =
                rows.map(|row| row.unwrap().values().iter().flatten().map(text).collect()).collect();
            assert_eq!(rows.len().to_string(), cells[2], "{name}: {rows:?}");
            if !cells[3].is_empty() {
                assert_eq!(rows[0].join(", "), cells[3], "{name}");
            }
        }
    }
}
