//! Answers clients: appends what they change to the log, and answers what they ask with facts from views.
//!
//! An api node keeps nothing. It learns from DNS who the log nodes and views are, and from the views what
//! they hold and how far they are. A query becomes questions about facts and texts at one version
//! ([`lookup`]); a question is cut into parts that cover its points ([`cover`]), each asked of a view
//! ([`choose`]), and of another when that is late or fails ([`hedge`]); a view that stays silent or slow is left
//! out for a while ([`eject`]). [`fanout`] does what these decide. A change becomes one entry of the log
//! ([`transact`], [`update`]), and what became of it is asked of any view. Who watches
//! is told what the log holds and what that changed ([`watch`]).
//!
//! What it promises:
//! - an answer is of one version, all of it, and says which; a part that fails is asked again elsewhere, or
//!   the whole query fails: it is never answered in part;
//! - a change is acknowledged when it is in the log and every view will commit it, and not before;
//! - whoever is slow is asked around, at the cost of a twentieth more requests at most; losers are told to
//!   stop at once;
//! - more work than it can do is refused at once (`Overloaded`, [`admit`]), and so are writes that the views could
//!   not follow ([`lag`]).
//!
//! Besides, api nodes shorten the log: what all views have on their disks is let go of ([`shorten`], [`discard`]).
//!
//! What it never does: it has no disk, it decides no order of changes, and it looks into no view's state but
//! by asking.
//!
//! What is missing: counts for planning queries, and reading a very common object on all
//! partitions at once.

pub mod admit;
pub mod choose;
pub mod cover;
pub mod eject;
pub mod fanout;
pub mod hedge;
pub mod lag;
pub mod latest;
pub mod lookup;
pub mod position;
pub mod shorten;

mod committed;
mod discard;
mod query;
mod resolve;
mod serve;
mod status;
mod transact;
mod update;
mod watch;

use crate::query::Limits;
use crate::remote::log::{Appender, RemoteLog};
use crate::remote::view::RemoteViews;
use admit::{Admission, AdmitOptions};
use beam_wire::Name;
use beam_wire::env::{Env, Task};
use beam_wire::quic::{Directory, Peers};
use fanout::Fanout;
use lag::Lag;
use latest::Latest;
use lookup::TextCache;
use shorten::ShortenOptions;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What an api node may use.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// How much work it takes at once.
    pub admit: AdmitOptions,
    /// Ask another view when one is late, and leave out those that are silent or slow.
    pub hedging: bool,
    /// Texts of terms that are kept for later queries, in bytes.
    pub texts_bytes: usize,
    /// What one query may use.
    pub limits: Limits,
    /// How much of the log is kept.
    pub shorten: ShortenOptions,
}

impl ApiOptions {
    /// With all defaults, in this cluster.
    pub fn new(shorten: ShortenOptions) -> Self {
        let (admit, limits) = (AdmitOptions::default(), Limits::default());
        Self { admit, hedging: true, texts_bytes: 64 << 20, limits, shorten }
    }
}

/// The api role of a node.
pub struct ApiRole {
    env: Env,
    options: ApiOptions,
    node: Name,
    datacenter: Name,
    directory: Directory,
    log: RemoteLog,
    latest: Latest,
    watchers: Semaphore,
    looking_back: Semaphore,
    appender: Appender,
    views: RemoteViews,
    fanout: Fanout<RemoteViews>,
    texts: TextCache,
    admission: Admission,
    lag: Mutex<Lag>,
    started: Instant,
    _shortening: Task,
}

impl ApiRole {
    /// Begins to follow the views that the directory names. Calls can be served at once; they wait a moment
    /// for the views. From time to time it looks whether the log can be shortened.
    pub fn start(
        env: &Env,
        options: ApiOptions,
        node: Name,
        datacenter: Name,
        peers: Peers,
        directory: Directory,
        log: RemoteLog,
    ) -> Arc<ApiRole> {
        let views = RemoteViews::start(env, peers, directory.clone(), datacenter.clone());
        let shortening = discard::take_turns(env.clone(), log.clone(), views.clone(), options.shorten.clone());
        Arc::new(ApiRole {
            _shortening: env.tasks().serve("api.shorten", shortening),
            env: env.clone(),
            node,
            datacenter,
            directory,
            appender: log.appender(),
            watchers: Semaphore::new(watch::WATCHERS_MAX),
            looking_back: Semaphore::new(committed::READERS_MAX),
            latest: Latest::new(env, resolve::looks(env.clone(), log.clone())),
            log,
            fanout: Fanout::new(env.clone(), views.clone(), options.hedging),
            views,
            texts: TextCache::new(options.texts_bytes),
            admission: Admission::new(env, options.admit.clone()),
            lag: Mutex::default(),
            started: env.now(),
            options,
        })
    }
}
