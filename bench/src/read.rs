//! One reader of a log node that has just started: nothing is in its memory, and, on a second round, its
//! files are not in the system's either. Floors of the same run: reading the same files one after the other, and
//! one stream of raw QUIC over loopback.

use crate::figures::Figures;
use crate::processes::{Processes, fill};
use anyhow::{Context, Result};
use beam_certs::Credentials;
use beam_wire::LogIndex;
use beam_wire::message::log::Entry;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// How much to read
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Bytes in an entry
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 10, 16 << 10])]
    sizes: Vec<usize>,
}

pub fn run(args: Args) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Figures::new("read");
    for size in &args.sizes {
        runtime.block_on(measure(&args, *size, &mut figures))?;
    }
    Ok(figures)
}

async fn measure(args: &Args, size: usize, figures: &mut Figures) -> Result<()> {
    let mut processes = Processes::start().await?;
    let env = processes.env.clone();
    let bytes = args.mib << 20;
    let last = fill(&env, &processes.log(0)?, bytes, size).await?;
    let (node, datacenter) = (processes.names()[1].clone(), 1);
    for cold in [false, true] {
        processes.kill(&node)?;
        let files = files(&processes.log_directory(&node))?;
        if cold {
            forget(&files)?;
        }
        processes.run(&node)?;
        let log = processes.log(datacenter)?;
        let ready = env.now() + Duration::from_secs(60);
        // It has caught up with what is committed, and the reader's connection is there.
        while log
            .info(&node, env.now() + Duration::from_secs(1))
            .await
            .is_ok_and(|i| i.committed >= Some(last))
            .eq(&false)
        {
            anyhow::ensure!(env.now() < ready, "{node} does not come back");
            env.sleep(Duration::from_millis(50)).await;
        }
        let began = env.now();
        let mut reader = log.read(None, LogIndex(0), true);
        let mut read = 0;
        while reader.position() <= last {
            let entries = reader.next().await?.context("it follows")?;
            read += entries.entries.iter().map(body_bytes).sum::<usize>();
        }
        let rate = |bytes: f64, seconds: f64| bytes / 1e6 / seconds;
        let ours = rate(read as f64, (env.now() - began).as_secs_f64());
        processes.kill(&node)?;
        if cold {
            forget(&files)?;
        }
        let began = env.now();
        let file_bytes = read_through(&files)?;
        let floor = rate(file_bytes as f64, (env.now() - began).as_secs_f64());
        processes.run(&node)?;
        let what = if cold { "from disk" } else { "from the system's memory" };
        figures.add_beside(format!("{size} B entries, {what}"), ours, "MB/s", ("reading the files", floor));
    }
    let floor = raw_quic(&processes, bytes.min(1 << 30)).await?;
    figures.add("one stream of raw QUIC, both ends in one process", floor, "MB/s");
    Ok(())
}

fn body_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Data { body, .. } => body.len(),
        Entry::Skip => 0,
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|file| file.map(|f| f.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

/// Makes the system forget what it holds of files.
fn forget(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let mut of = std::ffi::OsString::from("of=");
        of.push(file);
        let status = Command::new("dd")
            .arg(of)
            .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
            .status()
            .context("dd makes the system forget files")?;
        anyhow::ensure!(status.success(), "dd failed on {}", file.display());
    }
    Ok(())
}

fn read_through(files: &[PathBuf]) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    for file in files {
        let mut file = std::fs::File::open(file)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => bytes += count as u64,
            }
        }
    }
    Ok(bytes)
}

/// Bytes through one stream, in megabytes a second.
pub async fn raw_quic(processes: &Processes, bytes: u64) -> Result<f64> {
    let env = &processes.env;
    let node = &processes.names()[0];
    let tls = Credentials::load(&processes.certs(), node.as_str())?.tls(env)?;
    let server = tls.server.as_ref().context("a node's certificate serves")?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from((**server).clone())?));
    let mut transport = quinn::TransportConfig::default();
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(6000);
    let (stream, connection) = (16u32 << 20, 32u32 << 20);
    transport
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(stream.into())
        .receive_window(connection.into())
        .send_window(connection.into());
    let transport = Arc::new(transport);
    server.transport_config(transport.clone());
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from((*tls.client).clone())?));
    client.transport_config(transport);
    let open = |server: Option<quinn::ServerConfig>| -> Result<quinn::Endpoint> {
        let mut config = quinn::EndpointConfig::default();
        config.max_udp_payload_size(6000)?;
        let socket = env.bind("127.0.0.1:0".parse()?)?;
        Ok(quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(quinn::TokioRuntime))?)
    };
    let (from, to) = (open(Some(server))?, open(None)?);
    let address = from.local_addr()?;
    let sending = env.tasks().spawn_raw(async move {
        let connection = from.accept().await.context("the endpoint is open")?.await?;
        let (mut send, _receive) = connection.accept_bi().await?;
        let chunk = bytes::Bytes::from(vec![7; 256 << 10]);
        for _ in 0..bytes / chunk.len() as u64 {
            send.write_chunk(chunk.clone()).await?;
        }
        send.finish()?;
        connection.closed().await;
        anyhow::Ok(())
    });
    let connection = to.connect_with(client, address, "beam")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"go").await?;
    let began = env.now();
    let mut received = 0;
    let mut chunks = [const { bytes::Bytes::new() }; 32];
    while let Some(count) = receive.read_chunks(&mut chunks).await? {
        received += chunks[..count].iter().map(bytes::Bytes::len).sum::<usize>();
    }
    let seconds = (env.now() - began).as_secs_f64();
    connection.close(0u32.into(), b"");
    sending.await??;
    Ok(received as f64 / 1e6 / seconds)
}
