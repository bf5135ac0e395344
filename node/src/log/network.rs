//! openraft's network: what this node sends to the other log nodes, and what both ends check first.
//!
//! A message goes to a node *name*: [`Peers`] refuses a peer whose certificate names another node, and
//! the receiver compares the [`Envelope`] with itself and with the sender's certificate. So a lie in DNS
//! costs availability at most: nobody's acknowledgement counts as another's.
//!
//! Replication is pipelined: one ordered stream carries requests as openraft makes them, and the answers
//! come back in their order. Nothing here answers in a peer's name, but for what a voter has said when it
//! voted: where its log ends ([`Search`]), and that it follows this leader ([`Client::has_accepted`]).

use super::search::Search;
use super::store::LogStore;
use super::types::{LogId, LogNode, LogTypes, Snapshot, SnapshotData, SnapshotMeta, StoredMembership, Vote};
use beam_wire::codec;
use beam_wire::env::{Env, Task};
use beam_wire::error::{CallError, Code};
use beam_wire::identity::Identity;
use beam_wire::ids::Name;
use beam_wire::message::Call;
use beam_wire::message::raft::{Envelope, RaftBytes, RaftHeartbeat, RaftPipe, RaftSnapshot, RaftTransfer, RaftVote};
use beam_wire::quic::directory::Directory;
use beam_wire::quic::{CallOptions, Lane, Peer, PeerInfo, Peers};
use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pauses between attempts to reach a peer that does not answer.
const BACKOFF: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// Where votes and heartbeats travel: not behind the entries that a slow follower is sent.
pub const QUICK: Lane = Lane::Calls;

/// What a [`RaftVote`] carries.
#[derive(Debug, Serialize, Deserialize)]
pub enum VoteBody {
    Vote(VoteRequest<LogTypes>),
    PreVote(VoteRequest<LogTypes>),
}

/// What opens a [`RaftHeartbeat`].
#[derive(Debug, Serialize, Deserialize)]
pub enum HeartbeatBody {
    /// One request of openraft's, answered.
    Ask(AppendEntriesRequest<LogTypes>),
    /// Items follow, each of which says "I lead under this vote". None is answered.
    Beats { vote: Vote },
}

/// What a [`RaftSnapshot`] carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotBody {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub data: SnapshotData,
}

/// What it takes to reach the other log nodes.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    cluster: Name,
    me: Name,
    peers: Peers,
    directory: Directory,
    store: LogStore,
    /// Why a sender was refused last.
    refused: Mutex<BTreeMap<Name, Misdirected>>,
    /// By Raft id, the newest vote that each voter gave us, and where its log ended then.
    voters: Mutex<BTreeMap<u64, (Vote, Option<LogId>)>>,
    /// By Raft id, the votes that openraft has not taken for a sign of life yet: see [`Client::has_accepted`].
    accepted: Mutex<BTreeMap<u64, Vote>>,
}

