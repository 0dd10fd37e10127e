//! One POST, as a webhook sender makes it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};

pub(super) use crate::http_post::Answer;
use crate::http_post::{self, Error, Terms};

/// Longer than any reasonable `publish_timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum size of an answer in bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Posts a JSON body with these headers.
pub(super) async fn post(url: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answer, Error> {
    let terms = Terms {
        authorities: None,
        max_answer_bytes: MAX_ANSWER_BYTES,
    };
    tokio::time::timeout(TIMEOUT, http_post::post(url, headers, body, terms))
        .await
        .map_err(|_| "no answer within a minute")?
}
