//! Calls that views answer: look-ups by batches of keys, at an exact version.

use super::{Call, Kind};
use crate::command::Verdict;
use crate::fact::{Fact, Pattern};
use crate::ids::{Epoch, LogIndex, Version};
use crate::space::{Range, Space};
use crate::sum::Sum;
use crate::term::{Term, TermId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Keys in one look-up: bounds what a view must hold for one call.
pub const KEYS_MAX: usize = 4096;

/// One range of one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Served {
    /// The space.
    pub space: Space,
    /// The range of it.
    pub range: Range,
}

/// Asks a view how it is; with `watch`, tells again whenever that changes (at most every 10 ms, at
/// least every second).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Go on telling.
    pub watch: bool,
}

/// What a view is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ViewState {
    /// Not caught up yet.
    Booting,
    /// Answers.
    Serving,
    /// Answers, and is about to stop: ask another.
    Draining,
    /// Its data is damaged. It answers nothing, and begins anew as soon as there is something to begin from.
    Damaged,
}

impl ViewState {
    /// Whether it answers look-ups.
    pub fn answers(self) -> bool {
        matches!(self, ViewState::Serving | ViewState::Draining)
    }
}

/// How a view is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewStatusReply {
    /// None until the first entry was applied.
    pub epoch: Option<Epoch>,
    /// What it holds.
    pub serves: Vec<Served>,
    /// What it is doing.
    pub state: ViewState,
    /// The oldest index that it can still read.
    pub oldest: LogIndex,
    /// The newest index that it can read. Entries are applied in order, so this is all of them.
    pub applied: LogIndex,
    /// The newest index that its disk holds.
    pub durable: LogIndex,
    /// The index of its newest verdict checkpoint.
    pub checkpoint: LogIndex,
    /// The newest index that its log node said is committed.
    pub committed: LogIndex,
    /// Live facts of the subject space, if it holds a range of it.
    pub facts: u64,
    /// W: how many indexes back verdicts are known.
    pub window: u64,
    /// Calls being answered now.
    pub calls: u32,
}

impl Call for ViewStatus {
    const KIND: Kind = Kind::ViewStatus;
    type Item = ();
    type Reply = ViewStatusReply;
}

/// Asks for all facts that match any of a batch of patterns, at one version. The view waits until
/// it has applied that version. A pattern may match facts at points that the view does not hold:
/// it answers for the points of `range` only, all of which it must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLookup {
    /// The version to read.
    pub at: Version,
    /// Which of the view's orders to use: `Subject` or `Object`.
    pub space: Space,
    /// Only facts at these points of `space`.
    pub range: Range,
    /// At most [`KEYS_MAX`].
    pub patterns: Vec<Pattern>,
}

/// Facts found. A call's chunks together hold each match once per pattern, in no promised order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupChunk {
    /// The number of the pattern in the request, and a fact that matches it.
    pub facts: Vec<(u32, Fact)>,
}

impl Call for ViewLookup {
    const KIND: Kind = Kind::ViewLookup;
    type Item = ();
    type Reply = LookupChunk;
}

/// Asks for the texts of terms. Ids whose value is in the id itself need not be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewTerms {
    /// The view waits until it has applied this version.
    pub at: Version,
    /// At most [`KEYS_MAX`].
    pub ids: Vec<TermId>,
}

/// Texts found; an id that the view does not know is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsChunk {
    /// The number of the id in the request, and its term.
    pub terms: Vec<(u32, Term)>,
}

impl Call for ViewTerms {
    const KIND: Kind = Kind::ViewTerms;
    type Item = ();
    type Reply = TermsChunk;
}

/// Asks what became of the entry at an index. The view waits until it has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewVerdict {
    /// The version whose newest entry is meant.
    pub at: Version,
}

impl Call for ViewVerdict {
    const KIND: Kind = Kind::ViewVerdict;
    type Item = ();
    type Reply = Verdict;
}

/// Entries in one [`ViewVerdicts`].
pub const VERDICTS_MAX: u64 = 8192;

/// Asks what became of a run of entries. The view waits until it has judged the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewVerdicts {
    /// Of the entries after this one, at most [`VERDICTS_MAX`] before `at`.
    pub after: LogIndex,
    /// Up to the newest entry of this version.
    pub at: Version,
}

