//! Step 1, a compressed body (RFC 1952): decompressed within the source's `max_body`, whatever size it declares.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::event::Refusal;

/// The maximum number of gzip members in a body. Each costs work, even an empty one.
const MAX_MEMBERS: usize = 1000;

/// The content coding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    /// Any other coding, or several.
    Other,
}

impl Coding {
    /// Reads `Content-Encoding` (RFC 9110 section 8.4). An empty list means identity.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(CONTENT_ENCODING).iter();
        let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let mut codings = codings
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        match (codings.next(), codings.next()) {
            (None, _) => Self::Identity,
            // Both names mean the same (RFC 9110 section 8.4.1.3).
            (Some(coding), None)
                if coding.eq_ignore_ascii_case(b"gzip")
                    || coding.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Self::Gzip
            }
            (Some(_), _) => Self::Other,
        }
    }
}

/// Decompresses a body of up to [`MAX_MEMBERS`] members. Trailing bytes are refused, since readers differ in how they
/// treat them.
///
/// # Errors
/// The body is larger than `limit_bytes`, or is not gzip.
pub fn decompress(compressed: &[u8], limit_bytes: usize) -> Result<Bytes, Refusal> {
    let not_gzip = || {
        let detail = "the body is not gzip, or not only gzip, as Content-Encoding says";
        Refusal::InvalidEncoding(detail.to_owned())
    };
    let mut rest = compressed;
    let mut body = Vec::new();
    let mut members = 0;
    while !rest.is_empty() || members == 0 {
        if members == MAX_MEMBERS {
            let detail = format!("the body has more than {MAX_MEMBERS} members of gzip");
            return Err(Refusal::InvalidEncoding(detail));
        }
        members += 1;
        let left = limit_bytes.saturating_sub(body.len()).saturating_add(1);
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        let read = GzDecoder::new(&mut rest).take(left).read_to_end(&mut body);
        if body.len() > limit_bytes {
            return Err(Refusal::BodyTooLarge { limit_bytes });
        }
        read.map_err(|_| not_gzip())?;
    }
    Ok(Bytes::from(body.into_boxed_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn compress(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn code(compressed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, &'static str> {
        let decompressed = decompress(compressed, limit_bytes);
        decompressed
            .map(|body| body.to_vec())
            .map_err(|refusal| refusal.code())
    }

    #[test]
    fn members_are_one_text_and_anything_else_is_refused() {
        let (a, b) = (compress(b"{\"a\":"), compress(b"1}"));
        let both = [a.clone(), b.clone()].concat();
        assert_eq!(code(&both, 100), Ok(b"{\"a\":1}".to_vec()));
        assert_eq!(code(&compress(b""), 0), Ok(Vec::new()));
        assert_eq!(code(&both, 7), Ok(b"{\"a\":1}".to_vec()));
        assert_eq!(code(&both, 6), Err("body_too_large"));
        let mut wrong_sum = b.clone();
        let at = wrong_sum.len() - 8;
        wrong_sum[at] ^= 1;
        let mut wrong_length = b.clone();
        *wrong_length.last_mut().unwrap() ^= 1;
        let trailing = [&b[..], b"x"].concat();
        let zeros = [&b[..], &[0; 512]].concat();
        let cut = b[..b.len() - 1].to_vec();
        for bad in [
            Vec::new(),
            b"{}".to_vec(),
            wrong_sum,
            wrong_length,
            trailing,
            zeros,
            cut,
            a[..5].to_vec(),
        ] {
            assert_eq!(code(&bad, 100), Err("invalid_encoding"), "{bad:?}");
        }
        let many = compress(b"").repeat(MAX_MEMBERS);
        assert_eq!(code(&many, 0), Ok(Vec::new()));
        assert_eq!(
            code(&[many, compress(b"")].concat(), 0),
            Err("invalid_encoding")
        );
    }

    #[test]
    fn a_body_that_decompresses_to_too_much_is_refused_within_its_limit() {
        let bomb = compress(&vec![b' '; 64 * 1024 * 1024]);
        assert!(bomb.len() < 100_000);
        assert_eq!(code(&bomb, 1024), Err("body_too_large"));
        let deep = compress(&bomb);
        assert_eq!(code(&deep, bomb.len()), Ok(bomb));
    }

    #[test]
    fn content_encoding_is_read_as_http_writes_it() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, HeaderValue::from_str(line).unwrap());
            }
            Coding::of(&headers)
        };
        for identity in [&[][..], &[""], &["identity"], &[" , Identity,"]] {
            assert_eq!(of(identity), Coding::Identity, "{identity:?}");
        }
        for gzip in [
            &["gzip"][..],
            &["GZIP"],
            &["x-gzip"],
            &["identity, gzip"],
            &["", "gzip"],
        ] {
            assert_eq!(of(gzip), Coding::Gzip, "{gzip:?}");
        }
        for other in [
            &["br"][..],
            &["gzip, gzip"],
            &["gzip", "br"],
            &["deflate"],
            &["gzip;q=1"],
        ] {
            assert_eq!(of(other), Coding::Other, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn compressed_bytes_decompress_to_the_same_within_their_size(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5), less in 0_usize..3) {
            let whole = parts.concat();
            let compressed = parts.iter().flat_map(|part| compress(part)).collect::<Vec<_>>();
            prop_assert_eq!(code(&compressed, whole.len()), Ok(whole.clone()));
            let limit = whole.len().saturating_sub(less);
            let expected = if limit < whole.len() { Err("body_too_large") } else { Ok(whole) };
            prop_assert_eq!(code(&compressed, limit), expected);
        }

        #[test]
        fn nothing_decompresses_beyond_the_limit_and_a_changed_byte_never_yields_another_text(mut compressed in proptest::collection::vec(any::<u8>(), 0..200), text in "[a-z]{1,200}", at in any::<prop::sample::Index>(), flip in 1_u8..) {
            for start in [false, true] {
                if start {
                    compressed = compress(text.as_bytes());
                    let at = at.index(compressed.len());
                    compressed[at] ^= flip;
                }
                if let Ok(body) = decompress(&compressed, 150) {
                    prop_assert!(body.len() <= 150);
                    prop_assert!(!start || body == text.as_bytes());
                }
            }
        }
    }
}
