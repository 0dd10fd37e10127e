//! How a source's requests are verified: by a signature, with one or more schemes, or by a secret sent with the
//! request.

use std::time::Duration;

use http::HeaderName;
use serde::Serialize;
use smallvec::SmallVec;

use super::credentials::{self, Credential, Member};
use super::handshake::FollowUp;
use super::hooks;
use super::jwt::{Jwt, read_jwt};
use super::keys::{ALGORITHMS, Algorithm, Encoding, Key};
use super::mapping::Mapping;
use super::reading::read_text;
use super::request::{Request, Scope};
use super::scheme::{
    KeySettings, Location, Placement, Scheme, Timestamp, Tolerance, Unit, Unverified,
};
use super::text::{Choice, Parsing, Text};
use super::verifier::{Preparation, Verifier};
use crate::event::Refusal;
use crate::json::{Node, NodeKind, Pointer};
use crate::secret::Secret;
use crate::table::{Section, WordOrSection};

pub(super) const SECRET_ENCODINGS: [(&str, Encoding); 3] = [
    ("text", Encoding::Text),
    ("base64", Encoding::Base64),
    ("hex", Encoding::Hex),
];
pub(super) const PLACEMENT_ENCODINGS: [(&str, Encoding); 4] = [
    ("hex", Encoding::Hex),
    ("base64", Encoding::Base64),
    ("base64url", Encoding::Base64Url),
    ("text", Encoding::Text),
];
pub(super) const UNITS: [(&str, Unit); 3] = [
    ("s", Unit::Seconds),
    ("ms", Unit::Milliseconds),
    ("rfc3339", Unit::Rfc3339),
];

/// How a source's requests are verified.
#[derive(Debug)]
pub enum Authentication {
    /// A signature in any of these schemes.
    Signature(Vec<Scheme>),
    /// A secret sent with the request, in any of these ways.
    Credentials {
        /// The places where the secret may be.
        ways: Vec<Credential>,
        secrets: Vec<Secret>,
    },
    /// A verifier in code.
    Hook(Box<dyn Verifier>),
}

/// A readable summary of how a request is authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The algorithm or the kind of credential, and its place.
    pub by: String,
    /// The signed text: `{body}` for the body, other placeholders filled in as far as the request has them. Empty if
    /// nothing is signed.
    pub covers: String,
    /// Headers that the event is read from but that the signature does not cover.
    pub unsigned_headers: Vec<String>,
}

/// Reads `verify` or `auth`. Problems are reported to the section.
pub fn read_authentication(
    source: &mut Section<'_>,
    secrets: Vec<Secret>,
) -> Option<Authentication> {
    let tolerance = source.optional_duration("tolerance");
    let auth = source.texts("auth");
    let mut jwt = source.section("jwt");
    if let (None, Some(unused)) = (&auth, &mut jwt) {
        source.problem_at("jwt", JWT_WITHOUT_AUTH);
        unused.finish_quietly();
    }
    let is_declared = source.has("verify");
    let mut tables = source.tables("verify");
    if let (None, [table]) = (&auth, tables.as_mut_slice())
        && let Some(name) = table.text("hook")
    {
        let read = read_hook(source, table, &name, secrets, tolerance);
        tables.into_iter().for_each(Section::finish);
        return read;
    }
    match (auth, tables.is_empty()) {
        (Some(_), false) => {
            source.problem_at("auth", "conflicts with `verify`; leave one of the two");
            None
        }
        (Some(words), true) => {
            if tolerance.is_some() {
                source.warn_at(
                    "tolerance",
                    "it has no effect with `auth`, which knows no signed time; remove it",
                );
            }
            read_credentials(source, &words, jwt, secrets)
        }
        // The faults of `verify` have been reported.
        (None, true) if is_declared => None,
        (None, true) => {
            source.problem(
                "defines neither how requests are signed nor how senders are authenticated; write `[…verify]`, or for example `auth = \"bearer\"`",
            );
            None
        }
        (None, false) => read_schemes(source, tables, secrets, tolerance),
    }
}

fn read_hook(
    source: &mut Section<'_>,
    table: &mut Section<'_>,
    name: &str,
    secrets: Vec<Secret>,
    tolerance: Option<Duration>,
) -> Option<Authentication> {
    let Some(read) = hooks::verifier(name) else {
        table.problem_at("hook", "unknown hook; remove it");
        return None;
    };
    let verifier = read(source, table, secrets, tolerance);
    verifier.map(Authentication::Hook)
}

