//! Sources declared in TOML, against code that is not the bridge's: `hmac` signs, openssl made the keys and the signatures in
//! `fixtures/`, and `serde_json` reads the events.

use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use form_urlencoded::Serializer;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use strum::VariantArray;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::brokers::Kind;
use crate::config::{Config, Source};

const BROKER: &str = r#"
[brokers.main]
kind = "kafka"
bootstrap_servers = "localhost:9092"
[[routes]]
topic = "t"
"#;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const NOW: u64 = 1_795_132_800;

/// A TOML string.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

// ---- Algorithms and secrets

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// An algorithm, a form of its secret, and another implementation of the sender's part.
struct Signer {
    algorithm: &'static str,
    secret: String,
    /// Further keys of `verify`.
    keys: &'static str,
    sign: Sign,
}

fn mac<M: Mac + KeyInit>(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(content);
    mac.finalize().into_bytes().to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.collect();
    BASE64.decode(text.as_bytes()).unwrap()
}

fn rsa(encoding: &'static dyn RsaEncoding) -> Sign {
    let pair = RsaKeyPair::from_pkcs8(&der(include_str!("fixtures/rsa.pem"))).unwrap();
    Box::new(move |content| {
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = SystemRandom::new();
        pair.sign(encoding, &random, content, &mut signature)
            .unwrap();
        signature
    })
}

fn ecdsa() -> Sign {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = der(include_str!("fixtures/p256.pem"));
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &SystemRandom::new()).unwrap();
    Box::new(move |content| {
        let signature = pair.sign(&SystemRandom::new(), content);
        signature.unwrap().as_ref().to_vec()
    })
}

fn ed25519() -> Sign {
    let pkcs8 = der(include_str!("fixtures/ed25519.pem"));
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).unwrap();
    Box::new(move |content| pair.sign(content).as_ref().to_vec())
}

/// The public keys that openssl wrote.
const RSA: &str = include_str!("fixtures/rsa.public.pem");
const P256: &str = include_str!("fixtures/p256.public.pem");
const ED25519: &str = include_str!("fixtures/ed25519.public.pem");

/// Every algorithm with every form that its secret may have. `token` has no signature.
fn signers(random: &mut Random) -> Vec<Signer> {
    type Keyed = fn(&[u8], &[u8]) -> Vec<u8>;
    let keyed: [(_, Keyed); 5] = [
        ("hmac-sha1", mac::<Hmac<Sha1>>),
        ("hmac-sha256", mac::<Hmac<Sha256>>),
        ("hmac-sha384", mac::<Hmac<Sha384>>),
        ("hmac-sha512", mac::<Hmac<Sha512>>),
        ("sha256-of-secret-and-content", |key, content| {
            Sha256::digest([key, content].concat()).to_vec()
        }),
    ];
    let mut signers = Vec::new();
    for (algorithm, sign) in keyed {
        let text = random.value("[a-zA-Z0-9]{16,150}");
        let bytes = random.value(proptest::collection::vec(any::<u8>(), 16..150));
        let forms = [
            (text.clone().into_bytes(), text, ""),
            (
                bytes.clone(),
                HEXLOWER.encode(&bytes),
                "secret_encoding = \"hex\"",
            ),
            (
                bytes.clone(),
                format!("whsec_{}", BASE64.encode(&bytes)),
                "secret_encoding = \"base64\"\nsecret_prefix = \"whsec_\"",
            ),
        ];
        signers.extend(forms.map(|(key, secret, keys)| Signer {
            algorithm,
            secret,
            keys,
            sign: Box::new(move |content| sign(&key, content)),
        }));
    }
    let public: [(_, _, fn() -> Sign); 4] = [
        ("ed25519", ED25519, ed25519),
        ("ecdsa-p256-sha256", P256, ecdsa),
        ("rsa-sha256", RSA, || rsa(&RSA_PKCS1_SHA256)),
        ("rsa-sha512", RSA, || rsa(&RSA_PKCS1_SHA512)),
    ];
    for (algorithm, pem, sign) in public {
        let forms = [
            pem.to_owned(),
            HEXLOWER.encode(&der(pem)),
            BASE64.encode(&der(pem)),
        ];
        signers.extend(forms.map(|secret| Signer {
            algorithm,
            secret,
            keys: "",
            sign: sign(),
        }));
    }
    signers
}

