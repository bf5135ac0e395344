//! A connection to a cluster, whichever of its api nodes answers.

use crate::answer::{Answer, Everything, Replies};
use crate::error::ClientError;
use crate::nodes::Standing;
use crate::pace::{Budget, Lateness};
use crate::reach::Changes;
use crate::session::Session;
use beam_wire::command::{Builder, Command, FACTS_MAX, FORMAT, TERMS_MAX, Transact};
use beam_wire::env::Env;
use beam_wire::message::api::{
    ApiCommitted, ApiLoad, ApiLoadReply, ApiQuery, ApiStatus, ApiStatusReply, ApiTransact, ApiUpdate, CommittedReply,
    Outcome, TransactReply,
};
use beam_wire::message::hello::Hello;
use beam_wire::message::log::BODY_BYTES_MAX;
use beam_wire::quic::{
    CallOptions, Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, NodeAddress, Peer, Peers, Service,
    Tls,
};
use beam_wire::topology::Topology;
use beam_wire::{CallError, Code, Identity, Name, Position, Role, TransactionId, Version};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How to find a cluster, and who asks.
#[derive(Clone)]
pub struct ClientOptions {
    zone: String,
    pub(crate) datacenters: Vec<Name>,
    tls: Tls,
    timeout: Duration,
    bind: Option<SocketAddr>,
    directory: DirectoryOptions,
}

impl ClientOptions {
    /// The cluster of a DNS zone, its datacenters in order of preference, and our certificate.
    pub fn new(zone: &str, datacenters: Vec<Name>, tls: Tls) -> ClientOptions {
        let timeout = Duration::from_secs(30);
        let directory = DirectoryOptions::default();
        ClientOptions { zone: zone.to_owned(), datacenters, tls, timeout, bind: None, directory }
    }

    /// The cluster of a topology. Its datacenters are preferred in the order of the file: see
    /// [`ClientOptions::prefer`].
    pub fn of(topology: &Topology, tls: Tls) -> ClientOptions {
        ClientOptions::new(&topology.zone, topology.datacenters.clone(), tls)
    }

    /// Asks api nodes of this datacenter first.
    pub fn prefer(mut self, datacenter: &Name) -> ClientOptions {
        self.datacenters.retain(|dc| dc != datacenter);
        self.datacenters.insert(0, datacenter.clone());
        self
    }

    /// How long a call may take, with all its retries. 30 seconds if nothing is said.
    pub fn timeout(mut self, timeout: Duration) -> ClientOptions {
        self.timeout = timeout;
        self
    }

    /// The local address to send from, instead of any.
    pub fn bind(mut self, address: SocketAddr) -> ClientOptions {
        self.bind = Some(address);
        self
    }

    /// How often to ask DNS.
    pub fn directory(mut self, options: DirectoryOptions) -> ClientOptions {
        self.directory = options;
        self
    }
}

/// A connection to a cluster, whichever of its api nodes answers. Clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
    /// When the call ends of which the calls of this copy are parts.
    ends: Option<Instant>,
}

pub(crate) struct Inner {
    pub(crate) env: Env,
    pub(crate) began: Instant,
    pub(crate) options: ClientOptions,
    endpoint: Endpoint,
    pub(crate) peers: Peers,
    pub(crate) directory: Directory,
    pub(crate) standing: Mutex<Standing>,
    /// Of reads, and of writes.
    lateness: [Mutex<Lateness>; 2],
    /// Of attempts after the second, and of second requests because a first is late.
    budgets: [Mutex<Budget>; 2],
    /// The newest version that any call learnt of, and when.
    newest: Mutex<Option<(Version, Instant)>>,
}

/// How long DNS may take to name an api node at the start.
const DNS_PATIENCE: Duration = Duration::from_secs(10);

/// Ids are born at an index that is at most this old: far younger than the window in which the cluster knows
/// ids.
const NEWEST_AGE_MAX: Duration = Duration::from_secs(5);

impl Client {
    /// Finds the cluster's api nodes. Connections to them are made when they are needed.
    ///
    /// # Errors
    /// When no socket can be opened, or DNS names no api node.
    pub async fn connect(env: Env, options: ClientOptions) -> Result<Client, ClientError> {
        let directory =
            Directory::start(&env, &options.zone, options.datacenters.clone(), &[Role::Api], options.directory.clone());
        directory.ready(&env, DNS_PATIENCE.min(options.timeout)).await?;
        let bind = options.bind.unwrap_or_else(|| any_address(&directory.nodes_everywhere(Role::Api)));
        let endpoint = Endpoint::open(&env, bind, options.tls.clone(), EndpointOptions::wan(env.random()))?;
        let service = Arc::new(Caller { hello: hello(&options.tls.identity, env.random_u64()) });
        let peers = Peers::start(env.clone(), endpoint.clone(), service);
        let (standing, newest, lateness) = (Mutex::default(), Mutex::default(), Default::default());
        let (began, timeout) = (env.now(), options.timeout);
        let budgets = [Budget::of_attempts(), Budget::of_seconds()].map(Mutex::new);
        let inner = Inner { env, began, options, endpoint, peers, directory, standing, lateness, budgets, newest };
        Ok(Client { inner: Arc::new(inner), timeout, ends: None })
    }

