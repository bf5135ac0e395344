//! The binary as a user meets it: a cluster of real processes on this machine, killed with SIGKILL and fed with
//! garbage. Every command that can fail says what, where and what to do, with its own exit code.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The topology at the root, with two views per datacenter instead of four and ports that are free now.
fn topology() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../topology.toml")).unwrap();
    let mut held = vec![];
    let mut port = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        held.push(socket);
        port
    };
    let mut out = String::new();
    for line in text.lines() {
        match line.split_once("127.0.0.1:") {
            Some((before, after)) => {
                let rest: String = after.chars().skip_while(char::is_ascii_digit).collect();
                out += &format!("{before}127.0.0.1:{}{rest}\n", port());
            }
            None => out += &format!("{line}\n"),
        }
    }
    out
}

struct Cluster {
    home: tempfile::TempDir,
    process: Option<Child>,
}

impl Cluster {
    fn start() -> Cluster {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("topology.toml"), topology()).unwrap();
        let mut cluster = Cluster { home, process: None };
        cluster.run();
        cluster
    }

    /// Starts `beam dev`, and waits until it serves.
    fn run(&mut self) {
        let mut process = beam(self.home.path()).arg("dev").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            if line.unwrap().contains("Ctrl-C stops it") {
                break;
            }
        }
        // Whatever it says later must not fill the pipe.
        #[allow(clippy::disallowed_methods, reason = "this test runs processes, in real time")]
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
        for _ in 0..600 {
            if self.beam(&["status"]).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the cluster does not serve: {}", text(&self.beam(&["status"])));
    }

    /// SIGKILL: no destructor runs, nothing is flushed.
    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn beam(&self, arguments: &[&str]) -> Output {
        beam(self.home.path()).args(arguments).output().unwrap()
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn beam(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beam"));
    command.current_dir(home).env_remove("BEAM_TOPOLOGY").env_remove("BEAM_CERTS").env_remove("BEAM_CLIENT");
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The command failed with this exit code, and said all of this.
#[track_caller]
fn fails(output: &Output, code: i32, says: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for words in says {
        assert!(text.contains(words), "it does not say {words:?}: {text}");
    }
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn count(cluster: &Cluster) -> String {
    let query = "SELECT (COUNT(*) AS ?n) WHERE { ?s <urn:p> ?o }";
    let tsv = succeeds(&cluster.beam(&["query", query, "--format", "tsv"]));
    tsv.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_cluster_keeps_what_it_acknowledged_and_refuses_garbage() {
    let mut cluster = Cluster::start();
    let facts: String = (0..500).map(|i| format!("<urn:s{i}> <urn:p> \"{i}\" .\n")).collect();
    cluster.file("facts.nt", &facts);
    succeeds(&cluster.beam(&["load", "facts.nt"]));
    assert_eq!(count(&cluster), "500");

    // A broken line: file, line, column, how many facts were taken before, and none of its batch.
    let broken: String = (0..25)
        .map(
            |i| if i == 17 { "<urn:x> <urn:p> oops .\n".to_owned() } else { format!("<urn:y{i}> <urn:p> \"{i}\" .\n") },
        )
        .collect();
    cluster.file("broken.nt", &broken);
    let output = cluster.beam(&["load", "broken.nt", "--batch", "10"]);
    fails(&output, 1, &["broken.nt:18:", "10 facts were taken before it, none of the batch that holds it"]);
    assert_eq!(count(&cluster), "510");

    fails(&cluster.beam(&["load", "nowhere.nt"]), 1, &["nowhere.nt", "No such file"]);
    cluster.file("facts.txt", "");
    fails(&cluster.beam(&["load", "facts.txt"]), 1, &["facts.txt", "--format"]);
    fails(&cluster.beam(&["query", "SELECT nonsense"]), 1, &["line 1, column 16"]);
    fails(&cluster.beam(&["update", "INSERT nonsense"]), 1, &["line 1, column"]);
    fails(&cluster.beam(&["query", "ASK {}", "--at", "999999999"]), 1, &["999999999"]);
    fails(&cluster.beam(&["query"]), 2, &["<SPARQL>"]);

    // Roles.
    let update = ["update", "INSERT DATA { <urn:a> <urn:p> 1 }", "--client", "reader"];
    fails(&cluster.beam(&update), 5, &["reader"]);
    fails(&cluster.beam(&["log", "append", "x", "--client", "writer"]), 5, &["writer"]);
    assert_eq!(count(&cluster), "510", "what was refused changed nothing");

    // Certificates: one of another authority, and none at all.
    succeeds(&cluster.beam(&["cert", "ca", "--dir", "other", "--cluster", "beam"]));
    succeeds(&cluster.beam(&["cert", "client", "--dir", "other", "--role", "admin", "admin"]));
    let stranger = cluster.beam(&["query", "ASK {}", "--certs", "other", "--timeout", "5"]);
    assert!(!stranger.status.success());
    assert!(text(&stranger).contains("certificate"), "{}", text(&stranger));
    fails(&cluster.beam(&["query", "ASK {}", "--client", "nobody"]), 1, &["nobody", "beam cert client"]);

    // Everything is killed at once, and comes back with all that it has promised.
    succeeds(&cluster.beam(&["update", "INSERT DATA { <urn:last> <urn:p> \"word\" }"]));
    cluster.kill();
    let gone = cluster.beam(&["query", "ASK {}", "--timeout", "2"]);
    fails(&gone, 4, &[]);
    cluster.run();
    assert_eq!(count(&cluster), "511");
    assert_eq!(succeeds(&cluster.beam(&["query", "ASK { <urn:last> <urn:p> \"word\" }"])), "true\n");
}

/// A byte of one node's log changes on its disk: the entry is named, the node is given an empty log, and fetches all
/// from the others, as another member.
#[test]
fn a_damaged_log_is_named_and_fetched_anew_from_the_others() {
    let mut cluster = Cluster::start();
    let words = "words as they were written";
    succeeds(&cluster.beam(&["log", "append", words]));
    succeeds(&cluster.beam(&["update", "INSERT DATA { <urn:s> <urn:p> \"kept\" }"]));
    let data = cluster.home.path().join("beam-data/nodes/log-or");
    let data_text = data.to_str().unwrap();
    fails(&cluster.beam(&["log", "verify", "--data", data_text]), 1, &["in use by another process"]);
    fails(&cluster.beam(&["log", "rebuild", "--data", data_text]), 1, &["in use by another process"]);
    let members = |cluster: &Cluster| -> serde_json::Value {
        serde_json::from_str(&succeeds(&cluster.beam(&["log", "members", "--output", "json"]))).unwrap()
    };
    let raft_id = |members: &serde_json::Value| {
        let all = members["members"].as_array().unwrap();
        all.iter().find(|m| m["node"] == "log-or" && m["role"] != "learner").map(|m| m["raft_id"].clone())
    };
    let before = raft_id(&members(&cluster)).expect("it votes");
    cluster.kill();

    let fine = succeeds(&cluster.beam(&["log", "verify", "--data", data_text]));
    assert!(fine.contains("are as they were written"), "{fine}");
    let segment = flip(&data.join("log"), words.as_bytes());
    let segment = segment.file_name().unwrap().to_str().unwrap();
    fails(&cluster.beam(&["log", "verify", "--data", data_text]), 3, &[segment, "damaged", "beam log rebuild"]);
    let rebuilt = succeeds(&cluster.beam(&["log", "rebuild", "--data", data_text]));
    assert!(rebuilt.contains("aside-rebuilt-"), "{rebuilt}");
    fails(&cluster.beam(&["log", "verify", "--data", data_text]), 1, &["no log"]);

    cluster.run();
    let votes_again = || raft_id(&members(&cluster)).is_some_and(|id| id != before);
    for _ in 0..600 {
        if votes_again() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(votes_again(), "{}", members(&cluster));
    assert_eq!(count(&cluster), "1");
    cluster.kill();
    succeeds(&cluster.beam(&["log", "verify", "--data", data_text]));
    assert!(segments(&data.join("log")).iter().any(|(_, bytes)| find(bytes, words.as_bytes()).is_some()));
}

/// The files of a log, but those that were set aside.
fn segments(log: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let of_the_log = paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("aside"));
    of_the_log.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn find(bytes: &[u8], words: &[u8]) -> Option<usize> {
    bytes.windows(words.len()).position(|window| window == words)
}

/// Changes one letter of these words wherever a log has them. Returns the file.
fn flip(log: &Path, words: &[u8]) -> PathBuf {
    let mut flipped = None;
    for (path, mut bytes) in segments(log) {
        while let Some(at) = find(&bytes, words) {
            bytes[at] ^= 1;
            flipped = Some(path.clone());
        }
        std::fs::write(&path, bytes).unwrap();
    }
    flipped.expect("the log has these words")
}

#[test]
fn a_topology_with_a_mistake_is_refused_with_line_and_suggestion() {
    let home = tempfile::tempdir().unwrap();
    let wrong = topology().replace("preferred = ", "prefered = ");
    std::fs::write(home.path().join("topology.toml"), &wrong).unwrap();
    let line = 1 + wrong.lines().position(|l| l.contains("prefered")).unwrap();
    let place = format!("topology.toml:{line}:1");
    let output = beam(home.path()).args(["topology", "check", "topology.toml"]).output().unwrap();
    fails(&output, 1, &[&place, "prefered", "preferred"]);
    let output = beam(home.path()).args(["dev"]).output().unwrap();
    fails(&output, 1, &[&place, "preferred"]);
    assert!(!home.path().join("beam-data").exists(), "nothing was made");
}

#[test]
fn answers_can_be_read_from_stdin_and_files() {
    let home = tempfile::tempdir().unwrap();
    let mut child = beam(home.path())
        .args(["query", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ASK {}").unwrap();
    let output = child.wait_with_output().unwrap();
    fails(&output, 1, &["topology.toml", "--topology"]);
    let output = beam(home.path()).args(["query", "@missing.rq"]).output().unwrap();
    fails(&output, 1, &["missing.rq"]);
}

/// The data of a cluster that runs is cut anew; what cannot be is refused, and changes nothing.
#[test]
fn views_are_repartitioned_by_one_command() {
    let cluster = Cluster::start();
    let facts: String = (0..300).map(|i| format!("<urn:s{i}> <urn:p> \"{i}\" .\n")).collect();
    cluster.file("facts.nt", &facts);
    succeeds(&cluster.beam(&["load", "facts.nt"]));
    let listed = |cluster: &Cluster| succeeds(&cluster.beam(&["views", "list"]));
    fails(&cluster.beam(&["views", "repartition", "0", "--yes"]), 1, &["1 to 4096 partitions"]);
    fails(&cluster.beam(&["views", "repartition", "4097", "--yes"]), 1, &["1 to 4096 partitions"]);
    let plan = cluster.beam(&["views", "repartition", "3", "--plan"]);
    assert!(plan.status.success() && text(&plan).contains("then"), "{}", text(&plan));
    let before = listed(&cluster);
    assert!(before.contains("1/2") && !before.contains("/3"), "a plan, and what was refused, change nothing: {before}");

    let done = cluster.beam(&["views", "repartition", "3", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    let after = listed(&cluster);
    assert!(after.contains("serving  2/3, 3/3") && !after.contains("serving  1/2"), "{after}");
    assert_eq!(count(&cluster), "300");
    succeeds(&cluster.beam(&["verify"]));
    let again = cluster.beam(&["views", "repartition", "3", "--yes"]);
    assert!(again.status.success() && text(&again).contains("there is nothing to do"), "{}", text(&again));
}