/// Values that are the same in each run.
struct Random(TestRunner);

impl Random {
    fn value<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

// ---- Places and times

#[derive(Debug, Clone, Copy, PartialEq, VariantArray)]
enum Place {
    Header,
    Prefix,
    /// `NAME=value` pairs, the time among them.
    Pairs,
    List,
    NumberedHeaders,
    Query,
    Form,
    Pointer,
}
use Place::{Form, Header, List, NumberedHeaders, Pairs, Pointer, Prefix, Query};

const UNITS: [Option<&str>; 4] = [None, Some("s"), Some("ms"), Some("rfc3339")];
const ENCODINGS: [&str; 3] = ["hex", "base64", "base64url"];

fn encode(encoding: &str, bytes: &[u8]) -> String {
    match encoding {
        "hex" => HEXLOWER.encode(bytes),
        "base64" => BASE64.encode(bytes),
        _ => BASE64URL_NOPAD.encode(bytes),
    }
}

/// The time as a provider writes it.
fn written(unit: &str, seconds: u64) -> String {
    match unit {
        "s" => seconds.to_string(),
        "ms" => format!("{seconds}000"),
        _ => OffsetDateTime::from(at(seconds)).format(&Rfc3339).unwrap(),
    }
}

impl Place {
    fn is_in_body(self) -> bool {
        matches!(self, Form | Pointer)
    }

    /// The keys of a source.
    fn source(self, unit: Option<&str>, encoding: &str) -> String {
        let (signature, timestamp) = match self {
            Header => ("header = \"x-signature\"", "header = \"x-time\""),
            Prefix => (
                "header = \"x-signature\", prefix = \"sha=\"",
                "header = \"x-time\"",
            ),
            Pairs => (
                "header = \"x-signature\", separator = \",\", field = \"v1\"",
                "field = \"t\"",
            ),
            List => (
                "header = \"x-signature\", separator = \" \", prefix = \"v1,\"",
                "header = \"x-time\"",
            ),
            NumberedHeaders => ("numbered_headers = \"x-signature-\"", "query = \"at\""),
            Query => ("query = \"sig\"", "query = \"at\""),
            Form => ("form = \"sig\"", "form = \"at\""),
            Pointer => ("pointer = \"/s/sig\"", "pointer = \"/s/at\""),
        };
        let time = unit.map_or("", |_| "{timestamp}.");
        let content = match self {
            Form => format!("{{form:a}}:{time}"),
            Pointer => format!("{{/a}}:{time}"),
            _ => format!("v0:{{method}}:{{header:x-id}}:{{query:a}}:{time}{{body}}"),
        };
        let timestamp = unit.map(|unit| {
            format!("timestamp = {{ {timestamp}, unit = \"{unit}\" }}\ntolerance = \"5m\"\n")
        });
        let timestamp = timestamp.unwrap_or_default();
        format!(
            "signature = {{ {signature}, encoding = \"{encoding}\" }}\ncontent = \"{content}\"\n{timestamp}"
        )
    }

    fn event_body(self) -> &'static str {
        match self {
            Form => "form",
            Pointer => "json",
            _ => "raw",
        }
    }
}

/// The values that a signature covers.
#[derive(Debug, Clone)]
struct Covered {
    id: String,
    a: String,
    body: Vec<u8>,
    time: Option<String>,
}

