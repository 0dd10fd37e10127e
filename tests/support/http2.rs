//! HTTP/2 by hand (RFC 9113): client libraries do not send what hostile peers do.

/// The start of every connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A head in HPACK (RFC 7541): indexes into the static table, and literals without indexing.
pub(crate) fn head(indexes: &[u8], literals: &[(&[u8], &str)]) -> Vec<u8> {
    let mut block = indexes.to_vec();
    for (name, value) in literals {
        block.extend(*name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend(value.as_bytes());
    }
    block
}

pub(crate) const METHOD_GET: u8 = 0x82;
pub(crate) const METHOD_POST: u8 = 0x83;
pub(crate) const SCHEME_HTTP: u8 = 0x86;

pub(crate) const PATH: &[u8] = &[0x04];
pub(crate) const AUTHORITY: &[u8] = &[0x01];
pub(crate) const CONTENT_TYPE: &[u8] = &[0x0f, 0x10];
