//! Which role may make which call: one table, deny by default.

use super::Kind;
use crate::identity::{ClientRole, Identity, Role};

/// The calls that a node may make because it has a role. A node with several may make all of theirs.
pub fn node_calls(role: Role) -> &'static [Kind] {
    use Kind::*;
    const LOG: [Kind; 5] = [LogAppend, LogRead, LogTail, LogInfo, LogDiscard];
    match role {
        // Log nodes replicate, and forward to their leader what they are asked.
        Role::Log => &[
            Hello,
            RaftPipe,
            RaftVote,
            RaftSnapshot,
            RaftTransfer,
            RaftHeartbeat,
            LOG[0],
            LOG[1],
            LOG[2],
            LOG[3],
            LOG[4],
        ],
        // Views follow the log, and copy from views.
        Role::View => {
            &[Hello, LOG[0], LOG[1], LOG[2], LOG[3], LOG[4], ViewStatus, ViewLookup, ViewTerms, ViewVerdict, ViewCount]
        }
        Role::Api => &[
            Hello,
            LOG[0],
            LOG[1],
            LOG[2],
            LOG[3],
            LOG[4],
            ViewStatus,
            ViewLookup,
            ViewTerms,
            ViewVerdict,
            ViewCount,
            ApiQuery,
            ApiUpdate,
            ApiTransact,
            ApiStatus,
        ],
    }
}

/// The calls that a client may make.
pub fn client_calls(role: ClientRole) -> &'static [Kind] {
    use Kind::*;
    match role {
        ClientRole::Reader => &[Hello, ApiQuery, ApiStatus],
        ClientRole::Writer => &[Hello, ApiQuery, ApiStatus, ApiUpdate, ApiTransact],
        ClientRole::Admin => &[
            Hello,
            ApiQuery,
            ApiStatus,
            ApiUpdate,
            ApiTransact,
            LogAppend,
            LogRead,
            LogTail,
            LogInfo,
            LogDiscard,
            ViewStatus,
            ViewLookup,
            ViewTerms,
            ViewVerdict,
            ViewCount,
        ],
    }
}

/// Whether `caller` may make calls of this kind.
pub fn may(caller: &Identity, kind: Kind) -> bool {
    match caller {
        Identity::Node { roles, .. } => roles.iter().any(|role| node_calls(*role).contains(&kind)),
        Identity::Client { role, .. } => client_calls(*role).contains(&kind),
    }
}