impl Network {
    pub fn new(env: Env, cluster: Name, me: Name, peers: Peers, directory: Directory, store: LogStore) -> Self {
        let (refused, voters, accepted) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { env, cluster, me, peers, directory, store, refused, voters, accepted }) }
    }

    /// A connection to a log node by name.
    pub async fn peer(&self, node: &Name, lane: Lane) -> Result<Peer, CallError> {
        let Some(address) = self.shared.directory.find(node) else {
            return Err(CallError::elsewhere(
                Code::Unavailable,
                format!("DNS names no address of the log node {node}"),
            ));
        };
        self.shared.peers.peer(&address.target(), lane).await
    }

    /// Asks another log node something, and waits no longer than `within` for the connection and the answer.
    pub async fn ask<C: Call>(&self, node: &Name, call: &C, within: Duration) -> Result<C::Reply, CallError> {
        let env = &self.shared.env;
        let deadline = env.now() + within;
        let asking = async { self.peer(node, QUICK).await?.ask(call, deadline).await };
        let late = |_| Err(CallError::elsewhere(Code::Deadline, format!("{node} does not answer within {within:?}")));
        env.timeout_at(deadline, asking).await.unwrap_or_else(late)
    }

    /// Whom a message is for, and from whom.
    pub fn envelope(&self, to: &Name, to_raft_id: u64) -> Envelope {
        Envelope {
            cluster: self.shared.cluster.clone(),
            epoch: self.shared.store.epoch(),
            from: self.shared.me.clone(),
            from_raft_id: self.shared.store.raft_id(),
            to: to.clone(),
            to_raft_id,
        }
    }

    /// Refuses a message that is not for this node, or not from whom it says. A node that was not born
    /// yet takes the epoch of the first that passes.
    pub fn check(
        &self,
        envelope: &Envelope,
        from: &PeerInfo,
        membership: &StoredMembership,
    ) -> Result<(), Misdirected> {
        let me = &self.shared;
        check(
            envelope,
            &from.identity,
            &Receiver {
                cluster: &me.cluster,
                node: &me.me,
                raft_id: me.store.raft_id(),
                epoch: me.store.epoch(),
                membership,
            },
        )
    }

    /// Remembers where a voter's log ended when it voted for us.
    fn voted(&self, voter: u64, vote: Vote, log_ends: Option<LogId>) {
        self.voters().insert(voter, (vote, log_ends));
        self.accepted().insert(voter, vote);
    }

    /// From now on only answers that are given now say that this node leads: somebody wants to know.
    pub fn ask_anew(&self) {
        self.accepted().clear();
    }

    fn accepted(&self) -> MutexGuard<'_, BTreeMap<u64, Vote>> {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a voter's log ended when it elected the leader of `vote`.
    fn log_ended(&self, voter: u64, vote: &Vote) -> Option<Option<LogId>> {
        let voters = self.voters();
        let (given, log_ends) = voters.get(&voter)?;
        (given.leader_id == vote.leader_id).then_some(*log_ends)
    }

    fn voters(&self) -> MutexGuard<'_, BTreeMap<u64, (Vote, Option<LogId>)>> {
        self.shared.voters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs why a message was refused; once, while its sender keeps on trying.
    pub fn tell_refused(&self, from: &PeerInfo, why: &Misdirected) {
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused.insert(from.identity.name().clone(), why.clone());
        if before.as_ref() != Some(why) {
            tracing::warn!("refused a Raft message of {} at {}: {why}", from.identity.name(), from.remote);
        }
    }
}

/// What a receiver of a Raft message knows of itself.
struct Receiver<'a> {
    cluster: &'a Name,
    node: &'a Name,
    raft_id: u64,
    epoch: Option<beam_wire::ids::Epoch>,
    membership: &'a StoredMembership,
}

/// Why a Raft message was refused before openraft saw it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misdirected {
    #[error("the sender is of cluster {theirs}, this is {mine}")]
    Cluster { theirs: Name, mine: Name },
    #[error("the message says that it is from {said}, the certificate says {certified}")]
    Sender { said: Name, certified: String },
    #[error("the Raft id {raft_id} is {member}'s, not {said}'s")]
    SenderId { raft_id: u64, member: Name, said: Name },
    #[error("the message is for {meant}, this is {me}")]
    Target { meant: Name, me: Name },
    #[error("the message is for the Raft id {meant}, which {node} no longer has: its disk was lost, it is {now} now")]
    TargetId { node: Name, meant: u64, now: u64 },
    #[error(
        "the message is of epoch {}, this node is in epoch {}: the log was recovered or restored, and one of the two was \
         left behind. `beam log recover` shows which, and sets its log aside", or_none(.theirs), or_none(.mine)
    )]
    Epoch { theirs: Option<u64>, mine: Option<u64> },
}

fn or_none(epoch: &Option<u64>) -> String {
    epoch.map_or("none".into(), |epoch| epoch.to_string())
}

impl From<Misdirected> for CallError {
    fn from(e: Misdirected) -> Self {
        let code = if matches!(e, Misdirected::Epoch { .. }) { Code::WrongEpoch } else { Code::Denied };
        CallError::never(code, e.to_string())
    }
}

fn check(envelope: &Envelope, certified: &Identity, me: &Receiver<'_>) -> Result<(), Misdirected> {
    if envelope.cluster != *me.cluster {
        return Err(Misdirected::Cluster { theirs: envelope.cluster.clone(), mine: me.cluster.clone() });
    }
    match certified {
        Identity::Node { node, .. } if *node == envelope.from => {}
        other => return Err(Misdirected::Sender { said: envelope.from.clone(), certified: other.to_string() }),
    }
    if envelope.to != *me.node {
        return Err(Misdirected::Target { meant: envelope.to.clone(), me: me.node.clone() });
    }
    if envelope.to_raft_id != me.raft_id {
        let (node, meant) = (me.node.clone(), envelope.to_raft_id);
        return Err(Misdirected::TargetId { node, meant, now: me.raft_id });
    }
    // A sender that our membership does not know yet may be a member by now; the name is certified.
    let member = me.membership.nodes().find(|(id, _)| **id == envelope.from_raft_id);
    if let Some((raft_id, member)) = member
        && member.node != envelope.from
    {
        let (member, said) = (member.node.clone(), envelope.from.clone());
        return Err(Misdirected::SenderId { raft_id: *raft_id, member, said });
    }
    match (envelope.epoch, me.epoch) {
        (Some(_), None) => Ok(()),
        (Some(theirs), Some(mine)) if theirs == mine => Ok(()),
        (theirs, mine) => Err(Misdirected::Epoch { theirs: theirs.map(|e| e.0), mine: mine.map(|e| e.0) }),
    }
}

