//! Asking before what cannot be undone.

use super::Exit;
use anyhow::Result;
use std::io::{BufRead, IsTerminal, Write};

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
