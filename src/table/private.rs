//! Opens each file once, so that its checked metadata and its content belong together even if the name is swapped meanwhile.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, Read as _, Result};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

/// A file's text and metadata.
pub(crate) struct Opened {
    pub(crate) text: Zeroizing<String>,
    pub(crate) metadata: Metadata,
}

/// Reads a regular file of at most `max_bytes`.
pub(crate) fn read(file: &Path, max_bytes: u64) -> Result<Opened> {
    let (opened, metadata) = open(file)?;
    let mut text = Zeroizing::new(String::new());
    // Bounded here: the length may change while the file is read.
    let length = opened.take(max_bytes + 1).read_to_string(&mut text)? as u64;
    if length > max_bytes {
        return Err(Error::other(format!(
            "it is larger than {} KiB",
            max_bytes / 1024
        )));
    }
    Ok(Opened { text, metadata })
}

fn open(file: &Path) -> Result<(File, Metadata)> {
    // Opening a pipe would block until it has a writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(file)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(Error::other("it is not a regular file"));
    }
    Ok((opened, metadata))
}

/// Reads a stream, which can be read only once: a pipe or a terminal. None for a regular file.
///
/// # Errors
/// The stream cannot be read.
pub(crate) fn read_stream(file: &Path, max_bytes: u64) -> Result<Option<String>> {
    let opened = File::open(file)?;
    let kind = opened.metadata()?.file_type();
    if !(kind.is_fifo() || kind.is_char_device() || kind.is_socket()) {
        return Ok(None);
    }
    let mut text = String::new();
    opened.take(max_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(Error::other("it is longer than 16 MiB"));
    }
    Ok(Some(text))
}

/// The problem with the permissions of a file that only the bridge should read, if there is one.
pub(crate) fn exposure_of(file: &Path) -> Option<String> {
    // The file's user reports why it cannot be read.
    let (_, metadata) = open(file).ok()?;
    exposure(file, &metadata)
}

pub(crate) fn exposure(file: &Path, metadata: &Metadata) -> Option<String> {
    let (file, mode) = (file.display(), metadata.mode() & 0o777);
    let owner = metadata.uid();
    if mode & 0o077 != 0 {
        return Some(format!(
            "{file} can be read by others (mode {mode:03o}); use mode 0400 or 0600"
        ));
    }
    let is_ours = owner == rustix::process::geteuid().as_raw() || owner == 0;
    (!is_ours).then(|| {
        format!(
            "{file} belongs to another user (id {owner}), who can read and change it; make root or the bridge's user its owner"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_or_folder_is_not_a_file_and_a_large_file_is_refused() {
        assert!(read(Path::new("/dev/null"), 9).is_err());
        assert!(read(Path::new("/"), 9).is_err());
        let file = std::env::temp_dir().join(format!("hookbridge-private-{}", std::process::id()));
        std::fs::write(&file, "123456789").unwrap();
        assert_eq!(*read(&file, 9).unwrap().text, "123456789");
        assert!(read(&file, 8).is_err());
        assert!(read_stream(&file, 9).unwrap().is_none());
        assert_eq!(read_stream(Path::new("/dev/null"), 9).unwrap().unwrap(), "");
        std::fs::remove_file(file).unwrap();
    }
}
