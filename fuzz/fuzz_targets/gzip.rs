//! A compressed body within a limit: a byte for the limit, and the body. What is accepted is what another reading makes of all of
//! it, and one byte more or less is not accepted; what is compressed here, in one member or two, is read back.
#![no_main]

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use hookbridge::ingress::decompress;
use libfuzzer_sys::fuzz_target;

/// The largest limit, in bytes.
const MAX_LIMIT: usize = 1 << 20;

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("it is written to memory");
    encoder.finish().expect("it is written to memory")
}

fuzz_target!(|input: &[u8]| {
    let Some((limit, body)) = input.split_first() else {
        return;
    };
    let limit = MAX_LIMIT >> (limit % 21);
    match decompress(body, limit) {
        Ok(text) => {
            assert!(text.len() <= limit, "{} of {limit} bytes", text.len());
            let mut other = Vec::new();
            let read = MultiGzDecoder::new(body).read_to_end(&mut other);
            assert!(read.is_ok() && text == other, "another text: {read:?}");
            if let Some(less) = text.len().checked_sub(1) {
                let refused = decompress(body, less).map_err(|refusal| refusal.code());
                assert_eq!(refused, Err("body_too_large"));
            }
            let more = [body, b"x"].concat();
            assert!(decompress(&more, limit).is_err(), "something follows it");
            let less = &body[..body.len() - 1];
            assert!(decompress(less, limit).is_err(), "its end is missing");
        }
        Err(refusal) => {
            let code = refusal.code();
            assert!(
                matches!(code, "body_too_large" | "invalid_encoding"),
                "{code}"
            );
        }
    }
    let (first, second) = body.split_at(body.len() / 2);
    for members in [
        compressed(body),
        [compressed(first), compressed(second)].concat(),
    ] {
        match decompress(&members, limit) {
            Ok(text) => assert_eq!(text, body),
            Err(refusal) => assert!(body.len() > limit, "{}", refusal.code()),
        }
    }
});
