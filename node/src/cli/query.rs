//! `beam query`: a SPARQL query, its answer on stdout.

use super::connect::Connection;
use super::runtime;
use crate::rdf::write::{self, RowFormat, TripleFormat};
use anyhow::{Context, Result, bail};
use beam_client::Answer;
use beam_wire::message::api::Shape;
use beam_wire::term::TermError;
use beam_wire::{LogIndex, Position, Term, Version};
use comfy_table::{ContentArrangement, Table, presets};
use std::io::{Read, Write};

#[derive(clap::Args)]
pub struct Args {
    /// SPARQL 1.1: SELECT, ASK, CONSTRUCT or DESCRIBE; - reads it from stdin, @FILE from a file
    sparql: String,
    /// The version to read: latest, recent, or an index (as EPOCH.INDEX, or INDEX in the newest epoch)
    #[arg(long, default_value = "latest")]
    at: String,
    /// How to print the answer. Tables come at once, the rest as it arrives
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Say on stderr which version was read, and what it took
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people (rows)
    Table,
    /// SPARQL results JSON
    Json,
    /// Values only
    Csv,
    /// Terms as in Turtle
    Tsv,
    /// SPARQL results XML
    Xml,
    /// Turtle (triples)
    Ttl,
    /// N-Triples (triples)
    Nt,
}

/// Rows handed to the writer at once.
const ROWS: usize = 1000;

/// SPARQL from the argument, a file or stdin.
pub fn sparql_of(argument: &str) -> Result<String> {
    match argument.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            Ok(text)
        }
        None => Ok(argument.to_owned()),
    }
}

pub fn run(args: Args) -> Result<()> {
    let sparql = sparql_of(&args.sparql)?;
    runtime()?.block_on(async {
        let (client, _) = args.connection.open().await?;
        let position = match args.at.as_str() {
            "latest" => Position::Latest,
            "recent" => Position::Recent,
            at => {
                let (epoch, index) = match at.split_once('.') {
                    Some((epoch, index)) => (Some(epoch), index),
                    None => (None, at),
                };
                let wrong = || format!("--at takes latest, recent, INDEX or EPOCH.INDEX, not {at:?}");
                let index = LogIndex(index.parse().with_context(wrong)?);
                let epoch = match epoch {
                    Some(epoch) => beam_wire::Epoch(epoch.parse().with_context(wrong)?),
                    None => client.new_id().await?.0.epoch,
                };
                Position::Exact(Version { epoch, index })
            }
        };
        let mut answer = client.query(&sparql, position).await?;
        let (version, format) = (answer.version(), args.format);
        print(&mut answer, format).await?;
        if let Some(summary) = answer.summary().filter(|_| args.stats) {
            let (facts, requests, hedges) = (summary.facts_fetched, summary.requests, summary.hedges);
            eprintln!("version {version}: {facts} facts fetched by {requests} requests, {hedges} of them hedges");
        }
        client.close().await;
        Ok(())
    })
}

async fn print(answer: &mut Answer, format: Option<Format>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match answer.shape().clone() {
        Shape::Boolean(value) => match rows(format)? {
            None => writeln!(out, "{value}")?,
            Some(format) => {
                write::boolean(format, &mut out, value)?;
            }
        },
        Shape::Graph => {
            let format = match format {
                None | Some(Format::Ttl) => TripleFormat::Turtle,
                Some(Format::Nt) => TripleFormat::NTriples,
                Some(other) => {
                    bail!("CONSTRUCT and DESCRIBE give triples: use --format ttl or nt, not {}", name(other))
                }
            };
            let mut triples = write::Triples::start(format, &mut out);
            while let Some(row) = answer.next().await? {
                triples.write(&[triple(row)?])?;
            }
            triples.finish()?;
        }
        Shape::Solutions { variables } => match rows(format)? {
            None => table(answer, &variables, &mut out).await?,
            Some(format) => {
                let mut rows = write::Rows::start(format, &mut out, &variables)?;
                let mut chunk = vec![];
                while let Some(row) = answer.next().await? {
                    chunk.push(row);
                    if chunk.len() == ROWS {
                        rows.write(&chunk)?;
                        chunk.clear();
                    }
                }
                rows.write(&chunk)?;
                rows.finish()?;
            }
        },
    }
    // The summary comes after the last row.
    while answer.next().await?.is_some() {}
    out.flush()?;
    Ok(())
}

fn triple(row: Vec<Option<Term>>) -> Result<[Term; 3]> {
    let terms: Option<Vec<Term>> = row.into_iter().collect();
    terms.and_then(|t| t.try_into().ok()).context("the answer holds a triple without three terms")
}

/// The format of rows; none for a table.
fn rows(format: Option<Format>) -> Result<Option<RowFormat>> {
    Ok(match format {
        None | Some(Format::Table) => None,
        Some(Format::Json) => Some(RowFormat::Json),
        Some(Format::Csv) => Some(RowFormat::Csv),
        Some(Format::Tsv) => Some(RowFormat::Tsv),
        Some(Format::Xml) => Some(RowFormat::Xml),
        Some(other) => {
            bail!("SELECT and ASK give rows: use --format table, json, csv, tsv or xml, not {}", name(other))
        }
    })
}

fn name(format: Format) -> String {
    format!("{format:?}").to_lowercase()
}

async fn table(answer: &mut Answer, variables: &[String], out: &mut impl Write) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(variables.iter().map(|v| format!("?{v}")));
    let mut count = 0;
    while let Some(row) = answer.next().await? {
        count += 1;
        let cells: Result<Vec<String>, TermError> =
            row.iter().map(|t| t.as_ref().map_or(Ok(String::new()), write::text)).collect();
        table.add_row(cells?);
    }
    writeln!(out, "{table}")?;
    out.flush()?;
    eprintln!("{count} rows");
    Ok(())
}
