//! Host names that can be moved: an `/etc/hosts` for one process, mounted in its own namespace.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::disk::is_root;
use super::process::{self, Process};
use super::wait;

pub(crate) struct Hosts(PathBuf);

impl Hosts {
    /// Maps this name to this address; `None`, with a message, if the system forbids it.
    pub(crate) fn with(name: &str, address: Ipv4Addr) -> Option<Self> {
        let hosts = Self(process::directory("hosts").join("hosts"));
        hosts.set(name, address);
        let mut command = hosts.command("cat");
        command.arg("/etc/hosts");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let (said, complaints) = (process.stdout(), process.stderr());
        if said
            .finished(wait::PATIENCE)
            .iter()
            .any(|line| line.contains(name))
        {
            return Some(hosts);
        }
        let why = complaints.finished(wait::PATIENCE).join("; ");
        process::skip(
            "an /etc/hosts of its own",
            &format!("is not permitted: {why}"),
        );
        None
    }

    /// Moves the name. The file is overwritten in place, since it is mounted.
    pub(crate) fn set(&self, name: &str, address: Ipv4Addr) {
        let text = format!("127.0.0.1 localhost\n{address} {name}\n");
        std::fs::write(&self.0, text).expect("a file");
    }

    /// A command that resolves names there and ends with the test process.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command("unshare");
        command.arg("--mount");
        if !is_root() {
            command.arg("--map-root-user");
        }
        // A new user namespace resets the parent-death signal.
        let script = "mount --bind \"$0\" /etc/hosts && exec setpriv --pdeathsig KILL -- \"$@\"";
        command.args(["sh", "-c", script]).arg(&self.0).arg(program);
        command
    }
}
