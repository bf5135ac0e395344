//! The binary `beam`.

fn main() -> std::process::ExitCode {
    beam_node::cli::run()
}