impl Covered {
    fn content(&self, place: Place) -> Vec<u8> {
        let mut content = match place.is_in_body() {
            true => format!("{}:", self.a),
            false => format!("v0:POST:{}:{}:", self.id, self.a),
        };
        if let Some(time) = &self.time {
            content.push_str(time);
            content.push('.');
        }
        let mut content = content.into_bytes();
        if !place.is_in_body() {
            content.extend(&self.body);
        }
        content
    }

    /// The same with one bit of one part changed, for each part.
    fn changed(&self, place: Place, random: &mut Random) -> Vec<Self> {
        let mut all = vec![Self {
            a: with_other_bit(&self.a, random),
            ..self.clone()
        }];
        if let Some(time) = &self.time {
            // The last digit before a unit or offset, and the value stays a time.
            let at = time.rfind(|letter: char| letter.is_ascii_digit()).unwrap();
            let mut time = time.clone().into_bytes();
            time[at] ^= 1;
            all.push(Self {
                time: Some(String::from_utf8(time).unwrap()),
                ..self.clone()
            });
        }
        if !place.is_in_body() {
            all.push(Self {
                id: with_other_bit(&self.id, random),
                ..self.clone()
            });
            let mut body = self.body.clone();
            let at = random.value(0..body.len());
            body[at] ^= 1 << random.value(0..8_u32);
            all.push(Self {
                body,
                ..self.clone()
            });
        }
        all
    }

    /// The request of a provider that signs so.
    fn request(
        &self,
        source: &Arc<Source>,
        place: Place,
        signature: &str,
        decoy: &str,
    ) -> Received {
        let time = self.time.as_deref();
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str| {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        };
        let mut query = vec![("a", self.a.as_str())];
        let mut body = self.body.clone();
        let mut media_type = "application/octet-stream";
        add("x-id", &self.id);
        match place {
            Header => add("x-signature", signature),
            Prefix => add("x-signature", &format!("sha={signature}")),
            Pairs => {
                let time = time.map(|time| format!("t={time},")).unwrap_or_default();
                let pairs = format!("{time}v0={signature}, v1={decoy},v1={signature}");
                add("x-signature", &pairs);
            }
            List => {
                add("x-signature", &format!("v1,{decoy} v0,{decoy}"));
                add("x-signature", &format!("v2,{decoy} v1,{signature}"));
            }
            NumberedHeaders => {
                add("x-signature-1", decoy);
                add("x-signature-2", signature);
            }
            Query => query.push(("sig", signature)),
            Form => {
                media_type = "application/x-www-form-urlencoded";
                let mut form = Serializer::new(String::new());
                form.append_pair("a", &self.a).append_pair("sig", signature);
                form.extend_pairs(time.map(|time| ("at", time)));
                body = form.finish().into_bytes();
            }
            Pointer => {
                media_type = "application/json";
                let number = time.and_then(|time| time.parse::<u64>().ok());
                let time = number.map_or_else(|| json!(time), Value::from);
                let object = json!({ "a": self.a, "s": { "sig": signature, "at": time } });
                body = object.to_string().into_bytes();
            }
        }
        match place {
            Header | Prefix | List => {
                if let Some(time) = time {
                    add("x-time", time);
                }
            }
            NumberedHeaders | Query => query.extend(time.map(|time| ("at", time))),
            Pairs | Form | Pointer => {}
        }
        add("content-type", media_type);
        let query = Serializer::new(String::new()).extend_pairs(query).finish();
        let target = format!("{}?{query}", source.path).parse().unwrap();
        Received::from_parts(Arc::clone(source), headers, body.into(), at(NOW))
            .with_target(http::Method::POST, target)
    }
}

fn with_other_bit(text: &str, random: &mut Random) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = random.value(0..bytes.len());
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

fn verdict(received: Received) -> Result<Option<usize>, Refusal> {
    verify::verify(received).map(|verified| verified.secret_index())
}

