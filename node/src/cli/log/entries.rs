//! `beam log read`, `append` and `discard`: entries, as they lie in the log.

use crate::cli::connect::Connection;
use anyhow::{Context, Result};
use beam_wire::LogIndex;
use beam_wire::command::Command as Entry;
use beam_wire::message::log;
use bytes::Bytes;
use std::io::Read;

pub async fn read(from: u64, count: Option<u64>, follow: bool, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let mut entries = log.read(None, LogIndex(from), follow);
    let mut left = count.unwrap_or(u64::MAX);
    // Following has no end; what was asked for otherwise is there at once, or nobody answers.
    let limit = if follow { std::time::Duration::from_secs(u32::MAX.into()) } else { connection.limit() };
    while left > 0 {
        let next = env.timeout(limit, entries.next()).await;
        let chunk = match next.with_context(|| match entries.trouble() {
            Some(trouble) => format!("no entries came in time: {trouble}"),
            None => "no entries came in time".to_owned(),
        })?? {
            Some(chunk) => chunk,
            None => break,
        };
        for (offset, entry) in chunk.entries.iter().enumerate().take(left.try_into().unwrap_or(usize::MAX)) {
            let index = LogIndex(chunk.first.0 + offset as u64);
            match entry {
                log::Entry::Skip => println!("{index}\tskip"),
                log::Entry::Data { origin, body } => {
                    println!("{index}\t{}:{:x}:{}\t{}", origin.node, origin.boot, origin.sequence, describe(body));
                }
            }
            left -= 1;
        }
    }
    Ok(())
}

/// The log does not know what a body means; a person would like to.
fn describe(body: &[u8]) -> String {
    match Entry::decode(body) {
        Ok(Entry::Genesis(g)) => format!(
            "genesis of {} epoch {}: format {}, 2^{} slots, window {}",
            g.cluster, g.epoch, g.format, g.slots_log2, g.window
        ),
        Ok(Entry::Begin(b)) => format!("epoch {} begins, entries up to {} are kept", b.epoch, b.kept),
        Ok(Entry::Upgrade(format)) => format!("upgrade to format {format}"),
        Ok(Entry::Transact(t)) => format!(
            "transaction {:032x} born {}: {} inserts, {} deletes, {} terms, {} reads at {}",
            t.id.random,
            t.id.born,
            t.inserts.len(),
            t.deletes.len(),
            t.terms.len(),
            t.reads.len(),
            t.read_index
        ),
        Err(error) => format!("{} bytes: {error}", body.len()),
    }
}

pub async fn append(body: String, connection: Connection) -> Result<()> {
    let body = if body == "-" {
        let mut bytes = vec![];
        std::io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
        Bytes::from(bytes)
    } else {
        Bytes::from(body)
    };
    let (log, env) = connection.open_log().await?;
    for version in log.append(vec![body], env.now() + connection.limit()).await? {
        println!("{version}");
    }
    Ok(())
}

pub async fn discard(before: u64, connection: Connection) -> Result<()> {
    let (log, env) = connection.open_log().await?;
    let deadline = env.now() + connection.limit();
    let epoch = log.tail(false, deadline).await?.epoch;
    let version = log.discard(epoch, LogIndex(before), deadline).await?;
    println!("entries below {before} are dropped as of version {version}; each node drops whole segments");
    Ok(())
}
