//! A TCP proxy between two processes, which makes the network between them as
//! bad as a test wants it: slow, narrow, cut, silent.
//!
//! It runs on a thread of its own, counts what it does, so that a test can prove
//! that its fault came, and ends with its handle.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 32 << 10;
/// Blocks of one direction of a connection that are on their way. Together they
/// are the buffer of a real path with latency.
const BLOCKS_ON_THE_WAY: usize = 256;
/// How long a narrow path may be idle and send faster afterwards.
const BURST: Duration = Duration::from_millis(20);

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the process that connects to the one that listens.
    ToServer,
    /// Back.
    ToClient,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// What becomes of the bytes of one direction, of all connections together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Path {
    /// How much later a byte arrives.
    pub latency: Duration,
    /// How many bytes arrive in a second at most.
    pub bytes_per_s: Option<f64>,
    /// What is done to the bytes.
    pub traffic: Traffic,
}

/// What a path does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traffic {
    /// They arrive.
    #[default]
    Flows,
    /// They wait until it flows again, and nobody is told: the path is a cable
    /// that was pulled.
    Held,
    /// They are lost, and nobody is told. A connection that lost some is of no
    /// use any more.
    Swallowed,
    /// When so many bytes more have arrived, the next ones reset their connection.
    ResetAfter(u64),
}

/// What a proxy has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections that were made.
    pub connections: u64,
    /// Bytes that arrived, to the server and to the client.
    pub bytes: [u64; 2],
    /// Blocks of bytes that had to wait for a path that held them.
    pub held: u64,
    /// Bytes that were lost.
    pub swallowed: u64,
    /// Connections that were reset.
    pub resets: u64,
}

/// A proxy in front of a server.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    // The thread ends when this is dropped.
    _alive: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    paths: [watch::Sender<Path>; 2],
    buckets: [Mutex<Bucket>; 2],
    /// By each connection's number, what resets it.
    open: Mutex<HashMap<u64, mpsc::Sender<()>>>,
    connections: AtomicU64,
    bytes: [AtomicU64; 2],
    held: AtomicU64,
    swallowed: AtomicU64,
    resets: AtomicU64,
}

/// When the next byte may arrive on a narrow path.
#[derive(Debug)]
struct Bucket {
    free_at: Instant,
}

impl Proxy {
    /// A proxy in front of this server, which may not be there yet.
    ///
    /// # Panics
    /// If loopback has no port, or the system no thread.
    pub fn start(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            paths: [(); 2].map(|()| watch::Sender::new(Path::default())),
            buckets: [(); 2].map(|()| {
                Mutex::new(Bucket {
                    free_at: Instant::now(),
                })
            }),
            open: Mutex::default(),
            connections: AtomicU64::new(0),
            bytes: Default::default(),
            held: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        });
        let (alive, gone) = oneshot::channel();
        let serving = Arc::clone(&shared);
        thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(&listener, &serving) => {}
                        _ = gone => {}
                    }
                });
                // Connections that are open end with the runtime.
            })
            .expect("the system has threads");
        Self {
            shared,
            port,
            _alive: alive,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Leads new connections to another server, which was started in place of
    /// the first one.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = target;
    }

    /// Changes a direction from now on, for connections that are open too.
    pub fn set(&self, direction: Direction, path: Path) {
        self.shared.paths[direction as usize].send_replace(path);
    }

    /// Changes what is done to the bytes of both directions.
    pub fn set_traffic(&self, traffic: Traffic) {
        for direction in Direction::BOTH {
            self.set_traffic_of(direction, traffic);
        }
    }

    /// Changes what is done to the bytes of one direction.
    pub fn set_traffic_of(&self, direction: Direction, traffic: Traffic) {
        self.shared.paths[direction as usize].send_modify(|path| path.traffic = traffic);
    }

    /// Resets every connection that is open.
    pub fn reset_all(&self) {
        let open: Vec<_> = lock(&self.shared.open).values().cloned().collect();
        for connection in open {
            // One that is about to end needs no reset.
            let _ = connection.try_send(());
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        let [to_server, to_client] = &shared.bytes;
        Counts {
            connections: shared.connections.load(Ordering::Relaxed),
            bytes: [to_server, to_client].map(|bytes| bytes.load(Ordering::Relaxed)),
            held: shared.held.load(Ordering::Relaxed),
            swallowed: shared.swallowed.load(Ordering::Relaxed),
            resets: shared.resets.load(Ordering::Relaxed),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

async fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        // A client that has gone again is no reason to stop.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let (reset, resets) = mpsc::channel(1);
        lock(&shared.open).insert(number, reset);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let _ended = carry(&shared, client, resets).await;
            lock(&shared.open).remove(&number);
        });
    }
}