/// Each algorithm with each form of its secret, encoding and place of its signature, and unit of its time.
#[test]
fn whatever_is_declared_accepts_what_was_signed_so_and_nothing_of_which_a_bit_differs() {
    let mut random = Random(TestRunner::deterministic());
    for signer in signers(&mut random) {
        for encoding in ENCODINGS {
            let cases: Vec<_> = Place::VARIANTS
                .iter()
                .flat_map(|place| UNITS.map(|unit| (*place, unit)))
                .collect();
            // Sources are in the order of their names.
            let mut text = BROKER.to_owned();
            for (index, (place, unit)) in cases.iter().enumerate() {
                text.push_str(&format!(
                    "[sources.s{index:02}]\nsecrets = [{}]\nmedia_types = [\"*/*\"]\n\
                     event = {{ id = \"{{uuid}}\", type = \"x\", body = \"{}\" }}\n\
                     [sources.s{index:02}.verify]\nalgorithm = \"{}\"\n{}\n{}",
                    quoted(&signer.secret),
                    place.event_body(),
                    signer.algorithm,
                    signer.keys,
                    place.source(*unit, encoding)
                ));
            }
            let config = Config::from_text(&text);
            for (source, (place, unit)) in config.sources.iter().zip(cases) {
                let covered = Covered {
                    id: random.value("[a-z]{1,20}"),
                    a: random.value("[a-z]{1,20}"),
                    body: random.value(proptest::collection::vec(any::<u8>(), 1..100)),
                    time: unit.map(|unit| written(unit, NOW - 7)),
                };
                let name = format!("{} {encoding} {place:?} {unit:?}", signer.algorithm);
                let mut signature = (signer.sign)(&covered.content(place));
                let decoy = encode(encoding, &vec![7; signature.len()]);
                let send = |covered: &Covered, signature: &[u8]| {
                    let signature = encode(encoding, signature);
                    verdict(covered.request(source, place, &signature, &decoy))
                };
                assert_eq!(send(&covered, &signature), Ok(Some(0)), "{name}");
                for changed in covered.changed(place, &mut random) {
                    let verdict = send(&changed, &signature);
                    assert_eq!(
                        verdict,
                        Err(Refusal::InvalidSignature),
                        "{name} {changed:?}"
                    );
                }
                if let Some(unit) = unit {
                    for seconds in [NOW - 301, NOW + 301] {
                        let stale = Covered {
                            time: Some(written(unit, seconds)),
                            ..covered.clone()
                        };
                        let signature = (signer.sign)(&stale.content(place));
                        let verdict = send(&stale, &signature);
                        assert_eq!(verdict, Err(Refusal::StaleTimestamp), "{name} {stale:?}");
                    }
                }
                let at = random.value(0..signature.len());
                signature[at] ^= 1 << random.value(0..8_u32);
                let verdict = send(&covered, &signature);
                assert_eq!(verdict, Err(Refusal::InvalidSignature), "{name}");
            }
        }
    }
}

