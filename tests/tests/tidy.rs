//! The floors of the house hold: who may import whom, who may spawn, who may look at a clock.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

/// Every Rust file below `dir`, with its path from the root and its text.
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {dir}");
    found.sort();
    found
}

/// Lines of code that hold one of `words`, outside of comments and unit tests.
fn offences(files: &[(String, String)], words: &[&str], excused: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for (name, text) in files.iter().filter(|(name, _)| !excused.iter().any(|e| name.starts_with(e))) {
        for (number, line) in text.lines().take_while(|l| l.trim() != "mod tests {").enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|w| code.contains(w)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn none(what: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{what}:\n{}", offences.join("\n"));
}

#[test]
fn offences_are_found() {
    // The checks below pass on a tidy tree; this one shows that they would not on an untidy one.
    let file = |text: &str| [("a/b.rs".to_owned(), text.to_owned())];
    assert_eq!(offences(&file("use x;\n  tokio::spawn(y);"), &["tokio::spawn"], &[]), ["a/b.rs:2: tokio::spawn(y);"]);
    assert!(offences(&file("// tokio::spawn is forbidden"), &["tokio::spawn"], &[]).is_empty());
    assert!(offences(&file("tokio::spawn(y)"), &["tokio::spawn"], &["a/"]).is_empty());
}

#[test]
fn roles_never_import_one_another() {
    for (role, others) in [("log", ["view", "api"]), ("view", ["log", "api"]), ("api", ["log", "view"])] {
        let words: Vec<_> = others
            .iter()
            .flat_map(|o| [format!("crate::{o}::"), format!("crate::{o};"), format!("beam_node::{o}")])
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        none(
            &format!("{role} speaks to the other roles through remote only"),
            offences(&sources(&format!("node/src/{role}")), &words, &[]),
        );
    }
}

#[test]
fn lower_rooms_know_no_role() {
    let words = ["crate::log::", "crate::view::", "crate::api::", "crate::cli::"];
    for dir in ["node/src/remote", "node/src/query", "node/src/rdf", "node/src/discovery"] {
        none("arrows point down", offences(&sources(dir), &words, &[]));
    }
}

#[test]
fn crates_point_down() {
    for (dir, words) in [
        ("wire", &["beam_certs", "beam_client", "beam_node"][..]),
        ("certs", &["beam_client", "beam_node"]),
        ("client", &["beam_node"]),
    ] {
        none("arrows point down only", offences(&sources(&format!("{dir}/src")), words, &[]));
    }
}

#[test]
fn messages_know_no_runtime() {
    let words = ["tokio", "quinn", "rustls", "crate::quic", "crate::env"];
    let mut files = sources("wire/src/message");
    for name in ["codec", "command", "error", "fact", "identity", "ids", "space", "term"] {
        let path = root().join(format!("wire/src/{name}.rs"));
        if path.exists() {
            files.push((format!("wire/src/{name}.rs"), fs::read_to_string(path).unwrap()));
        } else {
            files.extend(sources(&format!("wire/src/{name}")));
        }
    }
    none("what travels knows nothing of how", offences(&files, &words, &[]));
}

/// What ships: not the files that only tests see.
fn product() -> Vec<(String, String)> {
    let files = ["wire/src", "certs/src", "client/src", "node/src"].into_iter().flat_map(sources);
    files.filter(|(name, _)| !name.contains("/tests") && !name.ends_with("/testing.rs")).collect()
}

#[test]
fn only_the_task_module_spawns() {
    let words = [
        "tokio::spawn",
        "task::spawn",
        "spawn_blocking(",
        "spawn_local",
        "thread::spawn",
        "thread::Builder",
        "JoinSet::",
    ];
    none("tasks have names and owners: use Env", offences(&product(), &words, &["wire/src/env/tasks.rs"]));
}

#[test]
fn clock_and_chance_come_from_env() {
    let words = [
        "Instant::now(",
        "SystemTime::now(",
        "OffsetDateTime::now",
        "tokio::time::sleep",
        "tokio::time::timeout",
        "tokio::time::interval",
        "rand::rng(",
        "thread_rng(",
        "OsRng",
        "getrandom",
        "SystemRandom",
        "from_os_rng",
        "KeyPair::generate",
    ];
    none(
        "clock and chance come from Env alone",
        offences(&product(), &words, &["wire/src/env/", "node/src/log/runtime.rs"]),
    );
}

#[test]
fn oxigraph_stays_in_its_rooms() {
    let words = ["oxrdf", "oxttl", "oxrdfio", "spargebra", "spareval", "sparesults"];
    let excused = ["node/src/rdf", "node/src/query"];
    none("crates that change with 0.6 stay behind rdf and query", offences(&product(), &words, &excused));
}

#[test]
fn only_the_view_store_knows_its_engine() {
    none("fjall stays behind one module", offences(&product(), &["fjall::"], &["node/src/view/store"]));
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!(", "unimplemented!(", "FIXME", "XXX"];
    none("what ships is finished", offences(&product(), &words, &[]));
}