/// What became of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictsChunk {
    /// Ascending; entries without data are left out.
    pub verdicts: Vec<(LogIndex, Verdict)>,
}

impl Call for ViewVerdicts {
    const KIND: Kind = Kind::ViewVerdicts;
    type Item = ();
    type Reply = VerdictsChunk;
}

/// Asks how many facts match each pattern, from counters where there are any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewCount {
    /// Counts may be of any version at or after this one.
    pub at: Version,
    /// As in [`ViewLookup`].
    pub space: Space,
    /// As in [`ViewLookup`].
    pub range: Range,
    /// As in [`ViewLookup`].
    pub patterns: Vec<Pattern>,
    /// Stop counting a pattern here.
    pub limit: u64,
}

/// A count for each pattern, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// At most the asked limit.
    pub counts: Vec<u64>,
}

impl Call for ViewCount {
    const KIND: Kind = Kind::ViewCount;
    type Item = ();
    type Reply = Counts;
}

/// Asks a view for a copy of what it holds of one space, as it was at one version: for a view that starts
/// without data. The view waits until it has applied that version. What comes is in no promised order of
/// intervals: whoever asks joins a scan that may be under way for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewCopy {
    /// The version to copy.
    pub at: Version,
    /// Facts of this space, or texts of terms.
    pub space: Space,
    /// Only what lies at these points, all of which the view must hold.
    pub range: Range,
    /// Only keys in these intervals: ascending, disjoint, at most [`INTERVALS_MAX`].
    pub wanted: Vec<KeyInterval>,
}

/// Intervals in one [`ViewCopy`].
pub const INTERVALS_MAX: usize = 4096;

/// The keys from `from` up to but without `to`, as bytes. The key of a fact is its term ids one after
/// another: subject, predicate, object in the subject space, and object, predicate, subject in the object
/// space; then its graph, unless that is the default graph. The key of a text is the id of its term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyInterval {
    /// The lowest key.
    pub from: Bytes,
    /// The first key that is beyond; none if none is.
    pub to: Option<Bytes>,
}

/// A piece of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyChunk {
    /// Of what was deleted at or before this index, versions may be missing.
    pub oldest: LogIndex,
    /// With this chunk, all of these keys were sent. None while more of them follows.
    pub done: Option<KeyInterval>,
    /// In the order of their keys.
    pub facts: Vec<CopiedFact>,
    /// In the order of their ids.
    pub terms: Vec<CopiedTerm>,
}

/// One version of a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFact {
    /// How many bytes its key has in common with the one before it in the chunk.
    pub shared: u8,
    /// The rest of its key.
    pub rest: Bytes,
    /// The index that inserted it.
    pub inserted: LogIndex,
    /// The index that deleted it; none if it is live.
    pub deleted: Option<LogIndex>,
}

/// The text of a term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedTerm {
    /// Its id.
    pub id: TermId,
    /// The term in postcard.
    pub text: Bytes,
}

impl Call for ViewCopy {
    const KIND: Kind = Kind::ViewCopy;
    type Item = ();
    type Reply = CopyChunk;
}

/// Asks a view for its newest verdict checkpoint: all that verdicts depend on, as it was at one index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewCheckpoint {
    /// The epoch that the caller knows of, if it knows of one.
    pub epoch: Option<Epoch>,
}

/// Pieces of a checkpoint, as views keep them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointChunk {
    /// The version that the checkpoint is of, in all of its chunks.
    pub at: Version,
    /// Keys and values.
    pub pieces: Vec<(Bytes, Bytes)>,
}

impl Call for ViewCheckpoint {
    const KIND: Kind = Kind::ViewCheckpoint;
    type Item = ();
    type Reply = CheckpointChunk;
}

/// Asks a view what the log has laid down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRules;

/// What the log has laid down, as far as the view has read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRulesReply {
    /// How far that is.
    pub at: LogIndex,
    /// The command format in force; none before the genesis.
    pub format: Option<u16>,
}

impl Call for ViewRules {
    const KIND: Kind = Kind::ViewRules;
    type Item = ();
    type Reply = ViewRulesReply;
}