/// Reads the settings for tokens that must accompany events with encrypted contents.
fn read_tokens(source: &mut Section<'_>) -> Option<Jwt> {
    let section = source.section("validation_tokens")?;
    for (key, what) in [
        (
            "keys",
            "the file with the issuer's public keys, as PEM or JWKS",
        ),
        ("audience", "the id of your application"),
        (
            "appid",
            "the application that sends: Microsoft Graph's is 0bf30f3b-4a52-48df-9a82-234910c4a086",
        ),
    ] {
        if !section.has(key) {
            section.problem(format!("lacks `{key}`, {what}"));
        }
    }
    read_jwt(Some(section), &[])
}

fn read_credentials(
    source: &mut Section<'_>,
    words: &[String],
    mut jwt: Option<Section<'_>>,
    secrets: Vec<Secret>,
) -> Option<Authentication> {
    let mut ways = Vec::with_capacity(words.len());
    let has_tokens = source.has("validation_tokens");
    for (index, word) in words.iter().enumerate() {
        if word == "jwt" {
            ways.extend(read_jwt(jwt.take(), &secrets).map(Credential::Jwt));
            continue;
        }
        match Credential::parse(word) {
            Ok(Credential::Event(member)) => ways.push(Credential::Event(Member {
                split: source.peek("split").map(str::to_owned),
                tokens: read_tokens(source),
                ..member
            })),
            Ok(way) => ways.push(way),
            Err(mistake) => {
                source.problem_at(&format!("auth[{index}]"), mistake.to_string());
            }
        }
    }
    if let Some(mut unused) = jwt {
        source.problem_at("jwt", JWT_WITHOUT_AUTH);
        unused.finish_quietly();
    }
    let is_in_events = ways.iter().any(Credential::is_in_event);
    if has_tokens && is_in_events && !ways.iter().all(Credential::is_in_event) {
        source.problem_at(
            "validation_tokens",
            "they would not be checked in a request that another way of `auth` accepts; leave only \"event:…\" in `auth`, or remove them",
        );
    }
    if !secrets.is_empty() && !ways.iter().any(Credential::needs_secret) {
        source.warn_at("secrets", "they are not used; remove them");
    }
    if ways.iter().any(Credential::is_none) {
        if ways.len() > 1 {
            source.problem_at(
                "auth",
                "has \"none\" along with other ways, which then have no effect; leave one of them",
            );
        } else if !source.has("client_names") {
            source.warn_at(
                "auth",
                if source.has("allow_from") {
                    "only the address identifies the sender: anyone who can send from `allow_from` can publish events"
                } else {
                    "anyone who can reach the path can publish events; keep it in a private network"
                },
            );
        }
    }
    (!ways.is_empty()).then_some(Authentication::Credentials { ways, secrets })
}

fn read_schemes(
    source: &Section<'_>,
    tables: Vec<Section<'_>>,
    secrets: Vec<Secret>,
    tolerance: Option<Duration>,
) -> Option<Authentication> {
    let mut schemes = Vec::with_capacity(tables.len());
    for mut table in tables {
        let read = read_scheme(&mut table, tolerance);
        table.finish();
        schemes.extend(read?);
    }
    let has_time = schemes.iter().any(|scheme| scheme.timestamp.is_some());
    if tolerance.is_some() && !has_time {
        source.warn_at(
            "tolerance",
            "it has no effect: these requests have no signed time; remove it",
        );
    }
    for (index, secret) in secrets.iter().enumerate() {
        // With several schemes, a prefix determines the scheme of a secret. A secret without a prefix belongs to the
        // schemes that are like the first.
        let is_for = |settings: &KeySettings| {
            !settings.prefix.is_empty() && secret.expose().starts_with(&settings.prefix)
        };
        let own = schemes.iter().map(|scheme| &scheme.key_settings);
        let own = own
            .clone()
            .find(|settings| is_for(settings))
            .or(own.clone().next());
        let Some(settings) = own.cloned() else {
            continue;
        };
        let prepared = Key::prepare(
            settings.algorithm,
            secret,
            settings.encoding,
            &settings.prefix,
        );
        match prepared {
            Ok(key) => {
                let same = schemes
                    .iter_mut()
                    .filter(|scheme| scheme.key_settings == settings);
                same.for_each(|scheme| scheme.keys.push((index, key.clone())));
            }
            Err(reason) => source.problem_at(&format!("secrets[{index}]"), reason),
        }
    }
    Some(Authentication::Signature(schemes))
}

