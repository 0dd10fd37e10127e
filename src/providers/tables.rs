//! The keys of a source that say how its requests are verified and how its events are read, for presets and for what users
//! declare.

use super::authentication::{PLACEMENT_ENCODINGS, SECRET_ENCODINGS, UNITS};
use super::keys::ALGORITHMS;
use super::reading::{BODIES, METHODS, TIME_UNITS};
use crate::table::key::{
    FILE, HEADER, HOST, Key, MEDIA_TYPE, NAME, POINTER, Syntax, TEMPLATE, TEXT, Table, Type, words,
};

const TOLERANCE: Type = Type::Duration {
    least: "1s",
    most: "7d",
};

static CREDENTIAL: Syntax = Syntax {
    noun: "credential",
    pattern: Some("^(bearer|basic|jwt|none|header:.+|query:.+|event:/.*)$"),
};

/// A template, or a table with one; of several, the first that the event can fill.
const CHOICE: Type = Type::List(&Type::Any(&[
    Type::Text(&TEMPLATE),
    Type::Table(&ALTERNATIVE),
]));

/// How requests are verified.
pub(crate) static AUTHENTICATION: [Key; 5] = [
    Key::new("scheme", Type::Text(&NAME)).depends("the preset's").about(
        "a signature scheme, where the preset has several; `hookbridge providers NAME` lists them",
    ),
    Key::new("auth", Type::List(&Type::Text(&CREDENTIAL)))
        .depends("the preset's signature")
        .about("a secret or token in the request instead of a signature, see [Providers](providers.md#presets)"),
    Key::new("jwt", Type::Table(&JWT))
        .depends("the preset's")
        .about("the tokens that `auth = \"jwt\"` accepts, see [Providers](providers.md#json-web-tokens)"),
    Key::new("verify", Type::TableOrTables(&VERIFY))
        .depends("the preset's")
        .about("how requests are signed; of a list, any one suffices. See [Sources without a preset](providers.md#sources-without-a-preset)"),
    Key::new("tolerance", TOLERANCE)
        .depends("the provider's (SYNQ: 35 min)")
        .about("how far the signed time may be from now, both ways"),
];

/// How events are read.
pub(crate) static EVENTS: [Key; 3] = [
    Key::new("event", Type::Table(&EVENT))
        .depends("the preset's")
        .about("where an event's id, type, time and subject are; keys of a preset can be replaced one by one"),
    Key::new("handshakes", Type::Tables(&HANDSHAKE))
        .depends("the preset's")
        .about("requests that are answered and never published"),
    Key::new("split", Type::Text(&POINTER))
        .depends("the preset's, else none")
        .about("an array in the body, each element of which is an event; `\"\"`: the body is the array"),
];

/// Keys that hooks read.
pub(crate) static OF_HOOKS: [Key; 5] = [
    Key::new("topic_arns", Type::List(&Type::Text(&TEXT)))
        .depends("required")
        .about("the topics whose messages are accepted")
        .of("aws-sns"),
    Key::new("certificates", Type::Text(&FILE))
        .about("a folder with the PEM files that `SigningCertURL` names")
        .of("aws-sns"),
    Key::new("fetch_certificates", Type::Flag)
        .default("false")
        .about("fetch others from `sns.REGION.amazonaws.com`")
        .of("aws-sns"),
    Key::new("confirm_subscriptions", Type::Flag)
        .default("false")
        .about("confirm a subscription by a request to the same host")
        .of("aws-sns"),
    Key::new("validation_tokens", Type::Table(&JWT))
        .about("the tokens that events with encrypted contents must carry")
        .of("microsoft-graph"),
];

/// A preset before it is laid under a source.
pub(crate) static PRESET: Table = Table::new(&[&AUTHENTICATION, &EVENTS, &OF_HOOKS]);

pub(crate) static JWT: Table = Table::new(&[&[
    Key::new("keys", Type::Text(&FILE))
        .depends("`secrets`, as keys of HS256")
        .about("a file with public keys: PEM `PUBLIC KEY` blocks, or a JWKS. RSA is RS256, P-256 is ES256, Ed25519 is EdDSA"),
    Key::new("issuer", Type::List(&Type::Text(&TEXT))).about("the required value of `iss`; of a list, one of them"),
    Key::new("audience", Type::List(&Type::Text(&TEMPLATE)))
        .about("a value that `aud` must be or contain; of a list, one of them. `\"{url}\"` is `public_url` and the request's query"),
    Key::new("appid", Type::List(&Type::Text(&TEXT))).about("the required value of `appid`, or of `azp` where the token has none; of a list, one of them"),
]]);

pub(crate) static VERIFY: Table = Table::new(&[&[
    Key::new("algorithm", Type::Words(&words(&ALGORITHMS)))
        .default("hmac-sha256")
        .about("`token` compares a secret in the request"),
    Key::new("secret_encoding", Type::Words(&words(&SECRET_ENCODINGS)))
        .default("text")
        .about("the encoding of `secrets`"),
    Key::new("secret_prefix", Type::Text(&TEXT)).about("removed from a secret before decoding"),
    Key::new("signature", Type::Table(&SIGNATURE))
        .depends("required")
        .about("location and format of the signature"),
    Key::new("content", Type::List(&Type::Text(&TEMPLATE)))
        .depends("`\"{body}\"`")
        .about("what is signed: `{timestamp}`, `{method}`, `{url}`, `{path}`, `{query}`, `{body}`, `{form}` (every field, sorted), `{header:NAME}`, `{query:NAME}`, `{form:NAME}`, `{/json/pointer}`; of a list, any one suffices"),
    Key::new("timestamp", Type::Table(&TIMESTAMP)).about("location and format of the signed time"),
    Key::new("tolerance", TOLERANCE)
        .about("how far that time may be from now; without it, a request of any age is accepted"),
    Key::new("future_tolerance", TOLERANCE)
        .depends("`tolerance`")
        .about("how far it may be ahead of now"),
    Key::new("body_digest", Type::Table(&BODY_DIGEST))
        .about("location of the body's hexadecimal SHA-256, where the signed content has that instead of the body"),
    Key::new("nonce", Type::Text(&TEMPLATE))
        .about("where `content` has a nonce and not the body: a nonce is good for one body and its repetitions"),
    Key::new("hook", Type::Text(&NAME)).internal(),
    Key::new("versions", Type::List(&Type::Text(&TEXT)))
        .default("[\"1\", \"2\"]")
        .internal(),
]]);

