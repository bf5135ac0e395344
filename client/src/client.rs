//! A connection to a cluster, whichever of its api nodes answers.

use crate::answer::{Answer, Everything};
use crate::error::ClientError;
use crate::nodes::Standing;
use crate::session::Session;
use beam_wire::command::{Builder, Command, FORMAT, Transact};
use beam_wire::env::Env;
use beam_wire::error::Retry;
use beam_wire::message::api::{ApiQuery, ApiStatus, ApiStatusReply, ApiTransact, ApiUpdate, Outcome, TransactReply};
use beam_wire::message::hello::Hello;
use beam_wire::quic::{
    CallOptions, Directory, DirectoryOptions, Endpoint, EndpointOptions, Incoming, Lane, NodeAddress, Peer, Peers,
    Service, Tls,
};
use beam_wire::topology::Topology;
use beam_wire::{CallError, Code, Identity, Name, Position, Role, TransactionId, Version};
use futures::future::BoxFuture;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How to find a cluster, and who asks.
#[derive(Clone)]
pub struct ClientOptions {
    zone: String,
    datacenters: Vec<Name>,
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
}

struct Inner {
    env: Env,
    options: ClientOptions,
    endpoint: Endpoint,
    peers: Peers,
    directory: Directory,
    standing: Mutex<Standing>,
    /// The newest version that any call learnt of, and when.
    newest: Mutex<Option<(Version, Instant)>>,
}

/// How long DNS may take to name an api node at the start.
const DNS_PATIENCE: Duration = Duration::from_secs(10);

