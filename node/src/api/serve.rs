//! Reads requests, calls what answers them, and writes the replies.

use crate::api::ApiRole;
use beam_wire::message::Kind;
use beam_wire::message::api::{ApiCommitted, ApiLoad, ApiQuery, ApiRead, ApiStatus, ApiTransact, ApiUpdate, ApiWatch};
use beam_wire::quic::Incoming;
use beam_wire::{CallError, Code};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// For callers that name no deadline: longer than people wait, short enough that nothing is forgotten here.
const PATIENCE: Duration = Duration::from_secs(60);

impl ApiRole {
    /// Answers a call. Dropping the future stops all that it caused.
    pub fn serve(self: &Arc<Self>, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let api = self.clone();
        let deadline = call.deadline.unwrap_or_else(|| api.env.now() + PATIENCE);
        Box::pin(async move {
            match call.kind {
                // The door comes first: whoever is refused must cost next to nothing. What the work itself needs is made
                // after it, in a box of its own. A place to run is taken where it is known what to run on.
                Kind::ApiQuery => {
                    api.admission.door(deadline)?;
                    Box::pin(api.query(call.open::<ApiQuery>()?, deadline)).await
                }
                Kind::ApiRead => {
                    api.admission.door(deadline)?;
                    Box::pin(api.query(call.open::<ApiRead>()?, deadline)).await
                }
                Kind::ApiWatch => api.watch(call.open::<ApiWatch>()?).await,
                Kind::ApiCommitted => {
                    let _taken = api.admission.write()?;
                    let mut call = call.open::<ApiCommitted>()?;
                    let reply = api.committed(call.request.id, deadline).await?;
                    call.reply(&reply).await
                }
                Kind::ApiUpdate => {
                    api.admission.door(deadline)?;
                    let _taken = api.admission.write()?;
                    let mut call = call.open::<ApiUpdate>()?;
                    let outcome = Box::pin(api.update(&call.request, deadline)).await?;
                    call.reply(&outcome).await
                }
                Kind::ApiTransact => {
                    let _taken = api.admission.write()?;
                    let mut call = call.open::<ApiTransact>()?;
                    let reply = Box::pin(api.transact(call.request.clone(), deadline)).await?;
                    call.reply(&reply).await
                }
                Kind::ApiLoad => {
                    let mut call = call.open::<ApiLoad>()?;
                    call.reply(&api.load().await).await
                }
                Kind::ApiStatus => {
                    let mut call = call.open::<ApiStatus>()?;
                    call.reply(&api.status().await).await
                }
                other => Err(CallError::never(Code::UnknownKind, format!("api nodes do not answer {other:?}"))),
            }
        })
    }
}