/// Carries one connection to its end.
async fn carry(
    shared: &Shared,
    mut client: TcpStream,
    mut resets: mpsc::Receiver<()>,
) -> io::Result<()> {
    let target = *lock(&shared.target);
    let mut server = TcpStream::connect(target).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let outcome = tokio::select! {
        _ = resets.recv() => Err(io::ErrorKind::ConnectionReset.into()),
        carried = async {
            tokio::try_join!(
                pump(shared, Direction::ToServer, from_client, to_server),
                pump(shared, Direction::ToClient, from_server, to_client),
            )
        } => carried.map(drop),
    };
    if outcome.is_err() {
        shared.resets.fetch_add(1, Ordering::Relaxed);
        for stream in [&client, &server] {
            // Closed with this set, a connection is reset and not ended.
            stream.set_zero_linger()?;
        }
    }
    outcome
}

/// Carries one direction until its end, which it passes on.
async fn pump(
    shared: &Shared,
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
) -> io::Result<()> {
    let (sender, mut blocks) = mpsc::channel::<(Instant, Vec<u8>)>(BLOCKS_ON_THE_WAY);
    let paths = &shared.paths[direction as usize];
    let read = async {
        loop {
            let mut block = vec![0; BLOCK_BYTES];
            let len = from.read(&mut block).await?;
            block.truncate(len);
            if len == 0 {
                break;
            }
            let arrives = Instant::now() + paths.borrow().latency;
            if sender.send((arrives, block)).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok(())
    };
    let write = async {
        while let Some((arrives, block)) = blocks.recv().await {
            tokio::time::sleep_until(arrives).await;
            shared.narrow(direction, block.len()).await;
            shared.deliver(direction, &block, &mut to).await?;
        }
        shared.wait_to_flow(direction).await;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

impl Shared {
    /// Waits until the path has room for so many bytes.
    async fn narrow(&self, direction: Direction, len: usize) {
        let Some(rate) = self.paths[direction as usize].borrow().bytes_per_s else {
            return;
        };
        let free_at = {
            let mut bucket = lock(&self.buckets[direction as usize]);
            let idle_since = Instant::now() - BURST;
            let begin = bucket.free_at.max(idle_since);
            bucket.free_at = begin + Duration::from_secs_f64(len as f64 / rate);
            bucket.free_at
        };
        tokio::time::sleep_until(free_at).await;
    }

    async fn deliver(
        &self,
        direction: Direction,
        block: &[u8],
        to: &mut WriteHalf<'_>,
    ) -> io::Result<()> {
        self.wait_to_flow(direction).await;
        let mut block = block;
        let traffic = self.paths[direction as usize].borrow().traffic;
        match traffic {
            Traffic::Swallowed => {
                self.swallowed
                    .fetch_add(block.len() as u64, Ordering::Relaxed);
                return Ok(());
            }
            Traffic::ResetAfter(left) => {
                let some = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                let is_cut = some < block.len();
                block = &block[..some];
                self.paths[direction as usize].send_modify(|path| {
                    path.traffic = match is_cut {
                        true => Traffic::Flows,
                        false => Traffic::ResetAfter(left - some as u64),
                    };
                });
                to.write_all(block).await?;
                self.bytes[direction as usize].fetch_add(some as u64, Ordering::Relaxed);
                return match is_cut {
                    true => Err(io::ErrorKind::ConnectionReset.into()),
                    false => Ok(()),
                };
            }
            Traffic::Flows | Traffic::Held => to.write_all(block).await?,
        }
        self.bytes[direction as usize].fetch_add(block.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits while the path holds what comes.
    async fn wait_to_flow(&self, direction: Direction) {
        let mut path = self.paths[direction as usize].subscribe();
        if path.borrow().traffic == Traffic::Held {
            self.held.fetch_add(1, Ordering::Relaxed);
            // The sender lives as long as this does.
            let _ = path.wait_for(|path| path.traffic != Traffic::Held).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that sends back what it gets, and a proxy in front of it.
    fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut from, mut to) = {
                    let stream = stream.unwrap();
                    (stream.try_clone().unwrap(), stream)
                };
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        });
        Proxy::start(target)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).unwrap()
    }

    /// Sends some bytes and reads as many; how long it took.
    fn round_trip(stream: &mut TcpStream, bytes: usize) -> io::Result<Duration> {
        let begin = std::time::Instant::now();
        let sent = vec![7; bytes];
        let mut sender = stream.try_clone()?;
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&sent));
            stream.read_exact(&mut vec![0; bytes])
        })?;
        Ok(begin.elapsed())
    }

    #[test]
    fn bytes_pass_and_are_counted_by_direction() {
        let proxy = echo();
        round_trip(&mut connect(&proxy), 100_000).unwrap();
        // Bytes are counted when they are written, and may be read before that.
        crate::process::until("all bytes to be counted", || {
            proxy.counts().bytes == [100_000; 2]
        });
        assert_eq!(proxy.counts().connections, 1);
    }

    #[test]
    fn latency_delays_and_does_not_narrow() {
        let proxy = echo();
        let latency = Duration::from_millis(50);
        proxy.set(
            Direction::ToClient,
            Path {
                latency,
                ..Path::default()
            },
        );
        let mut stream = connect(&proxy);
        assert!(round_trip(&mut stream, 1).unwrap() >= latency);
        // Were each block to wait for the one before, this would take seconds.
        let many = round_trip(&mut stream, 64 * BLOCK_BYTES).unwrap();
        assert!(many < latency * 20, "{many:?}");
    }

    #[test]
    fn a_narrow_path_is_shared_by_its_connections() {
        let proxy = echo();
        proxy.set(
            Direction::ToServer,
            Path {
                bytes_per_s: Some(2e6),
                ..Path::default()
            },
        );
        let begin = std::time::Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| round_trip(&mut connect(&proxy), 200_000).unwrap());
            }
        });
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(180), "{took:?}");
    }

    #[test]
    fn what_is_held_arrives_later() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        proxy.set_traffic(Traffic::Held);
        stream.write_all(b"late").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap_err();
        assert!(proxy.counts().held > 0);
        proxy.set_traffic(Traffic::Flows);
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"late");
    }

    #[test]
    fn what_is_swallowed_never_arrives_and_the_connection_stands() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        proxy.set_traffic_of(Direction::ToClient, Traffic::Swallowed);
        stream.write_all(b"lost").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let error = stream.read_exact(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(proxy.counts().swallowed, 4);
    }

    #[test]
    fn a_connection_is_reset_after_so_many_bytes_and_the_next_is_not() {
        let proxy = echo();
        proxy.set_traffic_of(Direction::ToClient, Traffic::ResetAfter(10));
        let mut stream = connect(&proxy);
        round_trip(&mut stream, 10).unwrap();
        let error = round_trip(&mut stream, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.counts().resets, 1);
        round_trip(&mut connect(&proxy), 100).unwrap();
    }

    #[test]
    fn all_open_connections_are_reset_on_demand() {
        let proxy = echo();
        let mut streams = [connect(&proxy), connect(&proxy)];
        for stream in &mut streams {
            round_trip(stream, 1).unwrap();
        }
        proxy.reset_all();
        for stream in &mut streams {
            let error = stream.read_exact(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        assert_eq!(proxy.counts().resets, 2);
    }
}