    /// The same client, each of whose calls may take so long, with all its retries. It shares everything else.
    ///
    /// ```no_run
    /// use beam_client::Position;
    /// use std::time::Duration;
    /// # async fn example(client: beam_client::Client) -> Result<(), beam_client::ClientError> {
    /// let hasty = client.within(Duration::from_millis(300));
    /// let answer = hasty.query_all("ASK { <urn:alice> ?p ?o }", Position::Recent).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn within(&self, timeout: Duration) -> Client {
        Client { inner: self.inner.clone(), timeout, ends: self.ends }
    }

    /// The same client for one call that takes several: together they may take as long as one.
    pub(crate) fn for_one_call(&self) -> Client {
        Client { ends: Some(self.deadline()), ..self.clone() }
    }

    /// When a call that begins now has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        let own = self.inner.env.now() + self.timeout;
        self.ends.map_or(own, |ends| ends.min(own))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn budgets(&self) -> &[Mutex<Budget>; 2] {
        &self.inner.budgets
    }

    pub(crate) fn lateness(&self, changes: Changes) -> &Mutex<Lateness> {
        &self.inner.lateness[usize::from(changes != Changes::Nothing)]
    }

    pub(crate) fn forget_newest(&self) {
        *lock(&self.inner.newest) = None;
    }

    /// Begins a session, which reads its own writes.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), None)
    }

    /// Goes on with a session from what another one has [`Session::seen`], perhaps in another process.
    pub fn session_from(&self, seen: Version) -> Session {
        Session::new(self.clone(), Some(seen))
    }

    /// Asks a SPARQL query. Returns when the first rows are there; the rest comes as it is read.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a query that is none, needs too much, or asks for a version that cannot
    /// be read; [`ClientError::EpochChanged`] when that version's epoch is over; [`ClientError::Unavailable`] when nobody
    /// answers in time.
    pub async fn query(&self, sparql: &str, position: Position) -> Result<Answer, ClientError> {
        let request = ApiQuery { sparql: sparql.to_owned(), base_iri: None, position };
        let answer = self
            .anywhere(Changes::Nothing, |peer, deadline| {
                let (request, env) = (request.clone(), self.inner.env.clone());
                Box::pin(async move {
                    let replies = peer.call(&request, CallOptions { deadline: Some(deadline) }).await?;
                    let replies = Replies::Query(replies);
                    Answer::begin(peer.info().hello.name.clone(), env, replies, deadline).await
                })
            })
            .await?;
        self.learnt(answer.version());
        Ok(answer)
    }

    /// As [`Client::query`], all at once: for answers that fit into memory.
    ///
    /// # Errors
    /// As [`Client::query`]; [`ClientError::BrokenOff`] when the answer ends before its end.
    pub async fn query_all(&self, sparql: &str, position: Position) -> Result<Everything, ClientError> {
        self.query(sparql, position).await?.all().await
    }

    /// Makes a SPARQL update: one transaction, whatever number of operations it has. When others write what
    /// its conditions read, it is tried again with what they wrote.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for what is no update or needs too much; [`ClientError::OutcomeUnknown`]
    /// when it was sent and no answer came in time; [`ClientError::Unavailable`] when it could not even be
    /// sent. When others kept writing what it reads until its time was over, it is refused with
    /// [`beam_wire::Code::Conflict`], and has changed nothing.
    pub async fn update(&self, sparql: &str) -> Result<Outcome, ClientError> {
        self.update_at_least(sparql, None).await
    }

    /// The same under an id that the caller has kept, from [`Client::new_id`]: whoever calls again with it, after an
    /// unknown outcome or after a crash, makes the update once. Of one that had been made before this call, the
    /// outcome says no attempts.
    ///
    /// # Errors
    /// As [`Client::update`]; [`ClientError::OutcomeUnknown`] also when the id is too old to be known.
    pub async fn update_as(&self, id: TransactionId, sparql: &str) -> Result<Outcome, ClientError> {
        let client = self.for_one_call();
        if let (_, Some(version)) = client.committed(id).await? {
            return Ok(Outcome { version, attempts: 0 });
        }
        client.update_with(id, sparql, None).await
    }

    pub(crate) async fn update_at_least(
        &self,
        sparql: &str,
        at_least: Option<Version>,
    ) -> Result<Outcome, ClientError> {
        let client = self.for_one_call();
        let id = client.new_id().await?.1;
        client.update_with(id, sparql, at_least).await
    }

    async fn update_with(
        &self,
        id: TransactionId,
        sparql: &str,
        at_least: Option<Version>,
    ) -> Result<Outcome, ClientError> {
        let request = ApiUpdate { sparql: sparql.to_owned(), base_iri: None, id, at_least };
        let outcome = self
            .anywhere(Changes::Planned(id), |peer, deadline| {
                let request = request.clone();
                Box::pin(async move { peer.ask(&request, deadline).await })
            })
            .await?;
        self.learnt(outcome.version);
        Ok(outcome)
    }

    /// Deletes and inserts facts, whatever is there: quicker than an update, and exact about terms.
    ///
    /// ```no_run
    /// use beam_client::{Builder, Term};
    /// # async fn example(client: beam_client::Client) -> Result<(), beam_client::ClientError> {
    /// let iri = |text: &str| Term::Iri(text.to_owned());
    /// let mut facts = Builder::new();
    /// facts.insert([iri("urn:alice"), iri("urn:name"), Term::string("Alice")], None)?;
    /// facts.delete([iri("urn:alice"), iri("urn:name"), Term::string("alice")], None)?;
    /// let version = client.write(facts).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::update`]; [`ClientError::TooLarge`] when the facts do not fit into one entry of the log.
    pub async fn write(&self, facts: Builder) -> Result<Version, ClientError> {
        let client = self.for_one_call();
        let planned = client.plan(facts).await?;
        client.carry_out(&planned).await
    }

    /// Gives a write its id, with which it can be sent as often as need be.
    pub(crate) async fn plan(&self, facts: Builder) -> Result<Planned, ClientError> {
        let (version, id) = self.new_id().await?;
        let command = encode(facts.build(version.epoch, id, version.index, Vec::new()))?;
        Ok(Planned { id, command })
    }

    /// Sends a write. However often that is done, it happens once.
    pub(crate) async fn carry_out(&self, Planned { id, command }: &Planned) -> Result<Version, ClientError> {
        let client = self.for_one_call();
        match client.append(*id, command.clone(), false).await {
            // It depends on nothing that was read. Its id stays, so that it happens once even if an earlier attempt
            // was kept.
            Err(ClientError::EpochChanged { .. }) => {
                let now = client.query("ASK {}", Position::Latest).await?.version();
                let Command::Transact(mut transact) = Command::decode(command)? else {
                    unreachable!("it was made of a transaction above")
                };
                (transact.epoch, transact.read_index) = (now.epoch, now.index);
                Ok(client.transact(transact, false).await?.version)
            }
            other => Ok(other?.version),
        }
    }

    /// Appends a transaction that the caller has made, with its id and what it read. With `wait`, returns
    /// when views have applied it. Sent as often as needed; its id makes it happen once.
    ///
    /// # Errors
    /// As [`Client::update`]; [`beam_wire::Code::Conflict`] when what it read was written since;
    /// [`ClientError::TooLarge`] when it does not fit into one entry of the log.
    pub async fn transact(&self, transact: Transact, wait: bool) -> Result<TransactReply, ClientError> {
        let id = transact.id;
        self.append(id, encode(transact)?, wait).await
    }

    async fn append(&self, id: TransactionId, command: Bytes, wait: bool) -> Result<TransactReply, ClientError> {
        let request = ApiTransact { command, wait };
        let reply = self
            .anywhere(Changes::Same(id), |peer, deadline| {
                let request = request.clone();
                Box::pin(async move { peer.ask(&request, deadline).await })
            })
            .await?;
        self.learnt(reply.version);
        Ok(reply)
    }

    /// Whether the transaction with an id was committed, and as of which version that was found out: for those who
    /// got [`ClientError::OutcomeUnknown`]. What is still on its way to the log may be committed after that version;
    /// a transaction that is made again with the same id happens once whatever comes.
    ///
    /// # Errors
    /// [`ClientError::OutcomeUnknown`] when the id is too old to be known; [`ClientError::Unavailable`].
    pub async fn committed(&self, id: TransactionId) -> Result<(Version, Option<Version>), ClientError> {
        let ask = ApiCommitted { id };
        let calling = self.anywhere(Changes::Nothing, |peer, deadline| {
            let ask = ask.clone();
            Box::pin(async move { peer.ask(&ask, deadline).await })
        });
        match calling.await {
            Ok(CommittedReply { at, committed }) => {
                self.learnt(at);
                Ok((at, committed.map(|index| Version { index, ..at })))
            }
            Err(ClientError::Refused { node, error }) if error.code == Code::OutcomeUnknown => {
                Err(ClientError::OutcomeUnknown { id, last: Some(Box::new((node, error))) })
            }
            Err(error) => Err(error),
        }
    }

    /// What an api node sees of the cluster.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no api node answers in time.
    pub async fn status(&self) -> Result<ApiStatusReply, ClientError> {
        self.anywhere(Changes::Nothing, |peer, deadline| Box::pin(async move { peer.ask(&ApiStatus, deadline).await }))
            .await
    }

    /// How much an api node has to do and has done since it started, which views it leaves out, and which node it is:
    /// whichever answers.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no api node answers in time; [`ClientError::NodeTooOld`] when none can tell.
    pub async fn api_load(&self) -> Result<(Name, ApiLoadReply), ClientError> {
        let ask = |peer: Peer, deadline| -> BoxFuture<'_, _> {
            Box::pin(async move { Ok((peer.info().hello.name.clone(), peer.ask(&ApiLoad, deadline).await?)) })
        };
        self.anywhere(Changes::Nothing, ask).await
    }

    /// A version that the cluster has reached, at most a few seconds old; and an id for a transaction, born
    /// there.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no api node answers in time.
    pub async fn new_id(&self) -> Result<(Version, TransactionId), ClientError> {
        let known = *lock(&self.inner.newest);
        let version = match known {
            Some((version, learnt)) if self.inner.env.now() - learnt < NEWEST_AGE_MAX => version,
            _ => self.query("ASK {}", Position::Recent).await?.version(),
        };
        Ok((version, TransactionId::new(version.index, self.inner.env.random_u128())))
    }

    /// Where the client gets its clock and chance.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Ends all connections, and tells the nodes. Calls that are under way fail.
    pub async fn close(&self) {
        self.inner.endpoint.close("the client is done").await;
    }

    pub(crate) fn learnt(&self, version: Version) {
        let now = self.inner.env.now();
        let mut newest = lock(&self.inner.newest);
        match *newest {
            Some((old, _)) if (old.epoch, old.index) > (version.epoch, version.index) => {}
            _ => *newest = Some((version, now)),
        }
    }
}

