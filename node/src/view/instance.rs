//! One view: opens its directory, copies from others if it must, follows the log, and stops.

use super::apply::{Applied, Applier, ApplyOptions, CHECKPOINT_INDEXES, HISTORY, Held};
use super::boot::{self, Boot, BootError};
use super::carousel::Carousel;
use super::checkpoint;
use super::copied;
use super::damage::{Replacement, replacement};
use super::follow::{FollowError, follow};
use super::prune::prune_regularly;
use super::serve::{Desk, SLICES_MAX};
use super::status::Board;
use super::store::{OpenError, StorageError, Store, StoreOptions};
use super::verify::scan_regularly;
use crate::remote::log::RemoteLog;
use crate::remote::view::{RemoteViews, Views};
use beam_wire::command::FORMAT;
use beam_wire::env::{Env, Task};
use beam_wire::message::log::Entries;
use beam_wire::message::view::{Served, ViewState, ViewStatusReply};
use beam_wire::quic::{Directory, Peers};
use beam_wire::{CallError, Code, Epoch, LogIndex, Name};
use futures::{Stream, stream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What a view is to be.
#[derive(Clone, Debug)]
pub struct ViewOptions {
    /// The cluster it belongs to.
    pub cluster: Name,
    /// What it holds.
    pub serves: Vec<Served>,
    /// Its directory. It must be this view's alone.
    pub directory: PathBuf,
    /// The newest command format that it reads.
    pub format: u16,
    /// How many indexes back versions can be read.
    pub history: u64,
    /// After how many indexes a verdict checkpoint is due.
    pub checkpoint_indexes: u64,
    /// Memory for the index.
    pub store: StoreOptions,
    /// A view without data copies from one that is further than this many entries; else it reads the log.
    pub copy_entries: u64,
    /// What views that copy from this one are sent at most, all together.
    pub copy_bytes_per_second: Option<u64>,
    /// Calls that it answers at once, those included that wait for entries to be applied. More are refused: whoever asks has
    /// other views.
    pub calls_max: u32,
    /// How often it reads all of its data, to see whether that is what it has applied.
    pub scan_every: Option<Duration>,
}

/// Reading so many entries takes a few seconds, about as long as finding others and copying from them.
const COPY_ENTRIES: u64 = 20_000;
/// With this, look-ups beside a copy take hardly longer than without: docs/performance.md has the figures. At 42 bytes a row, a
/// source sends 48 million rows a minute.
const COPY_BYTES_PER_SECOND: u64 = 32 << 20;
/// Of small look-ups a view answers as many within a second on any machine that we know; more would wait longer than that.
const CALLS_MAX: u32 = 1024;
/// Disks lose a bit in months. Often enough that the other views, which are asked to replace it, are still whole.
const SCAN_EVERY: Duration = Duration::from_secs(24 * 3600);

impl ViewOptions {
    /// With all defaults.
    pub fn new(cluster: Name, serves: Vec<Served>, directory: impl Into<PathBuf>) -> ViewOptions {
        ViewOptions {
            cluster,
            serves,
            directory: directory.into(),
            format: FORMAT,
            history: HISTORY,
            checkpoint_indexes: CHECKPOINT_INDEXES,
            store: StoreOptions::default(),
            copy_entries: COPY_ENTRIES,
            copy_bytes_per_second: Some(COPY_BYTES_PER_SECOND),
            calls_max: CALLS_MAX,
            scan_every: Some(SCAN_EVERY),
        }
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
    /// It cannot go on.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// It would hold nothing.
    #[error("a view needs at least one range of one space to hold")]
    Nothing,
}

impl ViewError {
    /// Whether its data is damaged: it may begin anew.
    fn is_damage(&self) -> bool {
        match self {
            ViewError::Open(OpenError::Storage { why, .. }) | ViewError::Storage(why) => why.is_damage(),
            ViewError::Follow(why) => why.is_damage(),
            ViewError::Open(_) | ViewError::Nothing => false,
        }
    }
}

/// A running view. It stops when it is dropped.
pub struct Instance {
    env: Env,
    board: Arc<Board>,
    /// None while there is nothing to answer from.
    desk: Arc<RwLock<Option<Desk>>>,
    following: Mutex<Option<Task>>,
    _scanning: Option<Task>,
    _pruning: Task,
}

/// Where other views are found, to copy from.
#[derive(Clone)]
pub struct Others {
    /// This node.
    pub me: Name,
    /// Its datacenter: its views are asked first.
    pub datacenter: Name,
    /// Connections.
    pub peers: Peers,
    /// Who there is.
    pub directory: Directory,
    /// The log.
    pub log: RemoteLog,
}

/// How long to wait for a directory that a stopped view of this process is still closing.
const CLOSING_MAX: Duration = Duration::from_secs(10);
const CLOSING_PAUSE: Duration = Duration::from_millis(50);
/// How long a view without data looks for others before it reads the log from its beginning.
const LOOK_AROUND: Duration = Duration::from_secs(2);

impl Instance {
    /// Opens the view's directory, and follows the log from where it was left. A view without data, or whose
    /// log was discarded beneath it, copies from others first.
    pub async fn start(env: &Env, options: ViewOptions, others: Others) -> Result<Arc<Instance>, ViewError> {
        let log = others.log.clone();
        Instance::start_with(env, options, Some(others), move |epoch, from| entries(log.clone(), epoch, from)).await
    }

    /// As [`Instance::start`], with entries from elsewhere.
    pub async fn start_with<S>(
        env: &Env,
        options: ViewOptions,
        others: Option<Others>,
        log: impl FnMut(Option<Epoch>, LogIndex) -> S + Send + 'static,
    ) -> Result<Arc<Instance>, ViewError>
    where
        S: Stream<Item = Result<Entries, CallError>> + Send + Unpin + 'static,
    {
        let mut options = options;
        if options.serves.is_empty() {
            return Err(ViewError::Nothing);
        }
        options.serves.sort_unstable();
        let board = Arc::new(Board::new(options.serves.clone(), Applied::default()));
        let (desk, scan_every) = (Arc::default(), options.scan_every);
        let life = Life { env: env.clone(), options, others, board: board.clone(), desk: Arc::clone(&desk) };
        // Whoever has data answers at once.
        let opened = life.open().await?;
        let following = env.tasks().own::<ViewError>("view.follow", life.live(opened, log));
        let scanning = scan_every.map(|every| {
            let scanning = scan_regularly(env.clone(), every, board.clone(), Arc::clone(&desk));
            env.tasks().serve("view.scan", scanning)
        });
        let pruning = env.tasks().serve("view.prune", prune_regularly(env.clone(), Arc::clone(&desk)));
        let following = Mutex::new(Some(following));
        Ok(Arc::new(Instance { env: env.clone(), board, desk, following, _scanning: scanning, _pruning: pruning }))
    }

    /// How it is.
    pub fn status(&self) -> ViewStatusReply {
        self.board.status()
    }

    /// How many versions of facts and texts it has copied; none if it is not copying.
    pub fn copied(&self) -> Option<u64> {
        self.board.copied()
    }

    /// Waits until it serves, or drains.
    pub async fn ready(&self) {
        loop {
            let edition = self.board.edition();
            if self.board.state().answers() {
                return;
            }
            self.board.changed_since(edition).await;
        }
    }

    /// Tells everybody to ask others. It goes on answering.
    pub fn drain(&self) {
        self.board.set_state(ViewState::Draining);
    }

    /// Stops following, waits for calls in progress no longer than `within`, and puts everything onto the disk.
    pub async fn stop(&self, within: Duration) -> Result<(), StorageError> {
        self.drain();
        let quiet = async {
            while self.board.calls() > 0 {
                self.env.sleep(Duration::from_millis(10)).await;
            }
        };
        // Whoever is not done by then is told to ask another view.
        let _ = self.env.timeout(within, quiet).await;
        drop(self.following.lock().expect("nothing panics while it holds this").take());
        let Some(desk) = self.desk() else { return Ok(()) };
        desk.close();
        self.env.blocking(move || desk.store.persist()).await
    }

    /// How it is, for those who wait for changes.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// What its look-ups and calls are made from; none while it copies.
    pub fn desk(&self) -> Option<Desk> {
        self.desk.read().expect("nothing panics while it holds this").clone()
    }
}

/// What a view does from its start to its end.
struct Life {
    env: Env,
    options: ViewOptions,
    others: Option<Others>,
    board: Arc<Board>,
    desk: Arc<RwLock<Option<Desk>>>,
}

/// What a view finds in its directory.
enum Opened {
    /// All that it needs to go on.
    Ready(Store, Box<Applier>),
    /// Nothing, or a part of a copy.
    Empty(Store),
    /// Nothing that it could use.
    Damaged(String),
}

impl Life {
    /// Opens the view's directory.
    async fn open(&self) -> Result<Opened, ViewError> {
        let opened = async {
            let store = open(&self.env, &self.options).await?;
            if self.needs_copy(&store)? {
                return Ok(Opened::Empty(store));
            }
            Ok(self.take_up(store).await?)
        };
        self.or_damaged(opened.await)
    }

    /// Whoever can begin anew does not end because of damage.
    fn or_damaged(&self, opened: Result<Opened, ViewError>) -> Result<Opened, ViewError> {
        match opened {
            Err(error) if error.is_damage() && self.others.is_some() => Ok(Opened::Damaged(error.to_string())),
            opened => opened,
        }
    }

    /// Follows the log; copies from others before that where it must. `opened` is what it has.
    async fn live<S>(
        self,
        mut opened: Opened,
        mut log: impl FnMut(Option<Epoch>, LogIndex) -> S,
    ) -> Result<(), ViewError>
    where
        S: Stream<Item = Result<Entries, CallError>> + Send + Unpin,
    {
        // The log no longer has what this view lacks.
        let mut must_copy = false;
        // Compares what was copied with what others hold, for as long as this view follows from there.
        let mut _comparing = None;
        let (doubted, mut scanned) = (Arc::new(AtomicBool::new(false)), false);
        loop {
            let (store, applier) = match opened {
                Opened::Ready(store, applier) => (store, applier),
                Opened::Empty(store) => {
                    _comparing = None;
                    let filled = async { Ok(self.take_up(self.copy(store, must_copy).await?).await?) };
                    opened = self.or_damaged(filled.await)?;
                    _comparing = self.compare_copied(&opened, &doubted);
                    continue;
                }
                Opened::Damaged(why) => {
                    _comparing = None;
                    let scan = doubted.load(Ordering::Relaxed) && !scanned;
                    scanned |= scan;
                    must_copy = self.wait_for_replacement(why, scan).await == Replacement::Views;
                    opened = Opened::Empty(self.begin_anew().await?);
                    continue;
                }
            };
            let entries = log(self.board.epoch(), applier.next());
            let ended = follow(self.env.clone(), *applier, store.clone(), entries, self.board.clone()).await;
            match ended {
                Err(FollowError::Log { from, why }) if why.code == Code::Discarded && self.others.is_some() => {
                    tracing::warn!("this view needs entry {from}, but {why}");
                    let goes_on = self.go_on(store).await;
                    opened = self.or_damaged(goes_on)?;
                    must_copy = matches!(opened, Opened::Empty(_));
                }
                Err(error) if error.is_damage() && self.others.is_some() => {
                    opened = Opened::Damaged(error.to_string());
                }
                ended => return Ok(ended?),
            }
        }
    }

    /// When the log has let go of an entry that is needed: answers from what there is, until a log node has it after all, or
    /// there are others to copy from.
    async fn go_on(&self, store: Store) -> Result<Opened, ViewError> {
        let others = self.others.as_ref().expect("only who has others is asked");
        // Where it is taken up again, which may be before what it has applied.
        let from = checkpoint::head(&store.snapshot())?.map_or(LogIndex(0), |at| at.index).next();
        let found = tokio::select! {
            why = self.board.broken() => return Err(FollowError::Broken(why).into()),
            found = replacement(&self.env, others, &self.options.serves, from, "this view is left behind") => found,
        };
        match found {
            Replacement::Log => Ok(self.take_up(store).await?),
            Replacement::Views => {
                tracing::warn!("this view begins anew, from other views");
                drop(store);
                Ok(Opened::Empty(self.begin_anew().await?))
            }
        }
    }

    /// Has what was copied, if it was, compared with what others hold.
    fn compare_copied(&self, opened: &Opened, doubted: &Arc<AtomicBool>) -> Option<Task> {
        let Opened::Ready(_, applier) = opened else { return None };
        let others = self.others.clone().filter(|_| applier.applied().progress.applied > LogIndex(0))?;
        let comparing = copied::compare(self.env.clone(), others, self.board.clone(), doubted.clone());
        Some(self.env.tasks().serve("view.compare", comparing))
    }

    /// Stops answering, and keeps what there is until there is something better. With `scan`, that must be read from the
    /// others' disks first.
    async fn wait_for_replacement(&self, why: String, scan: bool) -> Replacement {
        tracing::error!("{why}: this view stops answering, and begins anew");
        self.answer_from(None);
        self.board.set_damaged(why);
        let others = self.others.as_ref().expect("only who has others begins anew");
        if scan {
            copied::scan_others(&self.env, others.clone()).await;
        }
        replacement(&self.env, others, &self.options.serves, LogIndex(1), "this view is damaged").await
    }

    /// Whether the store is no view's yet, and there may be others to copy from.
    fn needs_copy(&self, store: &Store) -> Result<bool, StorageError> {
        let empty = store.progress()?.applied == LogIndex(0);
        Ok(self.others.is_some() && (empty || store.unfinished()?.is_some()))
    }

    /// Makes a store without facts ready to read the whole log. A copy that ended before it had begun may have left a
    /// verdict checkpoint: with it the view would begin after facts that it has never seen.
    async fn without_a_copy(&self, store: Store) -> Result<Store, ViewError> {
        let clean = store.clone();
        self.env.blocking(move || clean.forget_checkpoint()).await?;
        Ok(store)
    }

    /// Copies from others, unless the log alone is as quick. Returns the store, ready to be taken up.
    async fn copy(&self, mut store: Store, must: bool) -> Result<Store, ViewError> {
        let Some(others) = self.others.clone() else { return Ok(store) };
        let Others { me, datacenter, peers, directory, log } = others;
        let has_choice = !must && store.unfinished()?.is_none();
        if has_choice && self.is_short(&log).await {
            return self.without_a_copy(store).await;
        }
        let views = RemoteViews::start(&self.env, peers, directory, datacenter);
        if has_choice && !self.is_worth_it(&views).await {
            return self.without_a_copy(store).await;
        }
        loop {
            let (env, serves, board) = (self.env.clone(), &self.options.serves, self.board.clone());
            board.set_copied(Some(0));
            let boot = Boot::begin(env, me.clone(), views.clone(), store.clone(), serves);
            let copied = async {
                let boot = boot.await?.telling(move |records| board.add_copied(records));
                self.announce(&store)?;
                boot.finish().await
            };
            let copied = copied.await;
            self.board.set_copied(None);
            match copied {
                Ok(at) => {
                    tracing::info!("this view has copied version {at} from others");
                    return Ok(store);
                }
                Err(BootError::Storage(error)) => return Err(error.into()),
                Err(error @ BootError::TooOld { .. }) => {
                    tracing::warn!("{error}");
                    drop(store);
                    store = self.begin_anew().await?;
                }
            }
        }
    }

    /// Says which verdict checkpoint was copied: the log must be kept from there on until the rest is here.
    fn announce(&self, store: &Store) -> Result<(), StorageError> {
        let checkpoint = checkpoint::head(&store.snapshot())?.map_or(LogIndex(0), |at| at.index);
        self.board.set_applied(Applied { checkpoint, ..Applied::default() });
        Ok(())
    }

    /// Whether the log holds so little that nobody need be looked for: so a new cluster starts at once.
    async fn is_short(&self, log: &RemoteLog) -> bool {
        let tail = log.tail(false, self.env.now() + LOOK_AROUND).await;
        tail.is_ok_and(|tail| tail.index.0 <= self.options.copy_entries)
    }

    /// Whether others are so far ahead of the log's beginning that copying is quicker than reading it.
    async fn is_worth_it(&self, views: &RemoteViews) -> bool {
        let until = self.env.now() + LOOK_AROUND;
        loop {
            let changed = views.changed();
            if boot::is_worth_it(views, self.options.copy_entries) {
                return true;
            }
            if self.env.timeout_at(until, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Opens what the store holds, and answers from it from now on.
    async fn take_up(&self, store: Store) -> Result<Opened, StorageError> {
        let ViewOptions {
            cluster, serves, format, history, checkpoint_indexes, calls_max, copy_bytes_per_second, ..
        } = self.options.clone();
        let held = Arc::new(Held::new(&serves));
        let apply = ApplyOptions { cluster, serves, format, history, checkpoint_indexes };
        let opened = store.clone();
        let opening = move || {
            // A view that was killed may have left some of it to the operating system only.
            opened.persist()?;
            opened.let_go(opened.progress()?.oldest);
            Applier::open(opened, apply)
        };
        let applier = self.env.blocking(opening).await?;
        self.board.set_applied(applier.applied());
        self.board.set_durable(applier.applied().progress.applied);
        let carousel = Carousel::new(self.env.clone(), store.clone(), self.board.clone(), copy_bytes_per_second);
        let desk = Desk {
            env: self.env.clone(),
            store: store.clone(),
            shared: applier.shared().clone(),
            board: self.board.clone(),
            held,
            slices: Arc::new(Semaphore::new(SLICES_MAX)),
            calls_max,
            carousel,
            scanning: Arc::new(Semaphore::new(1)),
            closed: watch::Sender::new(false),
        };
        self.answer_from(Some(desk));
        tracing::info!("a view of {} opens at entry {}", self.options.directory.display(), applier.next());
        Ok(Opened::Ready(store, Box::new(applier)))
    }

    /// Gives up what the store holds. Nobody may hold it any more but calls that end soon.
    async fn begin_anew(&self) -> Result<Store, ViewError> {
        self.answer_from(None);
        self.board.set_anew();
        let directory = self.options.directory.clone();
        self.env.blocking(move || Store::give_up(&directory)).await?;
        Ok(open(&self.env, &self.options).await?)
    }

    fn answer_from(&self, desk: Option<Desk>) {
        let before = std::mem::replace(&mut *self.desk.write().expect("nothing panics while it holds this"), desk);
        if let Some(before) = before {
            before.close();
        }
    }
}

/// Opens a view's directory.
async fn open(env: &Env, options: &ViewOptions) -> Result<Store, OpenError> {
    let give_up = env.now() + CLOSING_MAX;
    loop {
        let ViewOptions { cluster, serves, directory, store, .. } = options.clone();
        match env.blocking(move || Store::open(&directory, &cluster, &serves, &store)).await {
            Err(OpenError::InUse { .. }) if env.now() < give_up => env.sleep(CLOSING_PAUSE).await,
            opened => return opened,
        }
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
