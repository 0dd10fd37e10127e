//! A TCP proxy in front of one port of a broker, whose behaviour can be switched while it runs.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{runtime, wait};

/// The treatment of connections and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything goes through.
    Pass,
    /// Open connections are reset, and new ones refused.
    Refuse,
    /// Open connections are reset, new ones immediately after they are accepted.
    Reset,
    /// New connections are accepted but never read; open ones stall.
    Blackhole,
    /// Both directions stall; bytes written meanwhile arrive later.
    Freeze,
    /// Requests go through, replies are held.
    HoldReplies,
    /// Requests go through, replies are lost; a connection that has lost some is reset when the mode changes.
    DropReplies,
    /// Both directions are delayed by this much.
    Delay(Duration),
    /// Each direction carries this many bytes per second.
    Throttle(u32),
    /// Both directions are split into chunks of this many bytes.
    Split(usize),
}

/// A running proxy. Dropping it stops it and resets open connections.
pub(crate) struct Proxy {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_listening: AtomicBool,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Proxy {
    /// Listens on one loopback port and connects to the other.
    pub(crate) fn start(port: u16, to: u16) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, port, to)
    }

    /// [`Proxy::start`] on another address of loopback.
    pub(crate) fn start_at(host: Ipv4Addr, port: u16, to: u16) -> Self {
        let (mode, modes) = watch::channel(Mode::Pass);
        let shared = Arc::<Shared>::default();
        let address = SocketAddrV4::new(host, port);
        runtime().spawn(listen(address, to, modes, Arc::clone(&shared)));
        let proxy = Self {
            address: address.to_string(),
            mode,
            shared,
        };
        proxy.set(Mode::Pass);
        proxy
    }

    /// Switches the mode. If it resets open connections, they are gone when this returns.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let must_listen = mode != Mode::Refuse;
        wait::until("the proxy does as it is told", wait::PATIENCE, || {
            let ends_connections = matches!(mode, Mode::Refuse | Mode::Reset);
            self.shared.is_listening.load(Ordering::SeqCst) == must_listen
                && (!ends_connections || self.shared.open.load(Ordering::SeqCst) == 0)
        });
    }

    /// The number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

/// Stops with the proxy.
async fn listen(
    address: SocketAddrV4,
    to: u16,
    mut modes: watch::Receiver<Mode>,
    shared: Arc<Shared>,
) {
    let mut listener = None;
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Refuse {
            listener = None;
        } else if listener.is_none() {
            let bound = TcpListener::bind(address).await;
            listener = Some(bound.expect("the proxy's port is its own"));
        }
        shared
            .is_listening
            .store(listener.is_some(), Ordering::SeqCst);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (modes, shared) = (modes.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    connection(client, to, modes).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }
}

/// The end of a direction.
#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

async fn connection(mut client: TcpStream, to: u16, mut modes: watch::Receiver<Mode>) {
    if may_go_on(&mut modes, |mode| mode == Mode::Blackhole).await == End::Reset {
        drop(client.set_zero_linger());
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
        drop(client.set_zero_linger());
        return;
    };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let end = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            end = pump(client_reads, server_writes, modes.clone(), false) => end,
            end = pump(server_reads, client_writes, modes.clone(), true) => end,
        }
    };
    if end == End::Reset {
        drop((client.set_zero_linger(), server.set_zero_linger()));
    }
}

/// Waits while the mode stalls; returns whether the connection must end.
async fn may_go_on(modes: &mut watch::Receiver<Mode>, stops: impl Fn(Mode) -> bool) -> End {
    loop {
        let mode = *modes.borrow_and_update();
        if matches!(mode, Mode::Refuse | Mode::Reset) {
            return End::Reset;
        }
        if !stops(mode) {
            return End::Closed;
        }
        if modes.changed().await.is_err() {
            return End::Reset;
        }
    }
}

/// Copies one direction until it ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    is_replies: bool,
) -> End {
    let stops = |mode| {
        matches!(mode, Mode::Freeze | Mode::Blackhole) || (is_replies && mode == Mode::HoldReplies)
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut has_lost = false;
    loop {
        if may_go_on(&mut modes, stops).await == End::Reset {
            return End::Reset;
        }
        if has_lost && *modes.borrow() != Mode::DropReplies {
            return End::Reset; // the rest would make no sense
        }
        let read = tokio::select! {
            changed = modes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return End::Reset,
            },
            read = from.read(&mut buffer) => read,
        };
        let count = match read {
            Ok(0) => return End::Closed,
            Ok(count) => count,
            Err(_) => return End::Reset,
        };
        // The mode may have changed while these bytes were read.
        if may_go_on(&mut modes, stops).await == End::Reset {
            return End::Reset;
        }
        match *modes.borrow() {
            Mode::DropReplies if is_replies => {
                has_lost = true;
                continue;
            }
            _ if has_lost => return End::Reset,
            _ => {}
        }
        let mode = *modes.borrow();
        if let Mode::Delay(length) = mode {
            tokio::time::sleep(length).await;
        }
        let Some(bytes) = buffer.get(..count) else {
            return End::Reset;
        };
        if write(&mut to, bytes, &modes).await.is_err() {
            return End::Reset;
        }
    }
}

/// Interval between the chunks of a throttled direction.
const SLICE: Duration = Duration::from_millis(50);

/// Writes as the mode requires; the rest immediately when the mode changes to one that lets bytes through.
async fn write(
    to: &mut WriteHalf<'_>,
    mut bytes: &[u8],
    modes: &watch::Receiver<Mode>,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let mode = *modes.borrow();
        let most = match mode {
            Mode::Throttle(rate) => usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1),
            Mode::Split(size) => size,
            Mode::Refuse | Mode::Reset => return Err(std::io::ErrorKind::ConnectionReset.into()),
            _ => bytes.len(),
        };
        let (now, later) = bytes.split_at(most.min(bytes.len()));
        to.write_all(now).await?;
        bytes = later;
        if matches!(mode, Mode::Throttle(_)) {
            tokio::time::sleep(SLICE).await;
        }
    }
    Ok(())
}
