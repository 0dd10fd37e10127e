//! The files that a configuration was read from, to detect changes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A snapshot of files. Two are equal if the same files were unchanged between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Stamp>>);

/// Changes when a file is written or replaced. Symbolic links are followed: Kubernetes swaps one to change a mounted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Files {
    /// Records a file's current state. Must be called before the file is read, so that no later change is missed.
    pub(crate) fn note(&mut self, path: &Path) {
        let stamp = || stamp(path);
        self.0.entry(path.to_owned()).or_insert_with(stamp);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// A new snapshot of the same files.
    #[must_use]
    pub fn now(&self) -> Self {
        let stamped = self.0.keys().map(|path| (path.clone(), stamp(path)));
        Self(stamped.collect())
    }

    /// The files that differ from the earlier snapshot.
    pub fn changed_since<'f>(&'f self, earlier: &'f Self) -> impl Iterator<Item = &'f Path> {
        let changed = self
            .0
            .iter()
            .filter(|(path, stamp)| earlier.0.get(*path) != Some(*stamp));
        changed.map(|(path, _)| path.as_path())
    }
}

/// None if the file does not exist.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_written_replaced_removed_or_made_has_changed() {
        let directory =
            std::env::temp_dir().join(format!("hookbridge-files-{}", std::process::id()));
        let file = directory.join("file");
        fs::create_dir_all(&directory).unwrap();
        let mut seen = Files::default();
        seen.note(&file);
        for change in [
            (|file| fs::write(file, "one")) as fn(&Path) -> std::io::Result<()>,
            |file| fs::write(file, "longer"),
            |file| {
                let other = file.with_extension("new");
                fs::write(&other, "longer")?;
                fs::rename(other, file)
            },
            |file| fs::remove_file(file),
        ] {
            assert_eq!(seen.now(), seen);
            change(&file).unwrap();
            let now = seen.now();
            assert_eq!(now.changed_since(&seen).collect::<Vec<_>>(), [&file]);
            seen = now;
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