impl Authentication {
    /// Returns the index of the secret that verifies the request; `None` if the source accepts requests without one.
    ///
    /// # Errors
    /// The reason; with several schemes, that of the one that got furthest.
    pub fn verify(&self, scope: &Scope<'_>) -> Result<Option<usize>, Unverified> {
        match self {
            Self::Signature(schemes) => {
                let verdicts = schemes.iter().filter(|scheme| !scheme.keys.is_empty());
                furthest(verdicts.map(|scheme| scheme.verify(scope).map(Some)))
            }
            Self::Credentials { ways, secrets } => {
                furthest(ways.iter().map(|way| way.verify(scope.request, secrets)))
            }
            Self::Hook(verifier) => verifier.verify(scope),
        }
    }

    /// The value of `WWW-Authenticate`, which a 401 must have (RFC 9110 section 11.6.1). Signatures and secrets that are
    /// not in `Authorization` have no scheme of HTTP's: a name of ours stands for them.
    #[must_use]
    pub fn challenges(&self) -> SmallVec<[&'static str; 2]> {
        let mut challenges = SmallVec::new();
        if let Self::Credentials { ways, .. } = self {
            for challenge in ways.iter().filter_map(Credential::challenge) {
                if !challenges.contains(&challenge) {
                    challenges.push(challenge);
                }
            }
        }
        if challenges.is_empty() {
            challenges.push("Webhook realm=\"hookbridge\"");
        }
        challenges
    }

    /// Work to fetch something that is missing for verification, which itself does no I/O.
    #[must_use]
    pub fn prepare(&self, request: &Request<'_>) -> Option<Preparation> {
        match self {
            Self::Hook(verifier) => verifier.prepare(request),
            Self::Signature(_) | Self::Credentials { .. } => None,
        }
    }

    /// An action that the provider demands before a handshake is answered.
    ///
    /// # Errors
    /// The provider has no right to demand the action.
    pub fn follow_up(&self, scope: &Scope<'_>) -> Result<Option<FollowUp>, Refusal> {
        match self {
            Self::Hook(verifier) => verifier.follow_up(scope),
            Self::Signature(_) | Self::Credentials { .. } => Ok(None),
        }
    }

    /// Checks that need only the head. Passing them proves nothing.
    ///
    /// # Errors
    /// As [`Authentication::verify`].
    pub fn check_head(&self, request: &Request<'_>) -> Result<(), Unverified> {
        match self {
            Self::Signature(schemes) => {
                let verdicts = schemes.iter().filter(|scheme| !scheme.keys.is_empty());
                furthest(verdicts.map(|scheme| scheme.check_head(request)))
            }
            // The events have not arrived yet.
            Self::Credentials { .. } if self.is_in_events() => Ok(()),
            Self::Credentials { ways, secrets } => furthest(
                ways.iter()
                    .map(|way| way.verify(request, secrets).map(drop)),
            ),
            Self::Hook(verifier) => verifier.check_head(request),
        }
    }

    /// Whether the credentials may be in the events, so that the body must be parsed before it is authenticated.
    #[must_use]
    pub fn is_in_events(&self) -> bool {
        matches!(self, Self::Credentials { ways, .. } if ways.iter().any(Credential::is_in_event))
    }

