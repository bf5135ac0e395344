//! The carousel: one scan of what this view holds, from which any number of starting views copy.
//!
//! A rider gets on wherever the scan is just then, says which keys it lacks, and gets off when it has them
//! all: what was passed before it came it gets on the next round. Each has a few seats of luggage; while
//! they are full the scan goes on without it, and it gets what it missed on a later round. So nobody waits
//! for anybody. The scan runs while there are riders, skips what none of them lacks, and is read in slices of
//! a few milliseconds, each from a snapshot of its own: nothing on disk is kept from being let go of.

use super::copy::{Slice, Wanted};
use super::follow::FollowError;
use super::status::Board;
use super::store::{StorageError, Store};
use beam_wire::env::Env;
use beam_wire::message::view::{CopyChunk, KeyInterval};
use beam_wire::{CallError, Code, Space};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Slices that wait for a rider's network: some 2 MB.
const SEATS: usize = 4;

/// The scans of one view, one for each space. Cheap to clone.
#[derive(Clone)]
pub struct Carousel {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    store: Store,
    board: Arc<Board>,
    tracks: [Track; 3],
    bytes_per_second: Option<u64>,
    /// When the next slice may be sent.
    due: Mutex<Instant>,
    /// Slices that were read.
    slices: AtomicU64,
}

/// The scan of one space.
struct Track {
    state: Mutex<State>,
    /// Somebody got on or off, or has room again.
    changed: Notify,
}

#[derive(Default)]
struct State {
    riders: Vec<Rider>,
    next_rider: u64,
    turning: bool,
}

struct Rider {
    number: u64,
    wanted: Wanted,
    seats: mpsc::Sender<Result<Vec<CopyChunk>, CallError>>,
}

/// A rider's end. It gets off when this is dropped.
pub struct Ride {
    shared: Arc<Shared>,
    space: Space,
    seats: mpsc::Receiver<Result<Vec<CopyChunk>, CallError>>,
}

impl Carousel {
    /// It stands still until somebody rides. It sends no more than so many bytes a second to all together.
    pub fn new(env: Env, store: Store, board: Arc<Board>, bytes_per_second: Option<u64>) -> Carousel {
        let due = Mutex::new(env.now());
        let tracks = Space::ALL.map(|_| Track { state: Mutex::default(), changed: Notify::new() });
        Carousel {
            shared: Arc::new(Shared { env, store, board, tracks, bytes_per_second, due, slices: AtomicU64::new(0) }),
        }
    }

    /// Gets on. The view holds what is wanted, and has applied the version.
    pub fn ride(&self, space: Space, wanted: Wanted) -> Ride {
        let (sender, receiver) = mpsc::channel(SEATS);
        let track = self.shared.track(space);
        let starts = {
            let mut state = track.state();
            let number = state.next_rider;
            state.next_rider += 1;
            state.riders.push(Rider { number, wanted, seats: sender });
            !std::mem::replace(&mut state.turning, true)
        };
        if starts {
            self.shared.env.tasks().serve("view.carousel", turn(self.shared.clone(), space)).detach();
        }
        track.changed.notify_one();
        Ride { shared: self.shared.clone(), space, seats: receiver }
    }

    /// Slices that were read so far: for many riders hardly more than for one.
    pub fn slices(&self) -> u64 {
        self.shared.slices.load(Ordering::Relaxed)
    }

    /// As when the turning ends by a panic.
    #[cfg(test)]
    pub(super) fn break_down(&self, space: Space) {
        let track = self.shared.track(space);
        track.state().turning = true;
        drop(Turning { track, still: false });
    }
}

impl Ride {
    /// The next pieces; none once all is there.
    pub async fn next(&mut self) -> Result<Option<Vec<CopyChunk>>, CallError> {
        let next = self.seats.recv().await.transpose();
        self.shared.track(self.space).changed.notify_one();
        next
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.seats.close();
        self.shared.track(self.space).changed.notify_one();
    }
}

impl Shared {
    fn track(&self, space: Space) -> &Track {
        &self.tracks[space as usize]
    }

    /// Waits until more may be sent, after so many bytes were.
    async fn pace(&self, sent: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let due = {
            let mut due = self.due.lock().expect("nothing panics while it holds this");
            *due = (*due).max(self.env.now()) + Duration::from_secs_f64(sent as f64 / rate as f64);
            *due
        };
        self.env.sleep_until(due).await;
    }
}