impl RaftNetworkFactory<LogTypes> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &LogNode) -> Client {
        let (network, node) = (self.clone(), node.node.clone());
        Client { network, raft_id: target, node, heartbeat: false, searching: Searching::NotYet }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &LogNode) -> Client {
        Client { heartbeat: true, ..self.new_client(target, node).await }
    }
}

/// What openraft holds to speak with one member.
pub struct Client {
    network: Network,
    raft_id: u64,
    node: Name,
    heartbeat: bool,
    searching: Searching,
}

/// Whether openraft is still looking for where this member's log agrees with ours.
enum Searching {
    /// Nothing was asked yet.
    NotYet,
    /// The member has said enough when it voted.
    Here(Search),
    /// Only the member itself can answer.
    There,
}

type Appended = Result<StreamAppendResult<LogTypes>, RPCError<LogTypes>>;

impl Client {
    fn envelope(&self) -> Envelope {
        self.network.envelope(&self.node, self.raft_id)
    }

    /// One question, one answer, within `within`.
    async fn ask<C, R>(&self, within: Duration, call: impl FnOnce(Envelope) -> C) -> Result<R, CallError>
    where
        C: Call<Reply = RaftBytes>,
        R: DeserializeOwned,
    {
        let env = &self.network.shared.env;
        let deadline = env.now() + within;
        let late = |_| CallError::elsewhere(Code::Deadline, format!("{} does not answer", self.node));
        let peer = env.timeout_at(deadline, self.network.peer(&self.node, QUICK)).await.map_err(late)??;
        let reply = env.timeout_at(deadline, peer.ask(&call(self.envelope()), deadline)).await.map_err(late)??;
        Ok(codec::decode(&reply.0)?)
    }

    /// Whether this member has just voted for the leader that asks whether it is followed. Then the answer to
    /// the first such question is known, and openraft takes proposals a round trip sooner: it wants to have
    /// heard from a majority that it leads, and a majority has said so. That was a round trip ago, so it must
    /// prove nothing to whoever asks later: a linearizable read ends this before it asks ([`Network::ask_anew`]),
    /// and openraft counts for it only what is answered to questions that come after it.
    fn has_accepted(&self, request: &AppendEntriesRequest<LogTypes>) -> bool {
        let given = self.network.accepted().remove(&self.raft_id);
        given.is_some_and(|given| given.leader_id == request.vote.leader_id)
    }

    async fn ask_heartbeat(&self, request: AppendEntriesRequest<LogTypes>, within: Duration) -> Appended {
        if self.has_accepted(&request) {
            return Ok(Ok(request.prev_log_id));
        }
        let (prev, last) = (request.prev_log_id, request.entries.last().map(|e| e.log_id).or(request.prev_log_id));
        let body = RaftBytes(codec::encode(&HeartbeatBody::Ask(request)).into());
        let call = |envelope| RaftHeartbeat { envelope, body };
        let response: AppendEntriesResponse<LogTypes> = self.ask(within, call).await.map_err(unreachable)?;
        Ok(response.into_stream_result(prev, last))
    }

    async fn ask_vote(&self, body: VoteBody, within: Duration) -> Result<VoteResponse<LogTypes>, RPCError<LogTypes>> {
        let body = RaftBytes(codec::encode(&body).into());
        self.ask(within, |envelope| RaftVote { envelope, body }).await.map_err(unreachable)
    }
}

fn unreachable(e: CallError) -> RPCError<LogTypes> {
    RPCError::Unreachable(Unreachable::new(&e))
}

