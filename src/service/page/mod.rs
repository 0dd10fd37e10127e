//! The live page at `/` of the admin listener: static files, signing in, and a stream of what happens.

mod access;
mod mask;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::access::{Access, Sessions, is_from_elsewhere};
pub(super) use self::stream::LastRead;
use self::stream::{Stream, to_json};
use crate::bridge::feed::{MAX_WATCHERS, Update};
use crate::bridge::live::Live;
use crate::config::Admin;
use crate::telemetry::LogThrottle;

const PAGE: &str = include_str!("index.html");
const LOGIN: &str = include_str!("login.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// Nothing from elsewhere, nothing inline, and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// A form with a token.
const MAX_FORM: usize = 4096;
const FORM_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two figures of every source and route.
const TICK: Duration = Duration::from_secs(1);

pub(super) type PageBody = UnsyncBoxBody<Bytes, Infallible>;

/// The state of the live page.
#[derive(Debug)]
pub(super) struct Page {
    sessions: Sessions,
    refused: LogThrottle,
    /// Whether the listener's address is one that only this machine reaches.
    is_local: bool,
    /// The public listener's.
    public: SocketAddr,
}

impl Page {
    pub(super) fn new(is_local: bool, public: SocketAddr) -> Self {
        Self {
            sessions: Sessions::new(),
            refused: LogThrottle::default(),
            is_local,
            public,
        }
    }

    /// The answer to a request for a part of the page; none if it is for something else.
    pub(super) async fn respond(
        &self,
        live: &Arc<Live>,
        request: Request<Incoming>,
        last_read: &Arc<LastRead>,
    ) -> Result<Response<PageBody>, Request<Incoming>> {
        let path = request.uri().path();
        let file = match path {
            "/page.css" => Some((STYLE, "text/css; charset=utf-8")),
            "/page.js" => Some((SCRIPT, "text/javascript; charset=utf-8")),
            "/icon.svg" => Some((ICON, "image/svg+xml")),
            "/" | "/stream" | "/login" => None,
            _ => return Err(request),
        };
        let allowed = if path == "/login" {
            "POST"
        } else {
            "GET, HEAD"
        };
        let is_allowed = match *request.method() {
            Method::GET | Method::HEAD => path != "/login",
            Method::POST => path == "/login",
            _ => false,
        };
        let mut response = if !is_allowed {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("this path takes {allowed}\n"),
            );
            let allowed = HeaderValue::from_static(allowed);
            response.headers_mut().insert(ALLOW, allowed);
            response
        } else if let Some((content, content_type)) = file {
            static_file(StatusCode::OK, content, content_type)
        } else {
            let admin = live.current().config().admin.clone();
            match path {
                "/login" => self.sign_in(&admin, request).await,
                "/stream" => self.stream(live, &admin, &request, last_read),
                _ => match self
                    .sessions
                    .access(&admin, self.is_local, request.headers())
                {
                    Access::Allowed => html(StatusCode::OK, PAGE.to_owned()),
                    Access::SignIn => login_page(""),
                    Access::Off => off(),
                },
            }
        };
        harden(&mut response);
        Ok(response)
    }

    async fn sign_in(&self, admin: &Admin, request: Request<Incoming>) -> Response<PageBody> {
        let Some(token) = &admin.token else {
            return if self.is_local { to_page() } else { off() };
        };
        #[expect(clippy::disallowed_methods, reason = "the body is limited to MAX_FORM")]
        let reading = Limited::new(request.into_body(), MAX_FORM).collect();
        let form = match tokio::time::timeout(FORM_TIMEOUT, reading).await {
            Ok(Ok(form)) => form.to_bytes(),
            Ok(Err(_)) | Err(_) => {
                return text(StatusCode::BAD_REQUEST, "the form could not be read\n");
            }
        };
        let mut fields = form_urlencoded::parse(&form);
        let shown = fields.find(|(name, _)| name == "token");
        if !shown.is_some_and(|(_, shown)| self.sessions.is_token(token, shown.trim().as_bytes())) {
            if let Some(suppressed) = self.refused.allow() {
                tracing::warn!(
                    listener = "admin",
                    suppressed,
                    "a token that is not `admin.token` was refused"
                );
            }
            return login_page("<p class=\"bad\" role=\"alert\">This is not the token.</p>");
        }
        let mut response = to_page();
        if let Some(cookie) = self.sessions.cookie(token) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }

    fn stream(
        &self,
        live: &Arc<Live>,
        admin: &Admin,
        request: &Request<Incoming>,
        last_read: &Arc<LastRead>,
    ) -> Response<PageBody> {
        if is_from_elsewhere(request.headers()) {
            return text(
                StatusCode::FORBIDDEN,
                "only the page of this listener may read the stream\n",
            );
        }
        match self
            .sessions
            .access(admin, self.is_local, request.headers())
        {
            Access::Allowed => {}
            Access::SignIn => {
                let mut response = text(
                    StatusCode::UNAUTHORIZED,
                    "sign in at / first, or send `Authorization: Bearer TOKEN` with `token` of [admin]\n",
                );
                let challenge = HeaderValue::from_static("Bearer realm=\"hookbridge\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                return response;
            }
            Access::Off => return off(),
        }
        let Some(watch) = live.process().feed().watch() else {
            let mut response = text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("{MAX_WATCHERS} pages are open already; close one\n"),
            );
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return response;
        };
        let body = if *request.method() == Method::HEAD {
            Full::default().boxed_unsync()
        } else {
            let stream = Stream::new(watch, Arc::clone(live), Arc::clone(last_read), self.public);
            stream.boxed_unsync()
        };
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

/// Gives the page its figures each second, and the state when it has changed, while someone watches.
pub(super) async fn keep_feeding(live: Arc<Live>, public: SocketAddr, stop: CancellationToken) {
    let feed = Arc::clone(live.process().feed());
    let mut last = (live.current().config().admin.clone(), String::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                feed.end_all();
                return;
            }
            () = async {
                feed.until_watched().await;
                tokio::time::sleep_until(Instant::now() + TICK).await;
            } => {}
        }
        let bridge = live.current();
        let admin = &bridge.config().admin;
        if last.0 != *admin {
            // Whoever may still watch comes back.
            feed.end_all();
            last.0 = admin.clone();
        }
        let figures = Figures {
            rates: feed.tick(),
            gauges: bridge.gauges(),
        };
        feed.publish(&Update::Other("rates", to_json(&figures).into()));
        let state = to_json(&bridge.overview(public));
        if state != last.1 {
            feed.publish(&Update::Other("state", state.as_str().into()));
            last.1 = state;
        }
    }
}