impl Track {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this")
    }

    /// What to read next, from `position` on or else from the start; none when all who ride have no room. Ends
    /// the turning, by an error, when nobody rides.
    fn next(&self, position: &[u8]) -> Result<Option<Window>, Still> {
        let mut state = self.state();
        state.riders.retain(|rider| !rider.seats.is_closed() && !rider.wanted.keys.is_empty());
        if state.riders.is_empty() {
            state.turning = false;
            return Err(Still);
        }
        let ready: Vec<&Rider> = state.riders.iter().filter(|rider| rider.seats.capacity() > 0).collect();
        let lowest = |from: &[u8]| ready.iter().filter_map(|rider| rider.wanted.keys.next_from(from)).min();
        let Some(from) = lowest(position).or_else(|| lowest(&[])) else { return Ok(None) };
        // Beyond what all of these want here there is nothing to read.
        let here = KeyInterval { from: from.clone(), to: None };
        let ends = ready.iter().map(|rider| rider.wanted.keys.within(&here));
        let ends: Option<Vec<Bytes>> = ends.flatten().filter(|i| i.from == from).map(|i| i.to).collect();
        let window = KeyInterval { from, to: ends.and_then(|ends| ends.into_iter().max()) };
        Ok(Some((window, ready.iter().map(|rider| (rider.number, rider.wanted.clone())).collect())))
    }

    /// Gives riders what they wanted of a slice.
    fn hand_out(&self, pieces: Vec<(u64, Result<Vec<CopyChunk>, CallError>)>) {
        let mut state = self.state();
        for (number, pieces) in pieces {
            let Some(at) = state.riders.iter().position(|rider| rider.number == number) else { continue };
            let rider = &mut state.riders[at];
            for done in pieces.iter().flatten().filter_map(|chunk| chunk.done.as_ref()) {
                rider.wanted.keys.remove(done);
            }
            let failed = pieces.is_err();
            // A rider that got off meanwhile needs nothing.
            let _ = rider.seats.try_send(pieces);
            if failed {
                state.riders.remove(at);
            }
        }
    }
}

/// What to read next, and what those who have room want, by their numbers.
type Window = (KeyInterval, Vec<(u64, Wanted)>);

/// Nobody rides.
struct Still;

/// Lets the next rider start it anew when it did not end by itself: all who ride then go on elsewhere.
struct Turning<'a> {
    track: &'a Track,
    /// It has ended by itself.
    still: bool,
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        if self.still {
            return;
        }
        let mut state = self.track.state();
        state.turning = false;
        for rider in state.riders.drain(..) {
            let told = CallError::elsewhere(Code::Internal, "reading what this view holds came to an end: ask another");
            // Whoever has no seat free for the reason sees the ride end, with some of what it wanted missing.
            let _ = rider.seats.try_send(Err(told));
        }
    }
}

/// Turns while somebody rides.
async fn turn(shared: Arc<Shared>, space: Space) {
    let track = shared.track(space);
    let mut turning = Turning { track, still: false };
    let mut position = Bytes::new();
    loop {
        let (window, riders) = match track.next(&position) {
            Err(Still) => {
                turning.still = true;
                return;
            }
            Ok(None) => {
                track.changed.notified().await;
                continue;
            }
            Ok(Some(next)) => next,
        };
        let store = shared.store.clone();
        let all: Vec<u64> = riders.iter().map(|(number, _)| *number).collect();
        let read = shared.env.blocking(move || slice(&store, space, window, riders)).await;
        let (next, pieces, bytes) = match read {
            Ok(read) => read,
            Err(error) => {
                let told = CallError::elsewhere(Code::Storage, error.to_string());
                track.hand_out(all.into_iter().map(|number| (number, Err(told.clone()))).collect());
                shared.board.set_broken(FollowError::from(error));
                continue;
            }
        };
        shared.slices.fetch_add(1, Ordering::Relaxed);
        position = next.unwrap_or_default();
        track.hand_out(pieces);
        shared.pace(bytes).await;
    }
}

type Pieces = Vec<(u64, Result<Vec<CopyChunk>, CallError>)>;

/// Reads a slice, and what each rider wants of it: where the next one begins, the pieces, and their bytes.
fn slice(
    store: &Store,
    space: Space,
    window: KeyInterval,
    riders: Vec<(u64, Wanted)>,
) -> Result<(Option<Bytes>, Pieces, u64), StorageError> {
    let slice = Slice::read(&store.snapshot(), space, window.from, window.to)?;
    let mut bytes = 0;
    let pieces = riders.into_iter().map(|(number, wanted)| {
        if space != Space::Term && slice.oldest > wanted.at {
            let message = format!("this view holds versions from {} on, not {}", slice.oldest, wanted.at);
            return (number, Err(CallError::never(Code::TooOld, message)));
        }
        let chunks = slice.chunks(&wanted);
        bytes += chunks.iter().map(weight).sum::<u64>();
        (number, Ok(chunks))
    });
    let pieces = pieces.filter(|(_, pieces)| pieces.as_ref().map_or(true, |chunks| !chunks.is_empty())).collect();
    Ok((slice.of.to, pieces, bytes))
}

/// About how many bytes a chunk takes on the wire.
fn weight(chunk: &CopyChunk) -> u64 {
    let facts: usize = chunk.facts.iter().map(|fact| fact.rest.len() + 8).sum();
    let terms: usize = chunk.terms.iter().map(|term| term.text.len() + 20).sum();
    (facts + terms + 32) as u64
}