/// Asks a view node for all the views that it holds: two while the data is cut anew. With `watch`, tells again
/// as [`ViewStatus`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInstances {
    /// Go on telling.
    pub watch: bool,
}

/// The views of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInstancesReply {
    /// By number.
    pub instances: Vec<Instance>,
    /// What the node's topology says that it holds.
    pub topology: Vec<Served>,
    /// Room on the disk that they lie on, where it is known; never told to watchers.
    pub free_bytes: Option<u64>,
}

/// One view among those of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its number on this node.
    pub number: u64,
    /// How it is.
    pub status: ViewStatusReply,
    /// How many versions of facts and texts it has copied so far; none if it is not copying.
    pub copied: Option<u64>,
    /// What it takes on disk, where it is known; never told to watchers.
    pub disk_bytes: Option<u64>,
}

impl Call for ViewInstances {
    const KIND: Kind = Kind::ViewInstances;
    type Item = ();
    type Reply = ViewInstancesReply;
}

/// Asks a view node how much it has to do, and has done since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLoad;

/// What a view node has to do and has done: look-ups, texts, verdicts and counts, of all its views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLoadReply {
    /// Calls being answered now.
    pub calls: u32,
    /// Calls that were answered to their end, or with an error.
    pub answered: u64,
    /// Calls that were broken off because whoever asked was gone, most often because another view was quicker.
    pub cancelled: u64,
    /// Calls that were refused because there was too much to do.
    pub refused: u64,
}

impl Call for ViewLoad {
    const KIND: Kind = Kind::ViewLoad;
    type Item = ();
    type Reply = ViewLoadReply;
}

/// Tells a view node to hold these ranges, as one view beside those that it has. It copies them from others,
/// and remembers over restarts that it was told. One that it has already is not begun again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewHold {
    /// Ranges that do not overlap within a space, at most [`RANGES_MAX`].
    pub serves: Vec<Served>,
}

/// Ranges of one view.
pub const RANGES_MAX: usize = 4096;

impl Call for ViewHold {
    const KIND: Kind = Kind::ViewHold;
    type Item = ();
    type Reply = ViewInstancesReply;
}

/// Tells a view node to let go of the view that holds exactly these ranges: it drains, then its data is deleted.
/// Refused unless another view of the node serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDrop {
    /// What it holds, so that a view that has come into its place since is not meant.
    pub serves: Vec<Served>,
}

impl Call for ViewDrop {
    const KIND: Kind = Kind::ViewDrop;
    type Item = ();
    type Reply = ViewInstancesReply;
}

/// Asks a view for hashes of all that it holds, as it was at one version: views of the same range have the same, and
/// so have the parts of other cuts together. The view waits until it has applied the version; if it has gone on too
/// far beyond, `TooOld` says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewVerify {
    /// What the view holds that is meant, as its status says: a node may have another by now.
    pub serves: Vec<Served>,
    /// The version.
    pub at: Version,
    /// Read all of its data, too, and compare it with what was applied. What was deleted after this index is told
    /// then. A view whose data is not what it has applied answers with `Storage`, and begins anew.
    pub scan: Option<LogIndex>,
}

/// Hashes of what a view holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewVerifyReply {
    /// Live facts with the index of their insertion, and texts: each range of the view, cut wherever a cut of all
    /// points into up to 32 equal parts does; in order.
    pub sums: Vec<RangeSum>,
    /// Slots and ids, from which verdicts are made.
    pub verdicts: Sum,
    /// What a scan has found, where it was asked for.
    pub scanned: Option<Scanned>,
}

/// The hash of what lies at some points of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSum {
    /// The points.
    pub served: Served,
    /// How many facts or texts there are.
    pub count: u64,
    /// Their hash.
    pub sum: Sum,
}

/// What was found by reading everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The earlier versions of facts that were deleted after the asked index, up to the version; cut as `sums`.
    pub past: Vec<RangeSum>,
    /// Of what was deleted at or before this index, versions may be missing: then `past` tells nothing.
    pub oldest: LogIndex,
    /// Facts, versions and texts that were read, in all orders.
    pub records: u64,
}

impl Call for ViewVerify {
    const KIND: Kind = Kind::ViewVerify;
    type Item = ();
    type Reply = ViewVerifyReply;
}