#[derive(Serialize)]
struct Figures<R, G> {
    #[serde(flatten)]
    rates: R,
    #[serde(flatten)]
    gauges: G,
}

fn static_file(
    status: StatusCode,
    content: &'static str,
    content_type: &'static str,
) -> Response<PageBody> {
    let mut response = Response::new(Full::from(content).boxed_unsync());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn html(status: StatusCode, content: String) -> Response<PageBody> {
    let mut response = Response::new(Full::from(content).boxed_unsync());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, content: &str) -> Response<PageBody> {
    let mut response = html(status, content.to_owned());
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// `message` is markup of ours.
fn login_page(message: &'static str) -> Response<PageBody> {
    html(
        StatusCode::UNAUTHORIZED,
        LOGIN.replace("<!--message-->", message),
    )
}

fn to_page() -> Response<PageBody> {
    let mut response = text(StatusCode::SEE_OTHER, "");
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("./"));
    response
}

fn off() -> Response<PageBody> {
    text(
        StatusCode::FORBIDDEN,
        "The live page is off: this address can be reached from other machines, and no token is configured.\n\
Write `token = { env = \"HOOKBRIDGE_ADMIN_TOKEN\" }` under [admin], or listen at 127.0.0.1.\n\
/metrics, /healthz and /readyz work without it.\n",
    )
}

fn harden(response: &mut Response<PageBody>) {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