/// The location of a signature or a time: exactly one of these, or one that only one of the two may have.
static LOCATION: [Key; 4] = [
    Key::new("header", Type::List(&Type::Text(&HEADER)))
        .about("a header; of a list, the first that is present"),
    Key::new("query", Type::Text(&TEXT)).about("a parameter of the query"),
    Key::new("form", Type::Text(&TEXT)).about("a field of a form"),
    Key::new("pointer", Type::Text(&POINTER)).about("a string in the JSON body"),
];

pub(crate) static SIGNATURE: Table = Table::new(&[
    &LOCATION,
    &[
        Key::new("numbered_headers", Type::Text(&HEADER))
            .about("headers that begin with this text and end with a number"),
        Key::new("separator", Type::Text(&TEXT))
            .about("one ASCII character between several values"),
        Key::new("field", Type::Text(&TEXT))
            .about("of values that are `NAME=value`, the name of those that count"),
        Key::new("prefix", Type::Text(&TEXT))
            .about("removed from each value; a value without it is ignored"),
        Key::new("encoding", Type::Words(&words(&PLACEMENT_ENCODINGS))).default("hex"),
    ],
]);

pub(crate) static TIMESTAMP: Table = Table::new(&[
    &LOCATION,
    &[
        Key::new("field", Type::Text(&TEXT)).about("a field of the signature's header"),
        Key::new("unit", Type::Words(&words(&UNITS))).default("s"),
    ],
]);

static BODY_DIGEST: Table = Table::new(&[&LOCATION]);

pub(crate) static EVENT: Table = Table::new(&[&[
    Key::new("id", CHOICE)
        .depends("required")
        .about("a template such as `\"{/id}\"`; of a list, the first whose parts are all present. `\"{sha256:body}\"` or `\"{uuid}\"` for events without an id"),
    Key::new("type", CHOICE).depends("required").about("likewise"),
    Key::new("time", CHOICE).about("likewise"),
    Key::new("time_unit", Type::Words(&words(&TIME_UNITS))).default("rfc3339"),
    Key::new("subject", CHOICE).about("likewise; CloudEvents' `subject`"),
    Key::new("key", CHOICE)
        .depends("the event id")
        .about("likewise; the key where a route has none"),
    Key::new("types", Type::List(&Type::Text(&TEXT))).about("known types, which become metric labels"),
    Key::new("types_are_all", Type::Flag)
        .default("false")
        .about("the list is complete: a route that none of them reaches causes a warning"),
    Key::new("body", Type::Words(&words(&BODIES)))
        .default("json")
        .about("`form` has `{form:NAME}`, `lines` is one JSON text per line, `raw` is not parsed"),
    Key::new("form_field", Type::Text(&TEXT)).about("a field of a form that holds JSON"),
    Key::new("cloudevents", Type::Flag)
        .default("false")
        .about("bodies with a CloudEvents media type are read as CloudEvents"),
    Key::new("hook", Type::Text(&NAME)).internal(),
]]);

static ALTERNATIVE: Table = Table::new(&[&[
    Key::new("text", Type::Text(&TEMPLATE)).about("the template"),
    Key::new("when", Type::Text(&TEMPLATE)).about("taken only where this template can be filled"),
]]);

pub(crate) static HANDSHAKE: Table = Table::new(&[&[
    Key::new("method", Type::Words(&METHODS)).default("POST"),
    Key::new("query", Type::Text(&TEXT)).about("a query parameter that must be present"),
    Key::new("header", Type::Text(&HEADER)).about("a header that must be present"),
    Key::new("form", Type::Text(&TEXT)).about("a form field that must be present"),
    Key::new("pointer", Type::Text(&POINTER)).about("a value in the JSON body that must be present"),
    Key::new("equals", Type::Text(&TEXT)).about("the value that the last of these must have"),
    Key::new("hosts", Type::List(&Type::Text(&HOST)))
        .about("the host names that it may be instead; `\"*\"` is any"),
    Key::new("absent", Type::Text(&POINTER)).about("a JSON Pointer that must lead to no value"),
    Key::new("verified", Type::Flag).default("false").about(
        "only with a valid signature; required, `true` or `false`, where the body identifies a handshake",
    ),
    Key::new(
        "status",
        Type::Count {
            least: 200,
            most: 299,
        },
    )
    .default("200")
    .about("of the answer"),
    Key::new("content_type", Type::Text(&MEDIA_TYPE))
        .depends("`\"text/plain\"`, for `json` `\"application/json\"`"),
    Key::new("headers", Type::Map(&Type::Text(&TEMPLATE))).about("further headers of the answer"),
    Key::new("answer", Type::Text(&TEMPLATE))
        .about("its body, for example `\"{query:challenge}\"`"),
    Key::new("json", Type::Map(&Type::Text(&TEMPLATE)))
        .about("a JSON object instead; `{hmac:/pointer}` is the HMAC of a value"),
]]);
