//! Resources that a process uses, from `/proc`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One MiB in bytes.
pub(crate) const MIB: u64 = 1024 * 1024;

#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    /// Peak resident memory.
    pub(crate) peak: u64,
    /// Address space.
    pub(crate) virtual_size: u64,
    pub(crate) threads: u64,
    /// Of these, threads of libraries: neither the runtime's nor the main thread.
    pub(crate) foreign_threads: usize,
    pub(crate) descriptors: usize,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))
            .expect("a process that runs");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"));
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process of ours");
        let names = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let of_libraries =
            names.filter(|name| !name.starts_with("tokio") && !name.starts_with("hookbridge"));
        Self {
            resident: number("VmRSS:") * 1024,
            peak: number("VmHWM:") * 1024,
            virtual_size: number("VmSize:") * 1024,
            threads: number("Threads:"),
            foreign_threads: of_libraries.count(),
            descriptors: descriptors.expect("a process of ours").count(),
        }
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} MiB resident, {} MiB at most, {} threads, {} descriptors",
            self.resident / MIB,
            self.peak / MIB,
            self.threads,
            self.descriptors
        )
    }
}

/// Raises our own limit of open files to the maximum, which is returned.
pub(crate) fn raise_open_files() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("a limit may be raised to its maximum");
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Both addresses, ours first, of each IPv4 connection of the process.
pub(crate) fn connections(process: u32) -> Vec<(SocketAddrV4, SocketAddrV4)> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).expect("a process of ours");
    let sockets: HashSet<String> = descriptors
        .flatten()
        .filter_map(|descriptor| {
            let target = std::fs::read_link(descriptor.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            Some(inode.trim_end_matches(']').to_owned())
        })
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).expect("a table");
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (ours, theirs) = (fields.next()?, fields.next()?);
        let inode = fields.nth(6)?;
        let is_listening = theirs.ends_with(":0000");
        (sockets.contains(inode) && !is_listening)
            .then(|| Some((address(ours)?, address(theirs)?)))?
    });
    rows.collect()
}

/// `0100007F:1F90`, the address in the machine's byte order.
fn address(text: &str) -> Option<SocketAddrV4> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(ip.to_ne_bytes()), port))
}
