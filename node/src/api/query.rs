//! Everything that a query does: find its version, evaluate it over facts from views, and stream the answer.

use crate::api::ApiRole;
use crate::api::lookup::{Lookups, Took};
use crate::query::{Limits, evaluate, parse_query};
use crate::remote::view::RemoteViews;
use beam_wire::message::Call;
use beam_wire::message::api::{ApiQuery, ApiRead, QueryReply};
use beam_wire::quic::Handle;
use beam_wire::{CallError, Position, Version};
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// The two calls that a query is made by.
pub(super) trait Answered: Call<Reply = QueryReply> {
    /// The caller, a transaction, wants to know what the answer rests on.
    const READS: bool;

    /// The query, what its relative IRIs are relative to, and the position to read.
    fn asked(&self) -> (&str, Option<&str>, Position);
}

impl Answered for ApiQuery {
    const READS: bool = false;

    fn asked(&self) -> (&str, Option<&str>, Position) {
        (&self.sparql, self.base_iri.as_deref(), self.position)
    }
}

impl Answered for ApiRead {
    const READS: bool = true;

    fn asked(&self) -> (&str, Option<&str>, Position) {
        (&self.sparql, self.base_iri.as_deref(), self.position)
    }
}

impl ApiRole {
    /// Answers a query: a head, rows or triples, what the answer rests on if that is wanted, and a summary.
    pub(super) async fn query<C: Answered>(&self, mut call: Handle<C>, deadline: Instant) -> Result<(), CallError> {
        let (sparql, base_iri, position) = call.request.asked();
        let query = parse_query(sparql, base_iri)?;
        // Whoever waits for the log takes no place from those who don't.
        let version = self.resolve(position, deadline).await?;
        let mut admitted = self.admission.query(deadline).await?;
        // What a transaction reads is checked by what it rests on, not by its bytes.
        let repeatable = matches!(position, Position::Exact(_)) && !C::READS;
        let source = Lookups { repeatable, ..self.source(version, deadline) };
        let answer = evaluate(&query, &source, self.limits(deadline), &self.env).await?;
        admitted.evaluated();
        call.reply(&QueryReply::Head { version, shape: answer.shape }).await?;
        for chunk in answer.chunks {
            call.reply(&chunk).await?;
        }
        if C::READS {
            let (fine, coarse) = (answer.reads.hashes(), answer.reads.coarsened().hashes());
            call.reply(&QueryReply::Reads { fine, coarse }).await?;
        }
        let Took { tally, facts } = &source.took;
        call.reply(&QueryReply::Summary {
            facts_fetched: facts.load(Ordering::Relaxed),
            requests: tally.requests() as u32,
            hedges: tally.hedges() as u32,
        })
        .await
    }

    /// The facts of one version.
    pub(super) fn source(&self, at: Version, deadline: Instant) -> Lookups<'_, RemoteViews> {
        Lookups { fanout: &self.fanout, texts: &self.texts, at, repeatable: false, deadline, took: Took::default() }
    }

    /// What a query may use until its deadline.
    pub(super) fn limits(&self, deadline: Instant) -> Limits {
        Limits { deadline: Some(deadline), ..self.options.limits.clone() }
    }
}
