//! A server for one test: a directory with its configuration, data and log, and a process that can be stopped and
//! started.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::SmallDisk;
use super::process::{self, Process};
use super::{failure, wait};

pub(crate) struct Daemon {
    pub(crate) dir: PathBuf,
    /// Its configuration.
    pub(crate) file: PathBuf,
    disk: Option<SmallDisk>,
    process: Mutex<Option<Process>>,
}

/// The methods of a broker that runs as a [`Daemon`].
macro_rules! daemon_methods {
    () => {
        /// SIGKILL: the process cannot write anything any more.
        pub(crate) fn kill(&self) {
            self.daemon().running().take().expect("it runs").kill();
        }

        /// SIGTERM: it hands over leadership and exits.
        pub(crate) fn stop(&self) {
            let process = self.daemon().running().take();
            process.expect("it runs").stop();
        }

        /// SIGSTOP: connections stay open, but nothing is answered.
        pub(crate) fn freeze(&self) {
            self.daemon().signal("STOP");
        }

        /// SIGCONT.
        pub(crate) fn thaw(&self) {
            self.daemon().signal("CONT");
        }

        /// The disk of `private_on_small_disk`.
        pub(crate) fn disk(&self) -> &SmallDisk {
            self.daemon().disk().expect("a disk of its own")
        }
    };
}

impl Daemon {
    /// Creates an empty directory; the configuration is written later.
    pub(crate) fn new(name: &str, file: &str) -> Self {
        let dir = process::directory(name);
        Self {
            file: dir.join(file),
            dir,
            disk: None,
            process: Mutex::new(None),
        }
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("a file");
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.file).expect("its configuration")
    }

    /// Edits its configuration.
    pub(crate) fn edit(&self, change: impl FnOnce(&str) -> String) {
        self.write(&change(&self.text()));
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Puts its data on a disk of `mib` MiB; `None` if that is impossible here.
    pub(crate) fn mount_small_disk(&mut self, mib: u32) -> Option<()> {
        self.disk = Some(SmallDisk::mount(&self.data(), mib)?);
        Some(())
    }

    pub(crate) fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// A command that sees its data.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.disk {
            None => process::command(program),
            Some(disk) => disk.command(program),
        }
    }

    /// Starts it; it is up when this returns.
    pub(crate) fn start(&self, mut command: Command, mut is_up: impl FnMut() -> bool) {
        let append = || {
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(self.log());
            log.expect("a log file")
        };
        command.stdout(append()).stderr(append());
        let what = format!("{command:?}");
        let mut process = Process::spawn(command);
        wait::until(&format!("up: {what}"), wait::PATIENCE, || {
            let has_ended = process.try_wait().is_some();
            assert!(!has_ended, "{what} ended:\n{}", process::tail(&self.log()));
            is_up()
        });
        *self.running() = Some(process);
    }

    /// Its process, if running.
    pub(crate) fn running(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn signal(&self, name: &str) {
        self.running().as_mut().expect("it runs").signal(name);
    }

    /// Whether its process has exited by itself.
    pub(crate) fn has_ended(&self) -> bool {
        let mut process = self.running();
        process
            .as_mut()
            .expect("it was started")
            .try_wait()
            .is_some()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = format!("end of the log beside {}", self.file.display());
            failure::report(&what, &process::tail(&self.log()));
        } else {
            *self.running() = None;
            drop(std::fs::remove_dir_all(&self.dir));
        }
    }
}
