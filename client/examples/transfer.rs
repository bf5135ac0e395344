//! Moves money between accounts, from many places at once: whatever meets, no money is made or lost.
//!
//! ```text
//! beam dev                                             # in another terminal
//! cargo run -p beam-client --example transfer
//! ```
//!
//! Options as in `read_your_write`.

mod cluster;

use beam_client::{Client, ClientError, Done, Position, Term, Transaction};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::error::Error;

const ACCOUNTS: usize = 4;
const TRANSFERS: usize = 24;
const AT_ONCE: usize = 6;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = cluster::from_args()?;
    let client = Client::connect(cluster.env.clone(), cluster.options()?).await?;
    let bank = format!("urn:beam:example:bank:{:032x}", cluster.env.random_u128());

    client
        .transaction(|tx| {
            let bank = &bank;
            async move {
                for account in 0..ACCOUNTS {
                    tx.insert([iri(&format!("{bank}:{account}")), iri(bank), integer(100)], None)?;
                }
                Ok::<_, ClientError>(())
            }
        })
        .await?;

    let transfers = (0..TRANSFERS).map(|n| transfer(&client, &bank, n % ACCOUNTS, (n + 1) % ACCOUNTS, n as i64));
    let attempts: Vec<u32> = stream::iter(transfers).buffer_unordered(AT_ONCE).try_collect().await?;
    println!("{TRANSFERS} transfers took {} attempts", attempts.iter().sum::<u32>());

    let sum = format!("SELECT (SUM(?balance) AS ?all) {{ ?account <{bank}> ?balance }}");
    let answer = client.query_all(&sum, Position::Latest).await?;
    println!("all money at version {}: {:?}", answer.version, answer.rows);
    client.close().await;
    if answer.rows == [vec![Some(integer(100 * ACCOUNTS as i64))]] {
        Ok(())
    } else {
        Err("money was made or lost".into())
    }
}

/// One transfer, under an id of its own: should this program not hear what became of it, it may ask again.
async fn transfer(client: &Client, bank: &str, from: usize, to: usize, amount: i64) -> Result<u32, ClientError> {
    let (_, id) = client.new_id().await?;
    let attempt = |tx: Transaction| async move {
        for (account, change) in [(from, -amount), (to, amount)] {
            let account = iri(&format!("{bank}:{account}"));
            let Term::Iri(text) = &account else { unreachable!("made above") };
            let found = tx.query(&format!("SELECT ?balance {{ <{text}> <{bank}> ?balance }}")).await?;
            let Some([Some(Term::Literal { lexical, .. })]) = found.rows.first().map(Vec::as_slice) else {
                continue;
            };
            let balance: i64 = lexical.parse().unwrap_or_default();
            tx.delete([account.clone(), iri(bank), integer(balance)], None)?;
            tx.insert([account, iri(bank), integer(balance + change)], None)?;
        }
        Ok::<_, ClientError>(())
    };
    loop {
        match client.transaction_as(id, attempt).await {
            Ok(Done::Now(committed)) => return Ok(committed.attempts),
            Ok(Done::Before(version)) => {
                println!("it had been done, at version {version}");
                return Ok(0);
            }
            // With the same id it is safe, whatever became of it.
            Err(ClientError::OutcomeUnknown { .. }) => {}
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
    }
}

fn iri(text: &str) -> Term {
    Term::Iri(text.to_owned())
}

fn integer(number: i64) -> Term {
    let datatype = "http://www.w3.org/2001/XMLSchema#integer".to_owned();
    Term::Literal { lexical: number.to_string(), datatype }
}
