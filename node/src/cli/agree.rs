//! How commands that change a cluster are told what they may do, and how they ask before what cannot be undone.

use super::connect::Connection;
use super::{Exit, Output};
use anyhow::Result;
use std::io::{BufRead, IsTerminal, Write};

/// How a change is made.
#[derive(clap::Args)]
pub struct How {
    /// Show the plan, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Do what the plan refuses, too
    #[arg(long)]
    pub force: bool,
    /// How to print what was done; plan and progress for people go to stderr in any case
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

/// The exit code when a plan is refused, or cannot be carried out.
pub const REFUSED: u8 = 1;
/// Something is missing on the command line.
const USAGE: u8 = 2;

/// Says what it is about, and asks whether to go on. Without a terminal nobody can be asked: that is an error.
pub fn agreed(what: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        let why = format!("{what}, and there is no terminal to ask at: say --yes, or --plan");
        return Err(Exit { code: USAGE, why }.into());
    }
    eprint!("{what}. Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