    /// Returns the secrets carried by the events of a body. Each event must carry one.
    ///
    /// # Errors
    /// [`Unverified::Unauthorized`] if an event carries none, there is no event, or a token in the body is invalid.
    pub fn verify_events(
        &self,
        body: Node<'_>,
        events: &[Node<'_>],
        request: &Request<'_>,
    ) -> Result<Vec<usize>, Unverified> {
        let Self::Credentials { ways, secrets } = self else {
            return Err(Unverified::Unauthorized);
        };
        let members = ways.iter().filter_map(|way| match way {
            Credential::Event(member) => Some(member),
            _ => None,
        });
        let mut found = Vec::new();
        for event in events {
            let carried = members.clone().find_map(|member| {
                let text = event.at(&member.pointer)?.as_str()?;
                credentials::matching(secrets, text.as_bytes())
            });
            let index = carried.ok_or(Unverified::Unauthorized)?;
            if !found.contains(&index) {
                found.push(index);
            }
        }
        let mut tokens = members.filter_map(|member| member.tokens.as_ref());
        let have_tokens = tokens.all(|tokens| tokens_are_valid(tokens, body, events, request));
        match have_tokens && !found.is_empty() {
            true => Ok(found),
            false => Err(Unverified::Unauthorized),
        }
    }

    /// The nonce of the signature that verifies a request, for a source with a [`nonce_lifetime`](Self::nonce_lifetime).
    #[must_use]
    pub fn nonce(&self, scope: &Scope<'_>) -> Option<String> {
        let Self::Signature(schemes) = self else {
            return None;
        };
        schemes.iter().find_map(|scheme| {
            let nonce = scheme.nonce.as_ref()?;
            scheme.verify(scope).ok()?;
            nonce.fill(scope).ok().flatten()
        })
    }

    /// Time for which nonces must be remembered: as long as a signature may be used.
    #[must_use]
    pub fn nonce_lifetime(&self) -> Option<Duration> {
        let Self::Signature(schemes) = self else {
            return None;
        };
        let lifetimes = schemes.iter().filter_map(|scheme| {
            scheme.nonce.as_ref()?;
            let tolerance = scheme.timestamp.as_ref()?.tolerance?;
            Some(tolerance.past.saturating_add(tolerance.future))
        });
        lifetimes.max()
    }

    /// Verifies signed values inside the body, once it is parsed.
    ///
    /// # Errors
    /// As [`Authentication::verify`].
    pub fn check_content(&self, scope: &Scope<'_>) -> Result<(), Unverified> {
        match self {
            Self::Signature(schemes) if schemes.iter().any(Scheme::has_late_time) => {
                check_late_time(schemes, scope)
            }
            Self::Signature(_) | Self::Credentials { .. } | Self::Hook(_) => Ok(()),
        }
    }

    /// The parts of the body that must be parsed for verification.
    #[must_use]
    pub fn needs(&self) -> Parsing {
        match self {
            Self::Signature(schemes) => {
                let needs = schemes.iter().map(Scheme::needs);
                needs.fold(Parsing::default(), Parsing::or)
            }
            Self::Credentials { .. } | Self::Hook(_) => Parsing::default(),
        }
    }

    /// Everything of the body that is read to verify a request, before its signature is verified or after it.
    #[must_use]
    pub fn reads(&self) -> Parsing {
        match self {
            Self::Signature(schemes) => {
                let reads = schemes.iter().map(Scheme::reads);
                reads.fold(Parsing::default(), Parsing::or)
            }
            Self::Credentials { .. } | Self::Hook(_) => Parsing::default(),
        }
    }

    /// Whether a request without a body can be verified.
    #[must_use]
    pub fn verifies_heads(&self) -> bool {
        match self {
            Self::Signature(schemes) => schemes
                .iter()
                .any(|scheme| scheme.reads() == Parsing::default()),
            Self::Credentials { ways, .. } => !ways.iter().all(Credential::is_in_event),
            Self::Hook(_) => true,
        }
    }

    /// Whether every request is signed with a different key from the one that verifies it.
    #[must_use]
    pub fn is_asymmetric(&self) -> bool {
        match self {
            Self::Signature(schemes) => {
                let mut algorithms = schemes.iter().map(|scheme| scheme.key_settings.algorithm);
                algorithms.all(Algorithm::is_asymmetric)
            }
            Self::Credentials { .. } => false,
            Self::Hook(verifier) => verifier.is_asymmetric(),
        }
    }

    /// Whether every meaningful byte of a body is signed.
    #[must_use]
    pub fn covers_body(&self) -> bool {
        match self {
            Self::Signature(schemes) => schemes.iter().all(Scheme::covers_body),
            Self::Credentials { .. } => false,
            Self::Hook(verifier) => verifier.covers_body(),
        }
    }

    /// Whether requests are compared with a secret of the source.
    #[must_use]
    pub fn needs_secret(&self) -> bool {
        match self {
            Self::Signature(_) => true,
            Self::Credentials { ways, .. } => ways.iter().any(Credential::needs_secret),
            Self::Hook(verifier) => verifier.needs_secrets(),
        }
    }

    /// Whether the signed content contains the URL that the provider calls.
    #[must_use]
    pub fn signs_url(&self) -> bool {
        match self {
            Self::Signature(schemes) => schemes.iter().any(|scheme| scheme.content.has_url()),
            Self::Credentials { ways, .. } => ways
                .iter()
                .any(|way| matches!(way, Credential::Jwt(jwt) if jwt.signs_url())),
            Self::Hook(verifier) => verifier.signs_url(),
        }
    }

    /// Whether this header carries credentials or a signature.
    #[must_use]
    pub fn is_secret_header(&self, name: &str) -> bool {
        match self {
            Self::Signature(schemes) => schemes
                .iter()
                .any(|scheme| scheme.is_signature_header(name)),
            Self::Credentials { ways, .. } => {
                let mut headers = ways.iter().filter_map(Credential::header);
                headers.any(|header| header == name)
            }
            Self::Hook(verifier) => verifier.is_secret_header(name),
        }
    }

    /// The shortest of the configured tolerances.
    #[must_use]
    pub fn tolerance(&self) -> Option<Duration> {
        match self {
            Self::Signature(schemes) => {
                let timestamps = schemes
                    .iter()
                    .filter_map(|scheme| scheme.timestamp.as_ref());
                timestamps
                    .filter_map(|timestamp| Some(timestamp.tolerance?.past))
                    .min()
            }
            Self::Credentials { .. } => None,
            Self::Hook(verifier) => verifier.tolerance(),
        }
    }

    /// The longest of the configured tolerances.
    #[must_use]
    pub fn longest_tolerance(&self) -> Option<Duration> {
        let Self::Signature(schemes) = self else {
            return self.tolerance();
        };
        let timestamps = schemes
            .iter()
            .filter_map(|scheme| scheme.timestamp.as_ref());
        timestamps
            .filter_map(|timestamp| Some(timestamp.tolerance?.past))
            .max()
    }

    /// Whether every header used for the id is signed.
    #[must_use]
    pub fn signs_headers_of(&self, id: &Choice) -> bool {
        let mut headers = id.texts().flat_map(Text::headers);
        match self {
            Self::Signature(schemes) => headers.all(|header| {
                schemes
                    .iter()
                    .all(|scheme| scheme.content.headers().any(|signed| signed == header))
            }),
            Self::Credentials { .. } => true,
            // The hooks' providers sign no headers.
            Self::Hook(_) => headers.next().is_none(),
        }
    }

    /// Whether the attributes of a CloudEvent are signed when they are headers.
    #[must_use]
    pub fn signs_attributes(&self) -> bool {
        match self {
            Self::Signature(schemes) => schemes.iter().all(|scheme| {
                let mut attributes = ["ce-id", "ce-source", "ce-type"].into_iter();
                attributes.all(|name| scheme.content.headers().any(|signed| signed == name))
            }),
            Self::Credentials { .. } | Self::Hook(_) => true,
        }
    }

    /// Describes how this request would be authenticated, and which parts are covered.
    #[must_use]
    pub fn summarize(&self, request: &Request<'_>, mapping: &Mapping) -> Summary {
        let (by, covers, signed) = match self {
            Self::Signature(schemes) => {
                let present = schemes.iter().find(|scheme| scheme.is_present(request));
                let Some(scheme) = present.or(schemes.first()) else {
                    return Summary {
                        by: "nothing".to_owned(),
                        covers: String::new(),
                        unsigned_headers: Vec::new(),
                    };
                };
                let algorithm = scheme.key_settings.algorithm.name();
                let by = format!("{algorithm} in {}", scheme.signature.location);
                let signed: Vec<_> = scheme.content.headers().collect();
                (by, scheme.show_content(request), signed)
            }
            Self::Credentials { ways, .. } => {
                let ways: Vec<_> = ways.iter().map(ToString::to_string).collect();
                (ways.join(", or "), String::new(), Vec::new())
            }
            Self::Hook(_) => (
                "a signature inside the body, over the fields of the message".to_owned(),
                "the message's fields, in {body}".to_owned(),
                Vec::new(),
            ),
        };
        let choices = [
            &mapping.id,
            &mapping.event_type,
            &mapping.subject,
            &mapping.key,
        ];
        let mut unsigned = Vec::new();
        for header in choices
            .into_iter()
            .flat_map(Choice::texts)
            .flat_map(Text::headers)
        {
            let name = header.as_str().to_owned();
            let is_read = request.headers.contains_key(header) && !signed.contains(&header);
            if is_read && !unsigned.contains(&name) {
                unsigned.push(name);
            }
        }
        Summary {
            by,
            covers,
            unsigned_headers: unsigned,
        }
    }

    /// Weaknesses of this authentication, each with advice.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<&'static str> {
        let schemes = match self {
            // Reported where the setting is read.
            Self::Credentials { ways, .. }
                if ways.iter().any(|way| matches!(way, Credential::None)) =>
            {
                return Vec::new();
            }
            Self::Credentials { .. } => return vec![TOKEN_ONLY],
            Self::Hook(_) => return Vec::new(),
            Self::Signature(schemes) => schemes,
        };
        if schemes.iter().any(Scheme::is_token) {
            return vec![TOKEN_ONLY];
        }
        let mut found = Vec::new();
        if !schemes.iter().all(Scheme::covers_body) {
            found.push(
                "does not cover the body: anyone who sees one request can send any other with its signature; put {body} into `content` if the provider signs it",
            );
        }
        let times = schemes.iter().map(|scheme| scheme.timestamp.as_ref());
        let times: Option<Vec<&Timestamp>> = times.collect();
        match times {
            None => found.push(
                "has no signed time: anyone who sees a request can replay it, even after `dedup_window`; add `timestamp` and `tolerance` if the provider signs a time",
            ),
            Some(times) if times.iter().any(|time| time.tolerance.is_none()) => found.push(
                "has `timestamp` without `tolerance`: a request of any age is accepted; write for example `tolerance = \"5m\"`",
            ),
            Some(_) if !schemes.iter().all(Scheme::signs_time) => found.push(
                "does not cover the time: anyone who replays a request can change it; put {timestamp} into `content` if the provider signs it",
            ),
            Some(_) => {}
        }
        found
    }