/// A write that has its id.
pub(crate) struct Planned {
    id: TransactionId,
    command: Bytes,
}

/// The transaction as it is appended, if it fits into an entry of the log.
fn encode(transact: Transact) -> Result<Bytes, ClientError> {
    let (deletes, inserts, terms) = (transact.deletes.len(), transact.inserts.len(), transact.terms.len());
    let within = |what, count, max| match count <= max {
        true => Ok(()),
        false => Err(ClientError::TooLarge { what, count, max }),
    };
    within("deleted facts", deletes, FACTS_MAX)?;
    within("inserted facts", inserts, FACTS_MAX)?;
    within("terms", terms, TERMS_MAX)?;
    let body = Command::Transact(transact).encode();
    within("bytes", body.len(), BODY_BYTES_MAX)?;
    Ok(body)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

/// Any local address of the family that the nodes have.
fn any_address(nodes: &[NodeAddress]) -> SocketAddr {
    let only_v6 = nodes.iter().flat_map(|n| &n.addresses).all(SocketAddr::is_ipv6);
    if only_v6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() }
}

/// A client calls, and answers nothing.
struct Caller {
    hello: Hello,
}

impl Service for Caller {
    fn hello(&self) -> Hello {
        self.hello.clone()
    }

    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), CallError>> {
        let message = format!("clients answer no calls, and so not {:?}", call.kind);
        Box::pin(std::future::ready(Err(CallError::never(Code::UnknownKind, message))))
    }
}

fn hello(identity: &Identity, boot: u64) -> Hello {
    let (cluster, name, datacenter, roles) = match identity {
        Identity::Client { cluster, name, role } => (cluster, name, None, vec![role.to_string()]),
        // A node may ask as a client does: roles are what its certificate says.
        Identity::Node { cluster, datacenter, node, roles } => {
            (cluster, node, Some(datacenter.clone()), roles.iter().map(Role::to_string).collect())
        }
    };
    Hello {
        cluster: cluster.clone(),
        epoch: None,
        name: name.clone(),
        datacenter,
        roles,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        format: FORMAT,
        serves: Vec::new(),
        boot,
    }
}