/// How long one api node may take to accept a connection, before the next is asked.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// Between two rounds over all api nodes; doubles up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

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
        let (standing, newest) = (Mutex::default(), Mutex::default());
        Ok(Client { inner: Arc::new(Inner { env, options, endpoint, peers, directory, standing, newest }) })
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
    /// be read; [`ClientError::Unavailable`] when nobody answers in time.
    pub async fn query(&self, sparql: &str, position: Position) -> Result<Answer, ClientError> {
        let request = ApiQuery { sparql: sparql.to_owned(), base_iri: None, position };
        let answer = self
            .anywhere(None, |peer, deadline| {
                let (request, env) = (request.clone(), self.inner.env.clone());
                Box::pin(async move {
                    let replies = peer.call(&request, CallOptions { deadline: Some(deadline) }).await?;
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
    /// sent.
    pub async fn update(&self, sparql: &str) -> Result<Outcome, ClientError> {
        self.update_at_least(sparql, None).await
    }

    pub(crate) async fn update_at_least(
        &self,
        sparql: &str,
        at_least: Option<Version>,
    ) -> Result<Outcome, ClientError> {
        let id = self.new_id().await?.1;
        let request = ApiUpdate { sparql: sparql.to_owned(), base_iri: None, id, at_least };
        let outcome = self
            .anywhere(Some(id), |peer, deadline| {
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
    /// As [`Client::update`]; [`beam_wire::Code::TooLarge`] when the facts do not fit into one entry of the
    /// log.
    pub async fn write(&self, facts: Builder) -> Result<Version, ClientError> {
        let (version, id) = self.new_id().await?;
        let mut transact = facts.build(version.epoch, id, version.index, Vec::new());
        match self.transact(transact.clone(), false).await {
            // It depends on nothing that was read. Its id stays, so that it happens once even if an earlier attempt
            // was kept.
            Err(ClientError::EpochChanged { .. }) => {
                let now = self.query("ASK {}", Position::Latest).await?.version();
                (transact.epoch, transact.read_index) = (now.epoch, now.index);
                Ok(self.transact(transact, false).await?.version)
            }
            other => Ok(other?.version),
        }
    }

    /// Appends a transaction that the caller has made, with its id and what it read. With `wait`, returns
    /// when views have applied it. Sent as often as needed; its id makes it happen once.
    ///
    /// # Errors
    /// As [`Client::update`]; [`beam_wire::Code::Conflict`] when what it read was written since.
    pub async fn transact(&self, transact: Transact, wait: bool) -> Result<TransactReply, ClientError> {
        let id = transact.id;
        let request = ApiTransact { command: Command::Transact(transact).encode(), wait };
        let reply = self
            .anywhere(Some(id), |peer, deadline| {
                let request = request.clone();
                Box::pin(async move { peer.ask(&request, deadline).await })
            })
            .await?;
        self.learnt(reply.version);
        Ok(reply)
    }

    /// What an api node sees of the cluster.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when no api node answers in time.
    pub async fn status(&self) -> Result<ApiStatusReply, ClientError> {
        self.anywhere(None, |peer, deadline| Box::pin(async move { peer.ask(&ApiStatus, deadline).await })).await
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

    fn learnt(&self, version: Version) {
        let now = self.inner.env.now();
        let mut newest = lock(&self.inner.newest);
        match *newest {
            Some((old, _)) if (old.epoch, old.index) > (version.epoch, version.index) => {}
            _ => *newest = Some((version, now)),
        }
    }

    /// Makes a call of one api node after another until one answers, or refuses for all. `write` is the id
    /// of a call that changes something.
    async fn anywhere<'a, T>(
        &'a self,
        write: Option<TransactionId>,
        call: impl Fn(Peer, Instant) -> BoxFuture<'a, Result<T, CallError>>,
    ) -> Result<T, ClientError> {
        let Inner { env, options, directory, standing, .. } = &*self.inner;
        let deadline = env.now() + options.timeout;
        let (mut sent, mut last) = (false, None);
        let mut pause = PAUSE_FIRST;
        while env.now() < deadline {
            let nodes = directory.nodes_everywhere(Role::Api);
            let mut random = |n| env.random_below(n);
            let order = lock(standing).order(nodes, &options.datacenters, env.now(), &mut random);
            for address in order {
                let node = address.node.clone();
                let peer = match self.dial(&address, deadline).await {
                    Ok(peer) => peer,
                    Err(error) => {
                        lock(standing).failed(&node, env.now());
                        last = Some((node, error));
                        continue;
                    }
                };
                let late = |_| Err(CallError::later(Code::Deadline, 0, "no answer came in time"));
                let error = match env.timeout_at(deadline, call(peer, deadline)).await.unwrap_or_else(late) {
                    Ok(answer) => {
                        lock(standing).answered(&node);
                        return Ok(answer);
                    }
                    Err(error) => error,
                };
                // Whoever is overloaded has done nothing. Of any other it cannot be known.
                sent |= error.code != Code::Overloaded;
                match error.retry {
                    _ if error.code == Code::Conflict => return Err(self.refused(write, node, error)),
                    Retry::Never => return Err(self.refused(write, node, error)),
                    // It is well, but busy: the pause between rounds is for it.
                    Retry::Later { after_ms } if error.code == Code::Overloaded => {
                        pause = pause.max(Duration::from_millis(after_ms.into()));
                    }
                    Retry::Later { .. } | Retry::Elsewhere | Retry::At(_) => lock(standing).failed(&node, env.now()),
                }
                // That time ran out says less than what went wrong before.
                let vague = matches!(error.code, Code::Deadline | Code::OutcomeUnknown | Code::Disconnected);
                if !vague || last.is_none() {
                    last = Some((node, error));
                }
                if env.now() >= deadline {
                    break;
                }
            }
            // With jitter: clients that lost the same node would otherwise all come back at once.
            let jittered = pause.mul_f64(0.5 + env.random_below(1000) as f64 / 1000.0);
            env.sleep_until((env.now() + jittered).min(deadline)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        match write {
            Some(id) if sent => Err(ClientError::OutcomeUnknown { id, last }),
            _ => Err(ClientError::Unavailable { after: options.timeout, last }),
        }
    }

    async fn dial(&self, address: &NodeAddress, deadline: Instant) -> Result<Peer, CallError> {
        let Inner { env, peers, .. } = &*self.inner;
        let late = |_| Err(CallError::elsewhere(Code::Unavailable, "it does not accept connections"));
        let patience = deadline.min(env.now() + DIAL_PATIENCE);
        env.timeout_at(patience, peers.peer(&address.target(), Lane::Calls)).await.unwrap_or_else(late)
    }

    fn refused(&self, write: Option<TransactionId>, node: Name, error: CallError) -> ClientError {
        match (write, error.code) {
            (Some(id), Code::OutcomeUnknown) => ClientError::OutcomeUnknown { id, last: Some((node, error)) },
            (_, code) => {
                if code == Code::WrongEpoch {
                    // What we knew belongs to the past.
                    *lock(&self.inner.newest) = None;
                    return ClientError::EpochChanged { node, error };
                }
                ClientError::Refused { node, error }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
