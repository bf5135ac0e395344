//! Reads TOML tables key by key, and remembers every fault with its place.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a topology was refused.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not a topology.
    #[error("{}", lines(.file, .faults))]
    Faulty {
        /// The file.
        file: String,
        /// All that is wrong, in the order of the file; not empty.
        faults: Vec<Fault>,
    },
}

fn lines(file: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{file}:{fault}")).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Collects the faults of one text.
pub(super) struct Faults<'a> {
    text: &'a str,
    found: RefCell<Vec<Fault>>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::new(Vec::new()) }
    }

    pub(super) fn add(&self, span: &Range<usize>, message: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before[line_start..].chars().count();
        self.found.borrow_mut().push(Fault { line, column, message: message.into() });
    }

    pub(super) fn into_sorted(self) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort();
        found
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table of which keys are taken one by one; [`Section::end`] complains of those that nobody took.
pub(super) struct Section<'a> {
    faults: &'a Faults<'a>,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(faults: &'a Faults<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { faults, span: table.span(), table: table.get_ref(), known: Vec::new() }
    }

    /// A missing key is a fault.
    pub(super) fn need(&self, key: &'static str) {
        if !self.table.contains_key(key) {
            self.faults.add(&self.span, format!("`{key}` is missing"));
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// A text that `T` can be made of. A missing key is no fault, anything else is.
    pub(super) fn optional<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<Located<T>> {
        let value = self.take(key)?;
        self.read_text(key, value)
    }

    /// A text that `T` can be made of. A missing key is a fault.
    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<Located<T>> {
        self.need(key);
        self.optional(key)
    }

    /// An array of texts; `None` where the key is missing or an item is faulty.
    pub(super) fn list<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Option<Located<Vec<Located<T>>>> {
        let value = self.take(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "an array of strings");
            return None;
        };
        // Every item is read, so that every fault is told.
        let items: Vec<_> = array.iter().map(|item| self.read_text(key, item)).collect();
        let items = items.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Located { value: items, span: value.span() })
    }

    /// A text, or an array of them; `None` where the key is missing or an item is faulty.
    pub(super) fn one_or_more<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &'static str,
    ) -> Option<Located<Vec<Located<T>>>> {
        if self.table.get(key).is_some_and(|value| value.get_ref().as_array().is_some()) {
            return self.list(key);
        }
        let one = self.optional(key)?;
        Some(Located { span: one.span.clone(), value: vec![one] })
    }

    fn read_text<T: FromStr<Err: fmt::Display>>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Located<T>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a string");
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(Located { value: parsed, span: value.span() }),
            Err(e) => {
                self.faults.add(&value.span(), format!("`{key}`: {e}"));
                None
            }
        }
    }

    /// A whole number within bounds; `None` where the key is missing.
    pub(super) fn integer(&mut self, key: &'static str, bounds: RangeInclusive<u64>) -> Option<Located<u64>> {
        let value = self.take(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number");
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if bounds.contains(&number) => Some(Located { value: number, span: value.span() }),
            _ => {
                let (from, to) = (bounds.start(), bounds.end());
                self.faults.add(&value.span(), format!("`{key}` is {integer}; it may be from {from} to {to}"));
                None
            }
        }
    }

    /// Yes or no; `None` where the key is missing.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<Located<bool>> {
        let value = self.take(key)?;
        match value.get_ref().as_bool() {
            Some(yes) => Some(Located { value: yes, span: value.span() }),
            None => {
                self.wrong_type(key, value, "true or false");
                None
            }
        }
    }

    /// A table within this one: `[key]`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, &format!("a table: [{key}]"));
            return None;
        };
        Some(Section { faults: self.faults, span: value.span(), table, known: Vec::new() })
    }

    /// An array of tables: `[[key]]`, any number of times.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let expected = format!("an array of tables: [[{key}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section { faults: self.faults, span: item.span(), table, known: Vec::new() });
                }
                None => self.wrong_type(key, item, &expected),
            }
        }
        sections
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        self.faults.add(&value.span(), format!("`{key}` is of type {found}; it should be {expected}"));
    }

    /// Refuses the keys that nobody took.
    pub(super) fn end(self) {
        for key in self.table.keys() {
            let word = key.get_ref().as_ref();
            if !self.known.contains(&word) {
                let advice = suggest(word, &self.known);
                self.faults.add(&key.span(), format!("unknown key `{word}`{advice}"));
            }
        }
    }
}

/// "; did you mean `x`?", or else all that is known.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(word, candidate);
    match known.iter().min_by_key(distance) {
        // A third of the letters wrong is a typo; more is another word.
        Some(nearest) if distance(&nearest) <= word.chars().count().div_ceil(3) => {
            format!("; did you mean `{nearest}`?")
        }
        _ => format!("; known are {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
    }
}
