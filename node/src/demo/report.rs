//! What the demo found, as a table and as a document.

use comfy_table::{Table, presets};
use serde::Serialize;

/// The result of a demo. The fields are promises: scripts read them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this document.
    pub version: u32,
    /// The emulated WAN: `us-eu` or `none`.
    pub wan: String,
    /// Facts in the file or sample that was loaded.
    pub facts_loaded: u64,
    /// How long that took.
    pub load_seconds: f64,
    /// The datacenter that was taken away: the leader's.
    pub datacenter_lost: String,
    /// Writes that were acknowledged while all this went on.
    pub writes_acked: u64,
    /// Those of them that at least one datacenter did not find at the end.
    pub writes_lost: u64,
    /// Writes that ended with an error. They may or may not have happened.
    pub writes_failed: u64,
    /// The longest time without any acknowledgement.
    pub write_gap_ms: u64,
    /// Queries answered.
    pub queries_ok: u64,
    /// Queries that ended with an error.
    pub queries_failed: u64,
    /// Second requests sent to views because the first was late.
    pub hedges: u64,
    /// Requests sent to views in all.
    pub requests: u64,
    /// From the start to the end.
    pub seconds: f64,
}

impl Report {
    /// The table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        for (what, value) in [
            ("facts loaded", format!("{} in {:.1} s", self.facts_loaded, self.load_seconds)),
            ("datacenter lost", self.datacenter_lost.clone()),
            ("writes acknowledged", self.writes_acked.to_string()),
            ("writes lost", self.writes_lost.to_string()),
            ("writes failed, outcome told as unknown or refused", self.writes_failed.to_string()),
            ("longest write gap", format!("{} ms", self.write_gap_ms)),
            ("queries answered", self.queries_ok.to_string()),
            ("queries failed", self.queries_failed.to_string()),
            ("hedges sent", format!("{} of {} requests to views", self.hedges, self.requests)),
        ] {
            table.add_row([what.to_owned(), value]);
        }
        table
    }
}
