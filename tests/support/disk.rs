//! A disk of a few MiB for one broker: a tmpfs in its own mount namespace, so that it disappears with the test and can
//! be filled without harm.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{self, Process};
use super::wait;

pub(crate) struct SmallDisk {
    dir: PathBuf,
    /// Keeps the mount namespace alive while no broker runs in it.
    keeper: Process,
    is_root: bool,
}

impl SmallDisk {
    /// Mounts a disk at this path, visible to the commands that it creates; `None`, with a message, if the system
    /// forbids it.
    pub(crate) fn mount(dir: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a directory");
        let script = format!(
            "mount -t tmpfs -o size={mib}m tmpfs '{}' && echo mounted && exec setpriv --pdeathsig KILL -- sleep infinity",
            dir.display()
        );
        let is_root = is_root();
        let mut command = process::command("unshare");
        command.arg("--mount");
        if !is_root {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", &script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keeper = Process::spawn(command);
        let (said, complaints) = (keeper.stdout(), keeper.stderr());
        let is_mounted = said.wait_for(wait::PATIENCE, |lines| {
            lines.iter().any(|line| line == "mounted").then_some(())
        });
        if is_mounted.is_none() {
            let why = complaints.finished(wait::PATIENCE).join("; ");
            process::skip("a disk of its own", &format!("is not permitted: {why}"));
            return None;
        }
        let dir = dir.to_owned();
        Some(Self {
            dir,
            keeper,
            is_root,
        })
    }

    /// A command that sees the disk and ends with the test process.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command("nsenter");
        command.arg(format!("--target={}", self.keeper.id()));
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--mount", "--"]);
        // A new user namespace resets the parent-death signal.
        command
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command
    }

    /// The disk's path as seen from the test process.
    pub(crate) fn seen_from_outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        let dir = self.dir.strip_prefix("/").expect("an absolute path");
        root.join(dir)
    }

    /// Fills the disk completely.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file on the disk");
        for chunk in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; chunk]).is_ok() {}
        }
    }

    /// Removes what [`SmallDisk::fill`] wrote.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> PathBuf {
        self.seen_from_outside().join("filler")
    }
}

/// Unprivileged users need a user namespace to mount anything.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("its own status");
    status.contains("\nUid:\t0\t")
}
