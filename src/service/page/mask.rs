//! Content as the live page shows it: without what looks like a secret, and not at all where secrets cannot be looked for.
//!
//! It errs on the side of hiding: a member whose name sounds like a secret's is masked whatever it holds.

use std::borrow::Cow;

use crate::json::{Document, Node, NodeKind};
use crate::secret::Secret;

const MASK: &str = "***";

/// Parts of names of members, parameters and headers, without case and punctuation.
const NAME_PARTS: [&str; 18] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "credential",
    "cookie",
    "clientstate",
    "bearer",
    "sessionid",
    "hmac",
    "cardnumber",
    "assertion",
    "jwt",
];

/// Whole names.
const NAMES: [&str; 9] = [
    "sig", "pwd", "pin", "otp", "cvc", "cvv", "ssn", "auth", "iban",
];

/// How values begin that are secrets wherever they are.
const VALUE_PREFIXES: [&str; 14] = [
    "eyJ",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "whsec_",
    "AKIA",
    "-----BEGIN",
];

/// Configured secrets shorter than this would mask ordinary text.
const LEAST_SECRET: usize = 6;

/// How deep JSON is looked for in texts of JSON.
const MAX_NESTED: usize = 3;

/// The secrets of the configuration.
pub(super) struct Mask<'s> {
    secrets: Vec<&'s str>,
}

impl<'s> Mask<'s> {
    pub(super) fn new(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let secrets = secrets.into_iter().map(|secret| secret.expose().trim());
        let mut secrets: Vec<_> = secrets
            .filter(|secret| secret.len() >= LEAST_SECRET)
            .collect();
        // A secret that contains another one goes first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// A body: JSON, or a form by its media type.
    ///
    /// # Errors
    /// Why it is not shown.
    pub(super) fn body(&self, body: &[u8], media_type: &str) -> Result<String, &'static str> {
        if let Ok(document) = Document::parse(body) {
            let mut text = String::new();
            self.write(document.root(), &mut text, Some(0), MAX_NESTED);
            return Ok(text);
        }
        let is_form = media_type
            .get(..FORM.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(FORM));
        if is_form {
            return Ok(self.form(body));
        }
        Err("it is neither JSON nor a form, so that secrets in it cannot be found")
    }

    fn form(&self, body: &[u8]) -> String {
        let mut shown = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(body) {
            let value = self.value(&name, &value);
            shown.append_pair(&self.text(&name, MAX_NESTED), &value);
        }
        shown.finish()
    }

    /// The value of a header, parameter or field of this name.
    pub(super) fn value(&self, name: &str, value: &str) -> String {
        if is_secret_name(name) {
            return MASK.to_owned();
        }
        self.text(value, MAX_NESTED)
    }

    /// `indent`: none for compact text.
    fn write(&self, node: Node<'_>, text: &mut String, indent: Option<usize>, nested: usize) {
        let inner = indent.map(|indent| indent + 1);
        match node.kind() {
            NodeKind::Object if !node.is_empty() => {
                text.push('{');
                for (index, (name, value)) in node.members().enumerate() {
                    separate(text, index, inner);
                    text.push_str(&quote(&self.text(&name, 0)));
                    text.push_str(if indent.is_some() { ": " } else { ":" });
                    if is_secret_name(&name) && !value.is_null() {
                        text.push_str(&quote(MASK));
                    } else {
                        self.write(value, text, inner, nested);
                    }
                }
                break_line(text, indent);
                text.push('}');
            }
            NodeKind::Array if !node.is_empty() => {
                text.push('[');
                for (index, value) in node.elements().enumerate() {
                    separate(text, index, inner);
                    self.write(value, text, inner, nested);
                }
                break_line(text, indent);
                text.push(']');
            }
            _ => match node.as_str() {
                Some(value) => {
                    let shown = self.text(&value, nested);
                    if shown == value {
                        // Raw is what stands between the quotes.
                        text.push('"');
                        text.push_str(node.raw());
                        text.push('"');
                    } else {
                        text.push_str(&quote(&shown));
                    }
                }
                None => text.push_str(&self.configured(node.raw())),
            },
        }
    }

    /// A text, which may hold JSON, parameters of a URL, or a secret as it is.
    fn text(&self, text: &str, nested: usize) -> String {
        let text = self.configured(text);
        if nested > 0
            && text.trim_start().starts_with(['{', '['])
            && let Ok(document) = Document::parse(text.as_bytes())
        {
            let mut shown = String::new();
            self.write(document.root(), &mut shown, None, nested - 1);
            return shown;
        }
        let mut shown = String::with_capacity(text.len());
        let mut scheme = String::new();
        for piece in text.split_inclusive(is_delimiter) {
            let word = piece.trim_end_matches(is_delimiter);
            let delimiter = piece.get(word.len()..).unwrap_or_default();
            // `Basic` is a word of its own, too.
            let is_credential = match &*scheme {
                "bearer" => true,
                "basic" => word.bytes().any(|byte| !byte.is_ascii_lowercase()),
                _ => false,
            };
            shown.push_str(&mask_word(word, is_credential));
            shown.push_str(delimiter);
            if !word.is_empty() {
                let last = word.rsplit(['=', ':']).next().unwrap_or_default();
                scheme = last.to_ascii_lowercase();
            }
        }
        shown
    }

