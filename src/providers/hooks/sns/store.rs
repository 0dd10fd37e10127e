//! The available certificates: those of a folder, and those that were fetched.

use std::collections::HashMap;
use std::future::Future;
use std::io::Read as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::super::super::outbound::{self, Budget, GetError};
use super::certificate::Certificate;
use crate::table::Section;

/// The maximum number of certificates in a folder, and of fetched ones. SNS has one or two per region at a time.
const MAX_CERTIFICATES: usize = 64;

/// The maximum size of a PEM file in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Pause before a failed fetch is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Fetches allowed in a burst, and the interval for one more: anyone can name a certificate in an unverified request.
const BURST: u32 = 6;
const INTERVAL: Duration = Duration::from_secs(10);

/// The maximum number of requests that wait for a fetch, each with its body in memory, and for how long. Others are
/// asked to come again.
const MAX_WAITING: usize = 16;
const WAIT: Duration = Duration::from_secs(3);

/// The certificates of a folder by file name.
pub(super) type Pinned = HashMap<String, Arc<Certificate>>;

/// Reads the PEM files of a folder. Problems are reported to the section.
pub(super) fn read_folder(section: &mut Section<'_>, key: &'static str) -> Option<Pinned> {
    let folder = section.path(key)?;
    let mut pinned = Pinned::new();
    let files = match pem_files(&folder) {
        Ok(files) => files,
        Err(error) => {
            section.problem_at(key, format!("{} can't be read: {error}", folder.display()));
            return None;
        }
    };
    if files.len() > MAX_CERTIFICATES {
        section.problem_at(
            key,
            format!(
                "{} has more than {MAX_CERTIFICATES} PEM files; leave those that are in use",
                folder.display()
            ),
        );
        return None;
    }
    for (name, path) in files {
        section.note_file(&path);
        let read = read_file(&path).map_err(|error| error.to_string());
        let parsed = read.and_then(|pem| Certificate::parse(&pem).map_err(str::to_owned));
        match parsed {
            Ok(certificate) => {
                if certificate.is_expired(SystemTime::now()) {
                    section.warn_at(key, format!("{} has expired; remove it", path.display()));
                }
                pinned.insert(name, Arc::new(certificate));
            }
            Err(reason) => {
                section.problem_at(key, format!("{} can't be used: {reason}", path.display()))
            }
        }
    }
    if pinned.is_empty() {
        section.warn_at(
            key,
            format!("{} has no PEM file; save the certificate that SigningCertURL names there, under its own name", folder.display()),
        );
    }
    Some(pinned)
}

fn pem_files(folder: &Path) -> std::io::Result<Vec<(String, std::path::PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|name| name.ends_with(".pem")) {
            files.push((name.to_owned(), path));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut pem)?;
    Ok(pem)
}

type Fetching = Pin<Box<dyn Future<Output = Result<Bytes, GetError>> + Send>>;

/// Fetches a URL that was checked.
type Fetch = dyn Fn(String) -> Fetching + Send + Sync;

/// Certificates that are fetched when first named. All sources share them, also across a reload: their owner does not
/// depend on the configuration.
pub(super) struct Fetched {
    entries: Mutex<HashMap<String, Entry>>,
    budget: Budget,
    waiting: Arc<Semaphore>,
    fetch: Box<Fetch>,
}

enum Entry {
    /// The sender is dropped when the fetch ends, with any result.
    Fetching(watch::Receiver<()>),
    Known {
        certificate: Arc<Certificate>,
        used: Instant,
    },
    Failed(Instant),
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetched(..)")
    }
}

impl Fetched {
    /// The store of this process.
    pub(super) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<Fetched>> = LazyLock::new(|| {
            Fetched::new(|url| Box::pin(async move { outbound::get(&url).await }))
        });
        Arc::clone(&SHARED)
    }

    pub(super) fn new(fetch: impl Fn(String) -> Fetching + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            budget: Budget::new(BURST, INTERVAL),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            fetch: Box::new(fetch),
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A certificate that was fetched.
    pub(super) fn get(&self, url: &str) -> Option<Arc<Certificate>> {
        match self.entries().get_mut(url)? {
            Entry::Known { certificate, used } => {
                *used = Instant::now();
                Some(Arc::clone(certificate))
            }
            Entry::Fetching(_) | Entry::Failed(_) => None,
        }
    }

    /// Starts to fetch an unknown certificate, within limits, and waits for it for a while unless too many requests do.
    /// `None` if there is nothing to wait for.
    pub(super) fn prepare(
        self: &Arc<Self>,
        url: &str,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut done = self.start(url)?;
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(async move {
            // Nothing is ever sent: the wait ends when the sender is dropped.
            drop(tokio::time::timeout(WAIT, done.changed()).await);
            drop(place);
        })
    }

    fn start(self: &Arc<Self>, url: &str) -> Option<watch::Receiver<()>> {
        let mut entries = self.entries();
        match entries.get(url) {
            Some(Entry::Known { .. }) => return None,
            Some(Entry::Fetching(done)) if done.has_changed().is_ok() => return Some(done.clone()),
            Some(Entry::Failed(again)) if Instant::now() < *again => return None,
            Some(Entry::Fetching(_) | Entry::Failed(_)) | None => {}
        }
        if !self.budget.take() || !evict_one(&mut entries) {
            outbound::note_refused();
            return None;
        }
        let (sender, done) = watch::channel(());
        entries.insert(url.to_owned(), Entry::Fetching(done.clone()));
        drop(entries);
        let (store, url) = (Arc::clone(self), url.to_owned());
        let fetching = (self.fetch)(url.clone());
        tokio::spawn(async move {
            let fetched = fetching.await;
            let parsed = fetched.and_then(|pem| Certificate::parse(&pem).map_err(GetError::new));
            let entry = match parsed {
                Ok(certificate) => {
                    tracing::info!(url, "the signing certificate was fetched");
                    Entry::Known {
                        certificate: Arc::new(certificate),
                        used: Instant::now(),
                    }
                }
                Err(error) => {
                    tracing::warn!(url, %error, "the signing certificate can't be fetched");
                    Entry::Failed(Instant::now() + RETRY_PAUSE)
                }
            };
            store.entries().insert(url, entry);
            drop(sender);
        });
        Some(done)
    }
}

/// Makes room for one more entry: failed ones go first, then the least recently used.
fn evict_one(entries: &mut HashMap<String, Entry>) -> bool {
    if entries.len() < MAX_CERTIFICATES {
        return true;
    }
    entries.retain(|_, entry| !matches!(entry, Entry::Failed(_)));
    let known = entries.iter().filter_map(|(url, entry)| match entry {
        Entry::Known { used, .. } => Some((*used, url)),
        Entry::Fetching(_) | Entry::Failed(_) => None,
    });
    let oldest = known.min().map(|(_, url)| url.clone());
    if let Some(oldest) = oldest.filter(|_| entries.len() >= MAX_CERTIFICATES) {
        entries.remove(&oldest);
    }
    entries.len() < MAX_CERTIFICATES
}
