//! etcd, three members on this machine, each a process: the peer of the log. Spoken to in its own
//! protocol, gRPC over HTTP/2, over many connections.

use anyhow::{Context, Result, bail, ensure};
use beam_wire::env::{Env, Task};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the members may take to elect.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// What one stream or connection may receive without asking: far more than answers are.
const WINDOW: u32 = 1 << 20;

/// Three members on loopback, fsync on.
pub struct Etcd {
    env: Env,
    members: Vec<Child>,
    clients: Vec<SocketAddr>,
    _home: TempDir,
}

impl Etcd {
    /// Starts them with their own defaults, but for room on disk.
    pub async fn start(env: &Env, binary: &Path) -> Result<Etcd> {
        let home = tempfile::tempdir()?;
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        drop(held);
        let (clients, peers) = addresses.split_at(3);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(i, at)| format!("m{i}=http://{at}")).collect();
        let mut members = Vec::new();
        for i in 0..3 {
            let (client, peer) = (format!("http://{}", clients[i]), format!("http://{}", peers[i]));
            let member = Command::new(binary)
                .args(["--name", &format!("m{i}"), "--log-level", "error", "--quota-backend-bytes", "8589934592"])
                .args(["--data-dir".into(), home.path().join(format!("m{i}"))])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(home.path().join(format!("m{i}.stderr")))?)
                .spawn()
                .with_context(|| format!("cannot start {}", binary.display()))?;
            members.push(member);
        }
        Ok(Etcd { env: env.clone(), members, clients: clients.to_vec(), _home: home })
    }

    /// Where the leader listens.
    pub async fn leader(&self) -> Result<SocketAddr> {
        let deadline = self.env.now() + LED_WITHIN;
        loop {
            for client in &self.clients {
                if metrics(*client).await.is_ok_and(|text| text.contains("etcd_server_is_leader 1")) {
                    return Ok(*client);
                }
            }
            ensure!(self.env.now() < deadline, "etcd elects no leader");
            self.env.sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Err(e) = member.kill().and_then(|()| member.wait()) {
                eprintln!("a member of etcd may still run: {e}");
            }
        }
    }
}

async fn metrics(at: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// One connection. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    uri: http::Uri,
}

impl Connection {
    /// Connects; the task carries the connection.
    pub async fn open(env: &Env, at: SocketAddr) -> Result<(Connection, Task)> {
        let tcp = TcpStream::connect(at).await?;
        tcp.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(tcp)
            .await?;
        let carrying = async move {
            if let Err(e) = connection.await {
                eprintln!("a connection to etcd broke: {e}");
            }
        };
        let task = env.tasks().serve("etcd.connection", carrying);
        let uri = format!("http://{at}/etcdserverpb.KV/Put").parse()?;
        Ok((Connection { requests, uri }, task))
    }

    /// Puts a value, and waits until etcd says that it is there.
    pub async fn put(&self, key: u64, value: &Bytes) -> Result<()> {
        let mut requests = self.requests.clone().ready().await?;
        let request = http::Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = requests.send_request(request, false)?;
        body.send_data(put_request(key, value), true)?;
        let mut answer = answer.await?.into_body();
        while let Some(part) = answer.data().await {
            answer.flow_control().release_capacity(part?.len())?;
        }
        let status = answer.trailers().await?.and_then(|t| t.get("grpc-status").cloned());
        match status.as_ref().and_then(|s| s.to_str().ok()) {
            Some("0") => Ok(()),
            other => bail!("etcd refused a put: {other:?}"),
        }
    }
}

/// A gRPC message with an `etcdserverpb.PutRequest`: field 1 is the key, field 2 the value.
fn put_request(key: u64, value: &Bytes) -> Bytes {
    let mut message = BytesMut::with_capacity(value.len() + 32);
    message.put_u8(0x0a);
    message.put_u8(8);
    message.put_u64(key);
    message.put_u8(0x12);
    let mut length = value.len();
    while length >= 0x80 {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(value);
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}
