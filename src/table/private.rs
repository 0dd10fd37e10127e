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
    let mut bytes = Zeroizing::new(Vec::new());
    // Bounded here: the length may change while the file is read.
    let length = opened.take(max_bytes + 1).read_to_end(&mut bytes)? as u64;
    if length > max_bytes {
        return Err(Error::other(format!(
            "it is larger than {} KiB",
            max_bytes / 1024
        )));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to());
        let line = line.filter(|byte| **byte == b'\n').count() + 1;
        Error::other(encoding_fault(&bytes, line))
    })?;
    let text = Zeroizing::new(text.to_owned());
    Ok(Opened { text, metadata })
}

/// Why bytes are not UTF-8, without showing any of them.
fn encoding_fault(bytes: &[u8], line: usize) -> String {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16; save it as UTF-8".to_owned(),
        _ => format!(
            "line {line} is not UTF-8 (Latin-1, or not text at all?); save the file as UTF-8"
        ),
    }
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
    let us = rustix::process::geteuid().as_raw();
    let what = fault_of_access(metadata.mode() & 0o777, metadata.uid(), us)?;
    Some(format!("{} {what}", file.display()))
}

/// The problem with a file's mode and owner, if there is one. A group may read a file of root's: that is how Kubernetes
/// (`fsGroup`) and packages give a service its secrets, and only root can have chosen the group.
fn fault_of_access(mode: u32, owner: u32, us: u32) -> Option<String> {
    let permitted = if owner == 0 { 0o740 } else { 0o700 };
    if mode & !permitted != 0 {
        let advice = match owner {
            0 => "use mode 0400, or 0440 with a group of the bridge's own",
            _ => "use mode 0400 or 0600",
        };
        return Some(format!("can be read by others (mode {mode:03o}); {advice}"));
    }
    (owner != us && owner != 0).then(|| {
        format!("belongs to another user (id {owner}), who can read and change it; make root or the bridge's user its owner")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_read_a_file_of_roots_and_nobody_else_may_read_any() {
        const US: u32 = 10_001;
        for (mode, owner, is_fine) in [
            // As Kubernetes mounts secrets with `fsGroup`, and as packages install them.
            (0o440, 0, true),
            (0o640, 0, true),
            (0o400, 0, true),
            (0o600, US, true),
            (0o640, US, false),
            (0o440, US, false),
            (0o460, 0, false),
            (0o444, 0, false),
            (0o644, 0, false),
            (0o604, US, false),
            (0o600, US + 1, false),
        ] {
            let fault = fault_of_access(mode, owner, US);
            assert_eq!(fault.is_none(), is_fine, "{mode:o} {owner}: {fault:?}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_told_by_its_line() {
        let file = std::env::temp_dir().join(format!("hookbridge-latin-{}", std::process::id()));
        for (bytes, words) in [
            (&b"a\nb\nCaf\xe9"[..], "line 3 is not UTF-8"),
            (b"\xff\xfea\0", "UTF-16"),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let error = read(&file, 99).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        std::fs::remove_file(file).unwrap();
    }

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