/// `openssl dgst -sha256 -sign rsa.pem` and likewise, for Ed25519 `openssl pkeyutl -sign -rawin`.
#[test]
fn what_openssl_has_signed_is_accepted_by_its_own_algorithm_only() {
    let signed = [
        ("rsa-sha256", RSA, include_str!("fixtures/rsa-sha256.sig")),
        ("rsa-sha512", RSA, include_str!("fixtures/rsa-sha512.sig")),
        (
            "ecdsa-p256-sha256",
            P256,
            include_str!("fixtures/ecdsa-p256-sha256.sig"),
        ),
        ("ed25519", ED25519, include_str!("fixtures/ed25519.sig")),
    ];
    let mut text = BROKER.to_owned();
    for (algorithm, pem, _) in signed {
        text.push_str(&format!(
            "[sources.{algorithm}]\nsecrets = [{}]\nevent = {{ id = \"{{/id}}\", type = \"x\" }}\n\
             [sources.{algorithm}.verify]\nalgorithm = \"{algorithm}\"\ntolerance = \"5m\"\n\
             signature = {{ header = \"x-signature\", encoding = \"base64\" }}\n\
             timestamp = {{ header = \"x-time\" }}\ncontent = \"{{timestamp}}.{{body}}\"\n",
            quoted(pem)
        ));
    }
    let config = Config::from_text(&text);
    for source in &config.sources {
        for (algorithm, _, signature) in signed {
            let headers = [
                ("content-type", "application/json"),
                ("x-signature", signature.trim()),
                ("x-time", "1795132800"),
            ];
            let headers = headers.map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            let headers = HeaderMap::from_iter(headers);
            let body = Bytes::from_static(br#"{"id":"evt_1"}"#);
            let received = Received::from_parts(Arc::clone(source), headers, body, at(NOW));
            let expected = match source.name == algorithm {
                true => Ok(Some(0)),
                false => Err(Refusal::InvalidSignature),
            };
            assert_eq!(verdict(received), expected, "{}: {algorithm}", source.name);
        }
    }
}

// ---- The event mapping

/// A part of a template.
#[derive(Debug, Clone)]
enum Part {
    Text(&'static str),
    Pointer(&'static str),
    /// The first of these headers that is there.
    Headers(Vec<&'static str>),
}

const POINTERS: [&str; 6] = ["/a", "/b/c", "/b/1", "/d~1e", "/~0", "/none"];
const HEADERS: [&str; 3] = ["x-a", "x-b", "x-c"];

impl Part {
    fn toml(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Pointer(pointer) => format!("{{{pointer}}}"),
            Self::Headers(names) => format!("{{header:{}}}", names.join("|")),
        }
    }

    fn value(&self, headers: &[Option<String>], body: &Value) -> Option<String> {
        let value = match self {
            Self::Text(text) => Some((*text).to_owned()),
            Self::Pointer(pointer) => match body.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
                scalar => Some(scalar.to_string()),
            },
            Self::Headers(names) => names.iter().find_map(|name| {
                let index = HEADERS.iter().position(|known| known == name)?;
                headers[index].clone()
            }),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// A list of templates, of which the first counts whose parts are all there.
type Alternatives = Vec<Vec<Part>>;

fn alternatives() -> impl Strategy<Value = Alternatives> {
    let placeholder = || {
        prop_oneof![
            proptest::sample::select(&POINTERS[..]).prop_map(Part::Pointer),
            proptest::sample::subsequence(&HEADERS[..], 1..=3)
                .prop_shuffle()
                .prop_map(Part::Headers),
        ]
    };
    let text = proptest::sample::select(&["v1-", ".", " é:"][..]).prop_map(Part::Text);
    let rest = proptest::collection::vec(prop_oneof![text, placeholder()], 0..3);
    let template = (placeholder(), rest).prop_map(|(first, mut rest)| {
        rest.push(first);
        rest
    });
    proptest::collection::vec(template, 1..4)
}

fn toml(alternatives: &Alternatives) -> String {
    let text = |template: &Vec<Part>| template.iter().map(Part::toml).collect::<String>();
    let texts: Vec<_> = alternatives.iter().map(text).collect();
    json!(texts).to_string()
}

fn filled(alternatives: &Alternatives, headers: &[Option<String>], body: &Value) -> Option<String> {
    alternatives.iter().find_map(|template| {
        let values = template.iter().map(|part| part.value(headers, body));
        values.collect()
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "[a-zA-Zé\"\\\\ ]{0,8}".prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([1])),
    ]
}

fn object() -> impl Strategy<Value = Value> {
    let maybe = || proptest::option::of(scalar());
    let inner = prop_oneof![
        maybe().prop_map(|c| c.map_or(json!({}), |c| json!({ "c": c }))),
        proptest::collection::vec(scalar(), 0..3).prop_map(Value::from),
    ];
    (maybe(), maybe(), maybe(), inner).prop_map(|(a, d, tilde, inner)| {
        let mut object = serde_json::Map::new();
        let members = [("a", a), ("d/e", d), ("~", tilde), ("b", Some(inner))];
        for (name, value) in members {
            object.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(object)
    })
}

/// A time as it may be in a body.
fn any_time() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4_000_000_000_u64).prop_map(Value::from),
        (0..4_000_000_000_u64).prop_map(|number| Value::from(number.to_string())),
        Just(json!("2026-08-01T07:59:58+02:00")),
        Just(json!("soon")),
        Just(Value::Null),
        Just(json!({})),
    ]
}

/// The first of `/t` and `/u` that is a scalar, if it is a time.
fn expected_time(unit: &str, body: &Value) -> Option<String> {
    let scalars = ["/t", "/u"]
        .into_iter()
        .filter_map(|pointer| match body.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
    let text = scalars.take(1).next()?;
    let divisor = match unit {
        "rfc3339" => {
            return OffsetDateTime::parse(&text, &Rfc3339)
                .is_ok()
                .then_some(text);
        }
        "s" => 1,
        _ => 1000,
    };
    let nanoseconds = text.parse::<i128>().ok()? * (1_000_000_000 / divisor);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds);
    time.ok()?.format(&Rfc3339).ok()
}

proptest! {
    #[test]
    fn events_are_read_as_an_independent_implementation_reads_them(
        choices in proptest::array::uniform4(alternatives()),
        unit in proptest::sample::select(&["rfc3339", "s", "ms"][..]),
        headers in proptest::collection::vec(proptest::option::of("[a-zA-Z0-9]{0,8}"), 3),
        object in object(),
        times in proptest::array::uniform2(any_time()),
    ) {
        let [id, event_type, subject, key] = &choices;
        let config = Config::from_text(&format!(
            "{BROKER}[sources.acme]\nsecrets = [\"a secret of ours\"]\n\
             verify = {{ signature = {{ header = \"x-signature\" }} }}\n\
             [sources.acme.event]\nid = {}\ntype = {}\nsubject = {}\nkey = {}\n\
             time = [\"{{/t}}\", \"{{/u}}\"]\ntime_unit = \"{unit}\"\n",
            toml(id), toml(event_type), toml(subject), toml(key)
        ));
        let mut object = object;
        let [t, u] = times;
        object["t"] = t;
        object["u"] = u;
        let mut fields = HeaderMap::new();
        fields.insert("content-type", HeaderValue::from_static("application/json"));
        for (name, value) in HEADERS.into_iter().zip(&headers) {
            let value = value.as_ref().map(|value| HeaderValue::from_str(value).unwrap());
            fields.extend(value.map(|value| (HeaderName::from_static(name), value)));
        }
        let source = Arc::clone(&config.sources[0]);
        let body = Bytes::from(object.to_string());
        let received = Received::from_parts(source, fields, body, at(NOW));
        let Decided::Event(decision) = decide(&Verified::assumed(received)) else {
            panic!("one event")
        };
        let expected = |choice| filled(choice, &headers, &object);
        let Some(id) = expected(id) else {
            prop_assert!(matches!(decision.verdict, Verdict::Refuse(Refusal::MissingEventId)));
            return Ok(());
        };
        let Some(event_type) = expected(event_type) else {
            prop_assert!(matches!(decision.verdict, Verdict::Refuse(Refusal::MissingEventType)));
            return Ok(());
        };
        let Verdict::Publish { delivery, .. } = decision.verdict else {
            panic!("{:?}", decision.verdict)
        };
        let message = delivery.to.message;
        let subject = expected(subject);
        let key = expected(key).or(subject.clone()).unwrap_or(id.clone());
        prop_assert_eq!(&message.key, &key);
        let on_kafka: Vec<_> = message.headers_on(Kind::Kafka).collect();
        let header = |wanted: &str| {
            let found = on_kafka.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
        };
        prop_assert_eq!(header("event_id"), Some(id));
        prop_assert_eq!(header("ce_type"), Some(event_type));
        prop_assert_eq!(header("ce_subject"), subject);
        prop_assert_eq!(header("ce_time"), expected_time(unit, &object));
    }
}
