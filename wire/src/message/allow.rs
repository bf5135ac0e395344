//! Which role may make which call: one table, deny by default.

use super::Kind;
use crate::identity::{ClientRole, Identity, Role};

/// Who may make a call of this kind: nodes with any of these roles, and clients with this role or a
/// higher one. A new kind must be decided here before it compiles.
fn callers(kind: Kind) -> (&'static [Role], Option<ClientRole>) {
    use Kind::*;
    use Role::*;
    match kind {
        Hello => (&[Log, View, Api], Some(ClientRole::Reader)),
        // Log nodes forward to their leader; views follow; api nodes append.
        LogAppend | LogRead | LogTail | LogInfo | LogDiscard | LogStatus => {
            (&[Log, View, Api], Some(ClientRole::Admin))
        }
        // Operators change members; a log node may ask for its own place back.
        LogChange => (&[Log], Some(ClientRole::Admin)),
        // What cannot be undone is an operator's.
        LogRecover => (&[], Some(ClientRole::Admin)),
        // Only log nodes vote and replicate; not even an operator speaks for one.
        RaftPipe | RaftVote | RaftSnapshot | RaftTransfer | RaftHeartbeat => (&[Log], None),
        ViewStatus | ViewLookup | ViewTerms | ViewVerdict | ViewVerdicts | ViewCount | ViewRules | ViewInstances
        | ViewLoad => (&[View, Api], Some(ClientRole::Admin)),
        // What a node holds is an operator's to say.
        ViewHold | ViewDrop => (&[], Some(ClientRole::Admin)),
        // Views copy from views, and compare what they have copied; so does whoever makes backups, and looks after views.
        ViewCopy | ViewCheckpoint | ViewVerify => (&[View], Some(ClientRole::Admin)),
        ApiQuery | ApiStatus | ApiLoad | ApiRead | ApiWatch => (&[Api], Some(ClientRole::Reader)),
        ApiUpdate | ApiTransact | ApiCommitted => (&[Api], Some(ClientRole::Writer)),
    }
}

/// Whether `caller` may make calls of this kind. A node with several roles may do what any of them may.
pub fn may(caller: &Identity, kind: Kind) -> bool {
    let (nodes, clients) = callers(kind);
    match caller {
        Identity::Node { roles, .. } => roles.iter().any(|role| nodes.contains(role)),
        Identity::Client { role, .. } => clients.is_some_and(|least| *role >= least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind against every caller, spelled out: L V A are node roles, r w a client roles.
    const TABLE: &str = "
        Hello          L V A  r w a
        LogAppend      L V A  - - a
        LogRead        L V A  - - a
        LogTail        L V A  - - a
        LogInfo        L V A  - - a
        LogDiscard     L V A  - - a
        LogStatus      L V A  - - a
        LogChange      L - -  - - a
        LogRecover     - - -  - - a
        RaftPipe       L - -  - - -
        RaftVote       L - -  - - -
        RaftSnapshot   L - -  - - -
        RaftTransfer   L - -  - - -
        RaftHeartbeat  L - -  - - -
        ViewStatus     - V A  - - a
        ViewLookup     - V A  - - a
        ViewTerms      - V A  - - a
        ViewVerdict    - V A  - - a
        ViewCount      - V A  - - a
        ViewCopy       - V -  - - a
        ViewCheckpoint - V -  - - a
        ViewRules      - V A  - - a
        ViewInstances  - V A  - - a
        ViewHold       - - -  - - a
        ViewDrop       - - -  - - a
        ViewVerdicts   - V A  - - a
        ViewVerify     - V -  - - a
        ViewLoad       - V A  - - a
        ApiQuery       - - A  r w a
        ApiUpdate      - - A  - w a
        ApiTransact    - - A  - w a
        ApiStatus      - - A  r w a
        ApiRead        - - A  r w a
        ApiWatch       - - A  r w a
        ApiCommitted   - - A  - w a
        ApiLoad        - - A  r w a
    ";

    fn identity(uri: &str) -> Identity {
        uri.parse().unwrap()
    }

    #[test]
    fn the_whole_table_holds() {
        let callers = [
            ("L", identity("spiffe://c/dc/d/node/n/role/log")),
            ("V", identity("spiffe://c/dc/d/node/n/role/view")),
            ("A", identity("spiffe://c/dc/d/node/n/role/api")),
            ("r", identity("spiffe://c/client/n/role/reader")),
            ("w", identity("spiffe://c/client/n/role/writer")),
            ("a", identity("spiffe://c/client/n/role/admin")),
        ];
        let rows: Vec<Vec<&str>> = TABLE
            .lines()
            .map(|line| line.split_whitespace().collect())
            .filter(|row: &Vec<_>| !row.is_empty())
            .collect();
        assert_eq!(rows.len(), Kind::ALL.len(), "a kind is missing in the table");
        for (kind, row) in Kind::ALL.into_iter().zip(rows) {
            assert_eq!(row[0], format!("{kind:?}"));
            for ((mark, caller), cell) in callers.iter().zip(&row[1..]) {
                assert_eq!(may(caller, kind), cell == mark, "{caller} calls {kind:?}");
            }
        }
    }

    #[test]
    fn a_node_with_two_roles_may_do_what_either_may() {
        let both = identity("spiffe://c/dc/d/node/n/role/log.view");
        assert!(may(&both, Kind::RaftVote) && may(&both, Kind::ViewLookup));
        assert!(!may(&both, Kind::ApiUpdate));
    }
}
