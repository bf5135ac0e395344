//! What a benchmark prints.

use serde::Serialize;
use std::fmt::Write;

/// All figures of one benchmark.
#[derive(Serialize)]
pub struct Figures {
    /// The version of this document.
    pub version: u32,
    /// The benchmark's name.
    pub bench: &'static str,
    /// What was measured, and what it is compared with.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What could not be beaten, measured in the same run.
    pub floor: Option<Other>,
    /// What another system did, in the same run.
    pub peer: Option<Other>,
}

/// A floor or a peer.
#[derive(Serialize)]
pub struct Other {
    /// What it is.
    pub name: &'static str,
    /// How much, in the unit of the figure.
    pub value: f64,
    /// The figure divided by this.
    pub ratio: f64,
}

impl Figures {
    /// None yet.
    pub fn new(bench: &'static str) -> Figures {
        Figures { version: 1, bench, figures: vec![] }
    }

    /// Adds a figure that stands alone.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add_compared(name, value, unit, None, None);
    }

    /// Adds a figure beside its floor.
    pub fn add_beside(&mut self, name: impl Into<String>, value: f64, unit: &'static str, floor: (&'static str, f64)) {
        self.add_compared(name, value, unit, Some(floor), None);
    }

    /// Adds a figure beside what is known to compare it with.
    pub fn add_compared(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        floor: Option<(&'static str, f64)>,
        peer: Option<(&'static str, f64)>,
    ) {
        let beside = |(name, other)| Other { name, value: other, ratio: value / other };
        self.figures.push(Figure { name: name.into(), value, unit, floor: floor.map(beside), peer: peer.map(beside) });
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            write!(text, "{:44} {:>14.1} {:10}", figure.name, figure.value, figure.unit).expect("text grows");
            for other in figure.floor.iter().chain(&figure.peer) {
                write!(text, " {:.3} of {} ({:.1})", other.ratio, other.name, other.value).expect("text grows");
            }
            text.push('\n');
        }
        text
    }
}
