//! The role: opens the view, follows the log, answers calls, and stops.

use super::apply::{Applier, ApplyOptions, CHECKPOINT_INDEXES, HISTORY, Held};
use super::follow::{FollowError, follow};
use super::serve::{Desk, SLICES_MAX};
use super::status::Board;
use super::store::{OpenError, StorageError, Store, StoreOptions};
use crate::remote::log::RemoteLog;
use beam_wire::env::{Env, Task};
use beam_wire::message::log::Entries;
use beam_wire::message::view::{Served, ViewState, ViewStatusReply};
use beam_wire::quic::Incoming;
use beam_wire::{CallError, Epoch, LogIndex, Name};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a view is to be.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// The cluster it belongs to.
    pub cluster: Name,
    /// What it holds.
    pub serves: Vec<Served>,
    /// Its directory. It must be this view's alone.
    pub directory: PathBuf,
    /// How many indexes back versions can be read.
    pub history: u64,
    /// Memory for the index.
    pub store: StoreOptions,
}

impl ViewOptions {
    /// With all defaults.
    pub fn new(cluster: Name, serves: Vec<Served>, directory: impl Into<PathBuf>) -> ViewOptions {
        ViewOptions { cluster, serves, directory: directory.into(), history: HISTORY, store: StoreOptions::default() }
    }
}

/// Why a view did not start.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It would hold nothing.
    #[error("a view needs at least one range of one space to hold")]
    Nothing,
}

/// A running view. It stops when it is dropped.
pub struct ViewRole {
    desk: Desk,
    following: Mutex<Option<Task>>,
}

/// How long to wait for a directory that a stopped view of this process is still closing.
const CLOSING_MAX: Duration = Duration::from_secs(10);
const CLOSING_PAUSE: Duration = Duration::from_millis(50);

impl ViewRole {
    /// Opens the view's directory, and follows the log from where it was left.
    pub async fn start(env: &Env, options: ViewOptions, log: RemoteLog) -> Result<Arc<ViewRole>, ViewError> {
        ViewRole::start_with(env, options, move |epoch, from| entries(log, epoch, from)).await
    }

    /// As [`ViewRole::start`], with entries from elsewhere.
    pub async fn start_with<S>(
        env: &Env,
        options: ViewOptions,
        log: impl FnOnce(Option<Epoch>, LogIndex) -> S,
    ) -> Result<Arc<ViewRole>, ViewError>
    where
        S: Stream<Item = Result<Entries, CallError>> + Send + Unpin + 'static,
    {
        let ViewOptions { cluster, mut serves, directory, history, store } = options;
        if serves.is_empty() {
            return Err(ViewError::Nothing);
        }
        serves.sort_unstable();
        let give_up = env.now() + CLOSING_MAX;
        let store = loop {
            let (directory, cluster, serves) = (directory.clone(), cluster.clone(), serves.clone());
            match env.blocking(move || Store::open(&directory, &cluster, &serves, &store)).await {
                Err(OpenError::InUse { .. }) if env.now() < give_up => env.sleep(CLOSING_PAUSE).await,
                opened => break opened?,
            }
        };
        let apply = ApplyOptions { cluster, serves: serves.clone(), history, checkpoint_indexes: CHECKPOINT_INDEXES };
        let opened = store.clone();
        let applier = env.blocking(move || Applier::open(opened, apply)).await?;
        let board = Arc::new(Board::new(serves.clone(), applier.applied()));
        let desk = Desk {
            env: env.clone(),
            store: store.clone(),
            shared: applier.shared().clone(),
            board: board.clone(),
            held: Arc::new(Held::new(&serves)),
            slices: Arc::new(Semaphore::new(SLICES_MAX)),
        };
        let from = applier.next();
        tracing::info!("a view of {} opens at entry {}", directory.display(), from);
        let entries = log(board.epoch(), from);
        let task = follow(env.clone(), applier, store, entries, board);
        let following = env.tasks().own::<FollowError>("view.follow", task);
        Ok(Arc::new(ViewRole { desk, following: Mutex::new(Some(following)) }))
    }

    /// Answers a call of a kind that belongs to views.
    pub fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        self.desk.clone().serve(call).boxed()
    }

    /// How it is.
    pub fn status(&self) -> ViewStatusReply {
        self.desk.board.status()
    }

    /// Waits until it serves, or drains.
    pub async fn ready(&self) {
        loop {
            let edition = self.desk.board.edition();
            if self.desk.board.state() != ViewState::Booting {
                return;
            }
            self.desk.board.changed_since(edition).await;
        }
    }

    /// Tells everybody to ask others. It goes on answering.
    pub fn drain(&self) {
        self.desk.board.set_state(ViewState::Draining);
    }

    /// Stops following, waits for calls in progress until `deadline`, and puts everything onto the disk.
    pub async fn stop(&self, within: Duration) -> Result<(), StorageError> {
        self.drain();
        let desk = &self.desk;
        let quiet = async {
            while desk.board.calls() > 0 {
                desk.env.sleep(Duration::from_millis(10)).await;
            }
        };
        // Whoever is not done by then is told by the closing connection.
        let _ = desk.env.timeout(within, quiet).await;
        drop(self.following.lock().expect("nothing panics while it holds this").take());
        let store = desk.store.clone();
        desk.env.blocking(move || store.persist()).await
    }

    /// What its look-ups and calls are made from.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }
}

/// The log from an index on, as a stream.
fn entries(
    log: RemoteLog,
    epoch: Option<Epoch>,
    from: LogIndex,
) -> impl Stream<Item = Result<Entries, CallError>> + Send + Unpin {
    let reader = log.read(epoch, from, true);
    Box::pin(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|entries| (entries, reader)))
    }))
}
