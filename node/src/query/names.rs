//! What the blank nodes are called that a query makes: the same whenever it is asked of the same version.
//!
//! BNODE() and the templates of CONSTRUCT make nodes that the data does not have. The evaluator draws their
//! labels at random; here they are numbered, in the order in which the answer shows them, behind a hash of the
//! query and the version. Nodes of the data keep their labels. An update's nodes are not named here: each
//! time that it is made it makes others.

use super::facts::Terms;
use beam_wire::{Term, TermId, Version};
use std::collections::HashMap;

/// Labels for new blank nodes.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    /// By the label that was drawn.
    made: HashMap<String, String>,
}

impl Names {
    /// For one query of one version.
    pub fn of(query: &blake3::Hash, version: Version) -> Names {
        let hash = blake3::hash(format!("{version} {query}").as_bytes());
        Names { prefix: format!("b{}", &hash.to_hex()[..24]), made: HashMap::new() }
    }

    /// The term as the answer shall show it.
    pub fn rename(&mut self, term: Term, data: &Terms) -> Term {
        match term {
            Term::Blank(label) => Term::Blank(self.label(label, data)),
            Term::Triple(parts) => Term::Triple(Box::new(parts.map(|part| self.rename(part, data)))),
            other => other,
        }
    }

    fn label(&mut self, drawn: String, data: &Terms) -> String {
        if let Some(name) = self.made.get(&drawn) {
            return name.clone();
        }
        if data.find(TermId::of(&Term::Blank(drawn.clone()))).is_some() {
            return drawn;
        }
        let name = format!("{}x{:x}", self.prefix, self.made.len());
        self.made.insert(drawn, name.clone());
        name
    }
}