    #[must_use]
    pub fn key(&self, secret: usize) -> Option<&Key> {
        match self {
            Self::Signature(schemes) => {
                let mut keys = schemes.iter().flat_map(|scheme| &scheme.keys);
                keys.find(|(index, _)| *index == secret).map(|(_, key)| key)
            }
            Self::Credentials { .. } | Self::Hook(_) => None,
        }
    }
}

const JWT_WITHOUT_AUTH: &str = "has no effect without `auth = \"jwt\"`; write that, or remove it";
const TOKEN_ONLY: &str = "is a secret sent with each request and signs nothing: anyone who sees one request can send any other; accept it over TLS only, and prefer a signature if the provider has one";
/// The maximum number of tokens in a body: one per application and tenant.
const MAX_TOKENS: usize = 32;

/// Whether every token of a body is valid. An event with encrypted contents needs one of its tenant.
fn tokens_are_valid(
    tokens: &Jwt,
    body: Node<'_>,
    events: &[Node<'_>],
    request: &Request<'_>,
) -> bool {
    let mut rich = events
        .iter()
        .filter(|event| event.get("encryptedContent").is_some())
        .peekable();
    let Some(list) = body.get("validationTokens").filter(|list| !list.is_null()) else {
        return rich.peek().is_none();
    };
    if list.kind() != NodeKind::Array || list.len() > MAX_TOKENS {
        return false;
    }
    let issuers = list.elements().map(|token| {
        let token = token.as_str()?;
        tokens.issuer_of(token.as_bytes(), request)
    });
    let Some(issuers) = issuers.collect::<Option<Vec<String>>>() else {
        return false;
    };
    // An issuer is a URL with the id of its tenant as a segment.
    let has_tenant = |tenant: &str| {
        let mut segments = issuers.iter().flat_map(|issuer| issuer.split('/'));
        segments.any(|segment| !segment.is_empty() && segment == tenant)
    };
    rich.all(|event| match event.get("tenantId") {
        _ if issuers.is_empty() => false,
        _ if !tokens.has_issuers() => true,
        Some(tenant) => tenant.as_str().is_some_and(|tenant| has_tenant(&tenant)),
        None => false,
    })
}

/// The first success, or the failure of the check that got furthest.
fn furthest<T>(verdicts: impl Iterator<Item = Result<T, Unverified>>) -> Result<T, Unverified> {
    let mut failure = None;
    for verdict in verdicts {
        match verdict {
            Ok(verified) => return Ok(verified),
            Err(reason) => failure = failure.max(Some(reason)),
        }
    }
    Err(failure.unwrap_or(Unverified::MissingSignature))
}

/// Checks the time of the scheme that verifies a request: what the other schemes read need not be there.
fn check_late_time(schemes: &[Scheme], scope: &Scope<'_>) -> Result<(), Unverified> {
    let usable = schemes.iter().filter(|scheme| !scheme.keys.is_empty());
    let usable: SmallVec<[&Scheme; 2]> = usable.collect();
    if let [only] = usable.as_slice() {
        return only.check_content(scope);
    }
    furthest(usable.into_iter().map(|scheme| {
        scheme.verify(scope)?;
        scheme.check_content(scope)
    }))
}

/// Keys of `signature` that are easily written next to it by mistake.
const SIGNATURE_KEYS: [&str; 7] = [
    "header",
    "query",
    "form",
    "prefix",
    "separator",
    "field",
    "encoding",
];

/// Reads a table of `verify`: one scheme for each content that may be signed.
fn read_scheme(verify: &mut Section<'_>, tolerance: Option<Duration>) -> Option<Vec<Scheme>> {
    let algorithm = verify
        .word("algorithm", &ALGORITHMS)
        .unwrap_or(Algorithm::HmacSha256);
    let secret_encoding = verify
        .word("secret_encoding", &SECRET_ENCODINGS)
        .unwrap_or(Encoding::Text);
    let secret_prefix = verify.text("secret_prefix").unwrap_or_default();
    let own_tolerance = verify.optional_duration("tolerance");
    let future = verify.optional_duration("future_tolerance");
    let past = tolerance.or(own_tolerance);
    let tolerance = past.map(|past| Tolerance {
        past,
        future: future.unwrap_or(past),
    });
    // Every key is read before a mistake in one of them ends the reading; an unread key would be reported as unknown.
    let contents = read_contents(verify);
    let (has_signature, has_timestamp) = (verify.has("signature"), verify.has("timestamp"));
    let signature = verify.section("signature");
    let timestamp = verify.section("timestamp");
    let body_digest = verify.section("body_digest");
    let nonce = read_text(verify, "nonce");
    let mut is_misplaced = false;
    for key in SIGNATURE_KEYS {
        if verify.discard(key) {
            is_misplaced = true;
            verify.problem_at(
                key,
                "is a key of `signature`; write for example `signature = { header = \"x-signature\", prefix = \"sha256=\", encoding = \"hex\" }`",
            );
        }
    }
    let timestamp = timestamp.map(|section| read_timestamp(section, tolerance));
    let Some(signature) = signature else {
        if !is_misplaced && !has_signature {
            verify.problem("lacks `signature`; write for example `signature = { header = \"x-signature\", encoding = \"hex\" }`");
        }
        return None;
    };
    let signature = read_placement(signature);
    let contents = contents?;
    let timestamp = match timestamp {
        Some(timestamp) => Some(timestamp?),
        None if has_timestamp => return None,
        None => None,
    };
    if contents.iter().any(Text::has_timestamp) && timestamp.is_none() {
        verify.problem_at(
            "content",
            "contains {timestamp}, but `timestamp` does not locate it",
        );
        return None;
    }
    let is_empty = |content: &Text| !content.has_placeholder();
    if algorithm != Algorithm::Token && contents.iter().any(is_empty) {
        verify.problem_at(
            "content",
            "refers to no part of the request, so that one signature would be valid for all; write for example \"{timestamp}.{body}\"",
        );
    }
    if contents.iter().any(Text::is_random) {
        verify.problem_at(
            "content",
            "contains {uuid}, which differs each time: no signature would ever be valid; remove it",
        );
    }
    let is_field = |timestamp: &Timestamp| matches!(timestamp.location, Location::Field(_));
    if timestamp.as_ref().is_some_and(is_field)
        && signature
            .as_ref()
            .is_some_and(|placement| placement.separator.is_none())
    {
        verify.problem_at(
            "timestamp",
            "is a field of the signature's header, which `separator` must split; write for example `signature = { header = \"x-signature\", separator = \",\", field = \"v1\" }`",
        );
    }
    let body_digest = match body_digest {
        Some(section) => Some(read_body_digest(section, &contents)?),
        None => None,
    };
    let nonce = match nonce {
        Some(nonce) => Some(nonce?),
        None => None,
    };
    if let Some(nonce) = &nonce {
        let is_signed = |content: &Text| nonce.has_placeholder() && content.has_all_of(nonce);
        if !contents.iter().all(is_signed) {
            verify.problem_at(
                "nonce",
                "is not signed; write a placeholder that `content` contains, for example \"{header:x-nonce}\"",
            );
        }
        if timestamp
            .as_ref()
            .is_none_or(|timestamp| timestamp.tolerance.is_none())
        {
            verify.problem_at(
                "nonce",
                "needs `timestamp` and `tolerance`, which say how long it must be remembered",
            );
        }
    }
    let signature = signature?;
    let scheme = |content| Scheme {
        nonce: nonce.clone(),
        signature: signature.clone(),
        content,
        timestamp: timestamp.clone(),
        body_digest: body_digest.clone(),
        key_settings: KeySettings {
            algorithm,
            encoding: secret_encoding,
            prefix: secret_prefix.clone(),
        },
        keys: Vec::new(),
    };
    Some(contents.into_iter().map(scheme).collect())
}

/// Reads the alternatives for the signed content; `{body}` by default.
fn read_contents(verify: &mut Section<'_>) -> Option<Vec<Text>> {
    if !verify.is_list("content") {
        let content = match read_text(verify, "content") {
            Some(content) => content?,
            None => Text::parse("{body}").ok()?,
        };
        return Some(vec![content]);
    }
    let words = verify.words_or_sections("content").into_iter().enumerate();
    let contents: Vec<_> = words
        .filter_map(|(index, word)| {
            let at = format!("content[{index}]");
            let WordOrSection::Word(word) = word else {
                verify.problem_at(&at, "is not a text");
                return None;
            };
            let read = Text::parse(&word);
            read.map_err(|mistake| verify.problem_at(&at, mistake.to_string()))
                .ok()
        })
        .collect();
    if contents.is_empty() {
        verify.problem_at("content", "is an empty list; write the signed content");
    }
    Some(contents)
}

/// Reads the location of the body's digest, which must be signed itself.
fn read_body_digest(mut section: Section<'_>, contents: &[Text]) -> Option<Location> {
    let location = read_location(&mut section, None);
    let Some(location) = location else {
        section.finish();
        return None;
    };
    let is_signed = |content: &Text| match &location {
        Location::Query(name) => content.has_query(name),
        Location::Header(names) => content.headers().any(|signed| names.contains(signed)),
        _ => false,
    };
    if !contents.iter().all(is_signed) {
        section.problem(
            "names a location that is not signed; write a `query` or `header` that `content` contains",
        );
    }
    section.finish();
    Some(location)
}

fn read_placement(mut section: Section<'_>) -> Option<Placement> {
    let numbered = |prefix: String| Location::NumberedHeaders(prefix.to_ascii_lowercase());
    let location = read_location(&mut section, Some(("numbered_headers", numbered)));
    let separator = section.text("separator");
    if separator
        .as_ref()
        .is_some_and(|separator| separator.len() != 1)
    {
        section.problem_at("separator", "is not one ASCII character");
    }
    let field = section.text("field");
    let prefix = section.text("prefix").unwrap_or_default();
    let encoding = section
        .word("encoding", &PLACEMENT_ENCODINGS)
        .unwrap_or(Encoding::Hex);
    section.finish();
    Some(Placement {
        location: location?,
        separator: separator.and_then(|separator| separator.bytes().next()),
        field,
        prefix,
        encoding,
    })
}

fn read_timestamp(mut section: Section<'_>, tolerance: Option<Tolerance>) -> Option<Timestamp> {
    if section.discard("numbered_headers") {
        section.problem_at(
            "numbered_headers",
            "holds several values, and a request has one time; write for example `header = \"x-time\"`",
        );
        section.finish_quietly();
        return None;
    }
    let location = read_location(&mut section, Some(("field", Location::Field)));
    let unit = section.word("unit", &UNITS).unwrap_or(Unit::Seconds);
    section.finish();
    Some(Timestamp {
        location: location?,
        unit,
        tolerance,
    })
}

/// A key for a location that not every table has.
type OwnLocation = (&'static str, fn(String) -> Location);

/// Reads the one key that names a location.
fn read_location(section: &mut Section<'_>, own: Option<OwnLocation>) -> Option<Location> {
    let (mut found, mut is_wrong) = (Vec::new(), false);
    if let Some(names) = section.texts("header") {
        let names = names
            .iter()
            .map(|name| HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()));
        match names.collect::<Result<Vec<_>, _>>() {
            Ok(names) => found.push(Location::Header(names)),
            Err(_) => {
                section.problem_at("header", "is not a valid header name");
                is_wrong = true;
            }
        }
    }
    found.extend(section.text("query").map(Location::Query));
    found.extend(section.text("form").map(Location::Form));
    if let Some(text) = section.text("pointer") {
        match Pointer::parse(&text) {
            Ok(pointer) => found.push(Location::Pointer(pointer)),
            Err(rule) => {
                section.problem_at("pointer", rule);
                is_wrong = true;
            }
        }
    }
    if let Some((key, location)) = own {
        found.extend(section.text(key).map(location));
    }
    let keys = match own {
        Some((key, _)) => format!("`header`, `query`, `form`, `pointer` or `{key}`"),
        None => "`header`, `query`, `form` or `pointer`".to_owned(),
    };
    match (found.pop(), found.is_empty()) {
        _ if is_wrong => None,
        (Some(location), true) => Some(location),
        (None, _) => {
            section.problem(format!("names no location; write {keys}"));
            None
        }
        (Some(_), false) => {
            section.problem(format!("names several locations; write one of {keys}"));
            None
        }
    }
}