    fn configured<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut shown = Cow::Borrowed(text);
        for secret in &self.secrets {
            if shown.contains(secret) {
                shown = Cow::Owned(shown.replace(secret, MASK));
            }
        }
        shown
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn is_secret_name(name: &str) -> bool {
    let plain = name.chars().filter(|c| c.is_alphanumeric());
    let plain: String = plain.flat_map(char::to_lowercase).collect();
    NAMES.contains(&&*plain) || NAME_PARTS.iter().any(|part| plain.contains(part))
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || "?&;,#\"'<>()".contains(c)
}

fn mask_word(word: &str, is_credential: bool) -> Cow<'_, str> {
    if is_credential && !word.is_empty()
        || VALUE_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
    {
        return MASK.into();
    }
    if let Some((name, value)) = word.split_once('=') {
        let decoded = form_urlencoded::parse(name.as_bytes()).next();
        let is_secret = decoded.is_some_and(|(name, _)| is_secret_name(&name));
        let is_known = VALUE_PREFIXES
            .iter()
            .any(|prefix| value.starts_with(prefix));
        if !value.is_empty() && (is_secret || is_known) {
            return format!("{name}={MASK}").into();
        }
    }
    // The user and password of a URL.
    if let Some((scheme, rest)) = word.split_once("://") {
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if let Some((_, host)) = authority.rsplit_once('@') {
            return format!("{scheme}://{MASK}@{host}{path}").into();
        }
    }
    word.into()
}

/// As JSON.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn separate(text: &mut String, index: usize, indent: Option<usize>) {
    if index > 0 {
        text.push(',');
    }
    break_line(text, indent);
}

fn break_line(text: &mut String, indent: Option<usize>) {
    if let Some(indent) = indent {
        text.push('\n');
        text.push_str(&"  ".repeat(indent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Vec<Secret> {
        ["configured-secret", "configured-secret-2", "abc"]
            .map(|text| Secret::new(text.to_owned()).unwrap())
            .into()
    }

    fn shown(body: &str, media_type: &str) -> Result<String, &'static str> {
        Mask::new(&secrets()).body(body.as_bytes(), media_type)
    }

    fn compact(body: &str) -> String {
        let text = shown(body, "application/json").unwrap();
        let lines = text.lines().map(str::trim_start);
        lines.collect::<String>().replace("\": ", "\":")
    }

    #[test]
    fn what_is_or_sounds_like_a_secret_is_masked_wherever_it_is() {
        for (body, masked) in [
            (
                r#"{"access_token":"x","a":1}"#,
                r#"{"access_token":"***","a":1}"#,
            ),
            (r#"{"API-Key":{"deep":["x"]}}"#, r#"{"API-Key":"***"}"#),
            (r#"{"pass\u0077ord":12}"#, r#"{"password":"***"}"#),
            (
                r#"[{"clientState":"x"},{"token":null}]"#,
                r#"[{"clientState":"***"},{"token":null}]"#,
            ),
            (r#"{"a":"is configured-secret-2!"}"#, r#"{"a":"is ***!"}"#),
            (r#"{"a":"configured\u002dsecret"}"#, r#"{"a":"***"}"#),
            (
                r#"{"u":"https://x/?a=1&Token=t&b=2#f"}"#,
                r#"{"u":"https://x/?a=1&Token=***&b=2#f"}"#,
            ),
            (
                r#"{"u":"https://x/?X%2DAmz%2DSignature=t"}"#,
                r#"{"u":"https://x/?X%2DAmz%2DSignature=***"}"#,
            ),
            (
                r#"{"u":"amqp://me:pw@host/v"}"#,
                r#"{"u":"amqp://***@host/v"}"#,
            ),
            (
                r#"{"h":"Authorization: Bearer abc.def"}"#,
                r#"{"h":"Authorization: Bearer ***"}"#,
            ),
            (
                r#"{"t":"see ghp_abcdef and x=eyJhbGci"}"#,
                r#"{"t":"see *** and x=***"}"#,
            ),
            (
                r#"{"m":"{\"password\":\"x\",\"n\":[1]}"}"#,
                r#"{"m":"{\"password\":\"***\",\"n\":[1]}"}"#,
            ),
        ] {
            assert_eq!(compact(body), masked, "{body}");
        }
    }

    #[test]
    fn everything_else_is_shown_as_it_came() {
        for body in [
            r#"{"n":12345678901234567890.10,"e":1E5,"s":"\u00e9\n<b>","l":[],"o":{},"t":true}"#,
            r#"{"key":"PAY-1","title":"unique_order_id failed","monkey":"abc"}"#,
            r#""abc""#,
        ] {
            assert_eq!(compact(body), body);
        }
    }

    #[test]
    fn a_form_is_masked_by_its_fields_and_nothing_else_is_shown() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(
            shown("From=%2B1&AuthToken=x&payload=%7B%22secret%22%3A1%7D", form).unwrap(),
            "From=%2B1&AuthToken=***&payload=%7B%22secret%22%3A%22***%22%7D"
        );
        for media_type in ["text/plain", "application/json", ""] {
            assert!(shown("token=x", media_type).is_err(), "{media_type}");
        }
        assert!(shown("\u{fffd}{", "application/octet-stream").is_err());
    }

    #[test]
    fn headers_are_masked_by_name_and_by_value() {
        let secrets = secrets();
        let mask = Mask::new(&secrets);
        for name in [
            "Authorization",
            "x-hub-signature-256",
            "stripe-signature",
            "cookie",
            "X-Api-Key",
        ] {
            assert_eq!(mask.value(name, "x"), "***", "{name}");
        }
        assert_eq!(mask.value("ce_type", "push"), "push");
        assert_eq!(mask.value("x-source", "configured-secret"), "***");
    }
}
