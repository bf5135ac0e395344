//! For tests: a source in memory.

/// Parses and evaluates on a thread with the stack of a tokio worker.
pub fn on_a_small_stack(query: String) {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let run = move || {
        let _ = super::parse_query(&query, None);
    };
    thread.spawn(run).expect("a thread").join().expect("no overflow");
}
