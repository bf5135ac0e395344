//! The bytes of everything that travels or is stored, held against `wire/golden/`.
//!
//! One file for each type, one line for each value: a name, then its bytes in hex. With
//! `BEAM_GOLDEN=add` missing lines are written; a line that is there is never changed. If one must
//! be, a promise is broken: the change needs a new format or protocol version instead.

mod calls;
mod nouns;
mod values;

use beam_wire::codec;
use beam_wire::command::Command;
use beam_wire::message::Kind;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

/// Values by the name of their type and their own.
#[derive(Default)]
struct Samples(BTreeMap<String, Vec<(String, String)>>);

impl Samples {
    fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: T) {
        let bytes = codec::encode(&value);
        assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(&value), "{name} comes back");
        self.text(type_name::<T>(), name, hex(&bytes));
    }

    fn text(&mut self, kind: &str, name: &str, text: String) {
        assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{name:?}");
        let of_type = self.0.entry(kind.to_string()).or_default();
        assert!(of_type.iter().all(|(other, _)| other != name), "{kind} {name} twice");
        of_type.push((name.to_string(), text));
    }
}

/// `NodeStatus<LogInfoReply>` is a `NodeStatus`.
fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings grow");
        text
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn lines(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn bytes_are_what_they_always_were() {
    let mut samples = Samples::default();
    nouns::nouns(&mut samples);
    let mut sent = BTreeSet::new();
    for kind in Kind::ALL {
        sent.extend(calls::of_kind(&mut samples, kind));
    }
    sent.remove("()");
    for name in sent {
        assert!(samples.0.contains_key(name), "there is no sample of {name}, which travels");
    }
    let add = std::env::var("BEAM_GOLDEN").is_ok_and(|how| how == "add");
    let mut wrong = Vec::new();
    for (kind, values) in &samples.0 {
        let path = folder().join(format!("{kind}.txt"));
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        let known: BTreeMap<String, String> = lines(&text).into_iter().map(|(a, b)| (a.into(), b.into())).collect();
        for (name, bytes) in values {
            match known.get(name) {
                Some(golden) if golden == bytes => {}
                Some(golden) => wrong.push(format!("{kind} {name} was\n  {golden}\nand is now\n  {bytes}")),
                None if add => writeln!(text, "{name} {bytes}").expect("strings grow"),
                None => wrong.push(format!("{kind} {name} has no golden bytes: run with BEAM_GOLDEN=add")),
            }
        }
        for name in known.keys().filter(|name| values.iter().all(|(other, _)| other != *name)) {
            wrong.push(format!("{kind} {name} is golden, but no sample any more"));
        }
        if add {
            std::fs::write(&path, text).unwrap();
        }
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if file.strip_suffix(".txt").is_none_or(|kind| !samples.0.contains_key(kind)) {
            wrong.push(format!("golden/{file} belongs to no type"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Types that the message modules declare are parts of something that travels: all have a sample.
#[test]
fn every_type_of_a_message_has_golden_bytes() {
    /// Held by the samples of the replies that contain them.
    const PARTS: [&str; 22] = [
        "Change",
        "MemberName",
        "Apply",
        "Plan",
        "Member",
        "EpochBegan",
        "RoundTrip",
        "KeyInterval",
        "CopiedFact",
        "CopiedTerm",
        "Served",
        "RangeSum",
        "Scanned",
        "ViewState",
        "Instance",
        "Lane",
        "Entry",
        "Proposal",
        "Envelope",
        "RecoverOrder",
        "RecoverPart",
        "LogEnd",
    ];
    let messages = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message");
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(messages).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in source.lines() {
            let declared = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
            let Some(declared) = declared else { continue };
            let name: String = declared.chars().take_while(|c| c.is_alphanumeric()).collect();
            let golden = folder().join(format!("{name}.txt"));
            if !PARTS.contains(&name.as_str()) && !golden.exists() {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "no golden bytes of {missing:?}");
}

#[test]
fn golden_bodies_decode() {
    let text = std::fs::read_to_string(folder().join("Body.txt")).unwrap();
    for (name, hex) in lines(&text) {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        assert!(Command::decode(&bytes).is_ok(), "{name}");
    }
}

/// docs/wire.md draws every message; a field that is added must be drawn too.
#[test]
fn every_field_of_a_message_is_in_the_book() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = std::fs::read_to_string(crate_folder.join("../docs/wire.md")).unwrap();
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(crate_folder.join("src/message")).unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut row = "";
        for line in source.lines() {
            if let Some(declared) = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum ")) {
                let name: String = declared.chars().take_while(|c| c.is_alphanumeric()).collect();
                row = book.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
                if row.is_empty() && name != "Kind" {
                    missing.push(name);
                }
            } else if let Some(field) = line.strip_prefix("    pub ").and_then(|field| field.strip_suffix(','))
                && field.contains(": ")
                && !row.contains(&format!("`{field}`"))
            {
                missing.push(field.to_string());
            }
        }
    }
    for kind in Kind::ALL {
        let row = format!("| {} | {kind:?} |", kind as u16);
        if !book.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/wire.md lacks {missing:?}");
}