impl RaftNetworkV2<LogTypes> for Client {
    type SnapshotData = SnapshotData;

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<LogTypes>>>
    where
        S: Stream<Item = AppendEntriesRequest<LogTypes>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft backs off inside `input`: failing before asking it for a request would spin.
            let Some(mut first) = input.next().await else { return Ok(stream::empty().boxed()) };
            if self.heartbeat {
                let answer = self.ask_heartbeat(first, option.hard_ttl()).await?;
                return Ok(stream::iter([Ok(answer)]).boxed());
            }
            if let Some(answer) = self.search(&mut first).await.map_err(|e| RPCError::Network(NetworkError::new(&e)))? {
                return Ok(stream::iter([Ok(answer)]).boxed());
            }
            let answers = self.pipe(first, input).await.map_err(unreachable)?;
            Ok(answers.boxed())
        })
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<LogTypes>, RPCError<LogTypes>> {
        let body = RaftBytes(codec::encode(&HeartbeatBody::Ask(request)).into());
        let call = |envelope| RaftHeartbeat { envelope, body };
        self.ask(option.hard_ttl(), call).await.map_err(unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<LogTypes>, RPCError<LogTypes>> {
        let vote = request.vote;
        let answer = self.ask_vote(VoteBody::Vote(request), option.hard_ttl()).await?;
        if answer.vote_granted && answer.vote == vote {
            self.network.voted(self.raft_id, vote, answer.last_log_id);
        }
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<VoteResponse<LogTypes>, RPCError<LogTypes>> {
        self.ask_vote(VoteBody::PreVote(request), option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<LogTypes>, RPCError<LogTypes>> {
        let body = RaftBytes(codec::encode(&request).into());
        self.ask(option.hard_ttl(), |envelope| RaftTransfer { envelope, body }).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<LogTypes>, StreamingError<LogTypes>> {
        let body = SnapshotBody { vote, meta: snapshot.meta, data: snapshot.snapshot };
        let body = RaftBytes(codec::encode(&body).into());
        tokio::select! { biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = self.ask(option.hard_ttl(), |envelope| RaftSnapshot { envelope, body }) => {
                answer.map_err(|e| StreamingError::Network(NetworkError::new(&e)))
            }
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF[BACKOFF.len() - 1];
        Some(Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(last))))
    }
}

impl Client {
    /// Answers a request of openraft's search for where this member's log agrees with ours, if that is
    /// known. Else leaves out of the request what the member is known to hold.
    async fn search(
        &mut self,
        request: &mut AppendEntriesRequest<LogTypes>,
    ) -> io::Result<Option<StreamAppendResult<LogTypes>>> {
        let store = &self.network.shared.store;
        if matches!(self.searching, Searching::NotYet) {
            let search = match self.network.log_ended(self.raft_id, &request.vote) {
                Some(log_ends) => Search::begin(store, log_ends).await?,
                None => None,
            };
            self.searching = search.map_or(Searching::There, Searching::Here);
        }
        let Searching::Here(search) = &mut self.searching else { return Ok(None) };
        let answer = search.answer(store, request).await?;
        if answer.is_none() {
            search.trim(request);
            // What the member answers from now on is not known here.
            self.searching = Searching::There;
        }
        Ok(answer)
    }

    /// Sends requests as they come; the answers are to them, in their order.
    async fn pipe<S>(
        &self,
        first: AppendEntriesRequest<LogTypes>,
        mut input: S,
    ) -> Result<impl Stream<Item = Appended> + Send + use<S>, CallError>
    where
        S: Stream<Item = AppendEntriesRequest<LogTypes>> + OptionalSend + Unpin + 'static,
    {
        let peer = self.network.peer(&self.node, Lane::Raft).await?;
        let open = RaftPipe { envelope: self.envelope(), body: RaftBytes(bytes::Bytes::new()) };
        let (mut items, replies) = peer.call(&open, CallOptions::default()).await?.split();
        let node = self.node.clone();
        let writer = self.network.shared.env.tasks().serve("log.pipe", async move {
            let sent: Result<(), CallError> = async {
                items.send(&encode(&first)).await?;
                while let Some(request) = input.next().await {
                    items.send(&encode(&request)).await?;
                }
                items.finish().await
            }
            .await;
            // The reader of the answers learns it too, and tells openraft.
            if let Err(e) = sent {
                tracing::debug!("the pipe to {node} ended: {e}");
            }
        });
        Ok(stream::unfold(Some((replies, writer)), |open| async move {
            let (mut replies, writer): (_, Task) = open?;
            match replies.next().await {
                Ok(None) => None,
                Ok(Some(RaftBytes(bytes))) => match codec::decode(&bytes) {
                    Ok(answer) => Some((Ok(answer), Some((replies, writer)))),
                    Err(e) => Some((Err(unreachable(e.into())), None)),
                },
                Err(e) => Some((Err(unreachable(e)), None)),
            }
        }))
    }
}

fn encode<M: Serialize>(message: &M) -> RaftBytes {
    RaftBytes(codec::encode(message).into())
}

#[cfg(test)]
mod tests {
    use super::super::types::{Entry, LogCommand, LogId, Membership};
    use super::*;
    use beam_wire::identity::Role;
    use beam_wire::ids::{Epoch, Origin};
    use openraft::EntryPayload;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn node(node: &str) -> LogNode {
        LogNode { node: name(node), datacenter: name("va") }
    }

    fn certified(node: &str) -> Identity {
        let (cluster, datacenter) = (name("beam"), name("va"));
        Identity::Node { cluster, datacenter, node: name(node), roles: vec![Role::Log] }
    }

    fn membership() -> Membership {
        let nodes = BTreeMap::from([(1, node("a")), (2, node("b"))]);
        Membership::new(vec![[1, 2].into()], nodes).unwrap()
    }

    /// Node `a` gets what `change` makes of a right message of `b`.
    fn verdict(epoch: Option<u64>, certified: &Identity, change: impl Fn(&mut Envelope)) -> Result<(), String> {
        let mut envelope = Envelope {
            cluster: name("beam"),
            epoch: Some(Epoch(1)),
            from: name("b"),
            from_raft_id: 2,
            to: name("a"),
            to_raft_id: 1,
        };
        change(&mut envelope);
        let me = Receiver {
            cluster: &name("beam"),
            node: &name("a"),
            raft_id: 1,
            epoch: epoch.map(Epoch),
            membership: &StoredMembership::new(None, membership()),
        };
        check(&envelope, certified, &me).map_err(|e| e.to_string())
    }

    #[test]
    fn only_messages_for_this_node_from_whom_they_say_pass() {
        let b = certified("b");
        assert_eq!(verdict(Some(1), &b, |_| {}), Ok(()));
        assert_eq!(verdict(None, &b, |_| {}), Ok(()), "who is not born takes the epoch of the first");
        let refused =
            |certified: &Identity, change: &dyn Fn(&mut Envelope)| verdict(Some(1), certified, change).unwrap_err();
        type Change<'a> = &'a dyn Fn(&mut Envelope);
        let table: [(Change<'_>, &str); 6] = [
            (&|e| e.cluster = name("other"), "the sender is of cluster other, this is beam"),
            (&|e| e.to = name("c"), "the message is for c, this is a"),
            (
                &|e| e.to_raft_id = 9,
                "the message is for the Raft id 9, which a no longer has: its disk was lost, it is 1 now",
            ),
            (&|e| e.from_raft_id = 1, "the Raft id 1 is a's, not b's"),
            (
                &|e| e.epoch = Some(Epoch(2)),
                "the message is of epoch 2, this node is in epoch 1: the log was recovered or restored, and one of the two \
                 was left behind. `beam log recover` shows which, and sets its log aside",
            ),
            (
                &|e| e.epoch = None,
                "the message is of epoch none, this node is in epoch 1: the log was recovered or restored, and one of the \
                 two was left behind. `beam log recover` shows which, and sets its log aside",
            ),
        ];
        for (change, why) in table {
            assert_eq!(refused(&b, change), why);
        }
        let c = refused(&certified("c"), &|_| {});
        assert!(c.starts_with("the message says that it is from b, the certificate says "), "{c}");
        // Its node has lost its disk and drawn another id; nobody knows that one yet.
        assert_eq!(verdict(Some(1), &b, |e| e.from_raft_id = 77), Ok(()));
    }

    fn hex(message: &impl Serialize) -> String {
        codec::encode(message).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The bytes that log nodes of one release send to those of another.
    #[test]
    fn raft_messages_keep_their_bytes() {
        let vote = Vote::new_committed(3, 7);
        let id = |index| LogId::new(openraft::vote::RaftLeaderId::new(3, 7), index);
        let origin = Origin { node: name("a"), boot: 5, sequence: 6 };
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(LogCommand::Data { origin, body: "xyz".into() }),
            EntryPayload::Normal(LogCommand::Discard { before: 300 }),
            EntryPayload::Membership(membership()),
        ];
        let entries: Vec<Entry> = (5..).zip(payloads).map(|(i, payload)| Entry { log_id: id(i), payload }).collect();
        let append: AppendEntriesRequest<LogTypes> =
            AppendEntriesRequest { vote, prev_log_id: Some(id(4)), entries, leader_commit: None };
        let answer: StreamAppendResult<LogTypes> = Ok(Some(id(8)));
        let ask: VoteRequest<LogTypes> = VoteRequest { vote, last_log_id: Some(id(8)), leadership_transfer: false };
        let sent = [hex(&append), hex(&answer), hex(&VoteBody::PreVote(ask)), hex(&HeartbeatBody::Beats { vote })];
        let golden = [
            "0307010103070404030705000307060100016105060378797a0307070101ac02030708020102010202010161027661020162027661\
             00",
            "0001030708",
            "010307010103070800",
            "01030701",
        ];
        assert_eq!(sent, golden);
    }
}
