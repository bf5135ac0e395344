//! How much room a disk has, and what a log node does about it: decided from numbers alone.
//!
//! Below the reserve no client's proposal is taken, but what is replicated is still written, so that a
//! discard can still be agreed upon and make room. When three quarters of the reserve are gone, the writer
//! waits. What is full is not well again before there is a little more room than it took to become so.

use std::fmt;

/// The room of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What may still be written.
    pub free_bytes: u64,
    /// All of it, used or not.
    pub total_bytes: u64,
}

/// What the room on a disk allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Everything.
    #[default]
    Enough,
    /// Writing what is replicated, but taking no proposals of clients.
    Reserve,
    /// Nothing but what makes room.
    Nothing,
}

impl Room {
    /// What the room that a disk has allows now, if it allowed `before` until now.
    pub fn judge(space: Space, reserve_bytes: u64, before: Room) -> Room {
        let reserve = reserve(space, reserve_bytes);
        // Else it would be full and not full in turns.
        let more = |already: bool| if already { reserve / 8 } else { 0 };
        if space.free_bytes < reserve / 4 + more(before == Room::Nothing) {
            Room::Nothing
        } else if space.free_bytes < reserve + more(before != Room::Enough) {
            Room::Reserve
        } else {
            Room::Enough
        }
    }

    /// Whether clients' proposals are refused.
    pub fn is_full(self) -> bool {
        self != Room::Enough
    }
}

/// The reserve that was asked for; of a small disk, a twentieth.
pub fn reserve(space: Space, reserve_bytes: u64) -> u64 {
    reserve_bytes.min(space.total_bytes / 20)
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB of {} MiB are free", self.free_bytes >> 20, self.total_bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_fills_up_and_is_emptied() {
        let mut room = Room::Enough;
        let story = [
            (2000, Room::Enough),
            (800, Room::Enough),
            (799, Room::Reserve),
            (850, Room::Reserve),
            (200, Room::Reserve),
            (199, Room::Nothing),
            (299, Room::Nothing),
            (300, Room::Reserve),
            (899, Room::Reserve),
            (900, Room::Enough),
            (0, Room::Nothing),
            (2000, Room::Enough),
        ];
        for (free_bytes, wanted) in story {
            room = Room::judge(Space { free_bytes, total_bytes: 1 << 20 }, 800, room);
            assert_eq!(room, wanted, "with {free_bytes} free");
        }
    }

    #[test]
    fn a_small_disk_has_a_small_reserve() {
        let small = Space { free_bytes: 51, total_bytes: 1000 };
        assert_eq!(Room::judge(small, 512 << 20, Room::Enough), Room::Enough);
        assert_eq!(Room::judge(Space { free_bytes: 49, ..small }, 512 << 20, Room::Enough), Room::Reserve);
    }
}
