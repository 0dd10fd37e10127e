"""Compares `hookbridge send` and `hookbridge demo` with the providers' libraries, on loopback alone."""

import base64
import datetime
import hashlib
import http.client
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse

import discord_interactions
import standardwebhooks
import stripe
import svix.webhooks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sendgrid.helpers.eventwebhook import EventWebhook
from slack_sdk.signature import SignatureVerifier
from square.utils.webhooks_helper import verify_signature as square_verifies
from twilio.request_validator import RequestValidator

HOOKBRIDGE, LIBRARIES = sys.argv[1:]
TEXT = "a-secret-of-these-tests"
BASE64 = "whsec_" + base64.b64encode(b"32 bytes that everyone may know.").decode()

node = subprocess.Popen(["node", LIBRARIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def in_node(what, provider, **request):
    node.stdin.write(json.dumps({"what": what, "provider": provider, **request}) + "\n")
    node.stdin.flush()
    line = node.stdout.readline()
    if not line:
        sys.exit("the libraries for Node have ended")
    return json.loads(line)


def raises_nothing(call):
    try:
        return call() is not False
    except Exception:
        return False


def public_text(key):
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()


def private_text(key):
    form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return base64.b64encode(key.private_bytes(*form)).decode()


def spki_text(key):
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_bytes(*form)).decode()


DISCORD = ed25519.Ed25519PrivateKey.generate()
SENDGRID = ec.generate_private_key(ec.SECP256R1())
SECRETS = {"discord": private_text(DISCORD), "sendgrid": private_text(SENDGRID), "svix": BASE64, "standard-webhooks": BASE64}


def verifies_sendgrid(body, headers):
    webhook = EventWebhook(spki_text(SENDGRID.public_key()))
    prefix = "x-twilio-email-event-webhook-"
    return webhook.verify_signature(body, headers[prefix + "signature"], headers[prefix + "timestamp"])


def twilio_parameters(headers, body):
    """What Twilio's library takes: the fields of a form, or a body whose digest is in the URL."""
    if headers["content-type"].startswith("application/x-www-form-urlencoded"):
        return dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
    return body


def verifies_twilio(body, headers, url):
    return RequestValidator(TEXT).validate(url, twilio_parameters(headers, body), headers["x-twilio-signature"])


def signs_twilio(secret, headers, body, url):
    parameters = twilio_parameters(headers, body)
    fields = parameters if isinstance(parameters, dict) else {}
    return {"x-twilio-signature": RequestValidator(secret).compute_signature(url, fields)}


# How each library verifies a body with its header fields (in lower case), for the secret above.
VERIFY = {
    "discord": lambda body, headers, url: discord_interactions.verify_key(
        body.encode(), headers["x-signature-ed25519"], headers["x-signature-timestamp"], public_text(DISCORD.public_key())
    ),
    "sendgrid": lambda body, headers, url: verifies_sendgrid(body, headers),
    "slack": lambda body, headers, url: SignatureVerifier(TEXT).is_valid_request(body, headers),
    "square": lambda body, headers, url: square_verifies(
        request_body=body, signature_header=headers["x-square-hmacsha256-signature"], signature_key=TEXT, notification_url=url
    ),
    "standard-webhooks": lambda body, headers, url: standardwebhooks.Webhook(BASE64).verify(body, headers),
    "stripe": lambda body, headers, url: stripe.Webhook.construct_event(body, headers["stripe-signature"], TEXT),
    "svix": lambda body, headers, url: svix.webhooks.Webhook(BASE64).verify(body, headers),
    "twilio": verifies_twilio,
}
IN_NODE = ["github", "linear", "paddle", "shopify", "stripe"]


def signs_standard(webhook, prefix, headers, body):
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0)
    message = headers[prefix + "id"]
    return {
        prefix + "timestamp": str(int(now.timestamp())),
        prefix + "signature": webhook.sign(message, now, body),
    }


def signs_slack(secret, body):
    now = str(int(time.time()))
    return {
        "x-slack-request-timestamp": now,
        "x-slack-signature": SignatureVerifier(secret).generate_signature(timestamp=now, body=body),
    }


# How each library signs a body, where it does.
SIGN = {
    "slack": lambda secret, headers, body, url: signs_slack(secret, body),
    "standard-webhooks": lambda secret, headers, body, url: signs_standard(
        standardwebhooks.Webhook(secret), "webhook-", headers, body
    ),
    "svix": lambda secret, headers, body, url: signs_standard(svix.webhooks.Webhook(secret), "svix-", headers, body),
    "github": lambda secret, headers, body, url: in_node("sign", "github", body=body, secret=secret)["ok"],
    "stripe": lambda secret, headers, body, url: in_node("sign", "stripe", body=body, secret=secret)["ok"],
    "twilio": signs_twilio,
}


def signed_url(provider, headers, body, url):
    """The URL that the provider calls, which for JSON of Twilio has the body's digest."""
    if provider == "twilio" and isinstance(twilio_parameters(headers, body), str):
        return f"{url}?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    return url


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps the last request, and answers 200."""

    last = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        Receiver.last = (headers, body, f"http://{headers['host']}{self.path}")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def post(url, headers, body):
    url = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    own = {"host", "content-length", "connection"}
    target = urllib.parse.urlunsplit(("", "", url.path, url.query, ""))
    connection.request("POST", target, body.encode(), {k: v for k, v in headers.items() if k not in own})
    return connection.getresponse().status


def samples(provider):
    told = subprocess.run([HOOKBRIDGE, "providers", provider], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in told.splitlines() if line.startswith("samples ")]
    return line.removeprefix("samples ").strip().split(", ")


def sent(provider, sample, url):
    secret = SECRETS.get(provider, TEXT)
    arguments = ["send", "--provider", provider, "--secret", secret, "--url", url, "--sample", sample]
    subprocess.run([HOOKBRIDGE, *arguments], capture_output=True, check=True, timeout=120)
    return Receiver.last


def verifiers(provider):
    found = []
    if provider in VERIFY:
        verify = VERIFY[provider]
        found.append(("Python", lambda headers, body, url: raises_nothing(lambda: verify(body, headers, url))))
    if provider in IN_NODE:

        def verify_in_node(headers, body, url):
            return bool(in_node("verify", provider, body=body, headers=headers, secret=TEXT).get("ok"))

        found.append(("Node", verify_in_node))
    return found


def demo_takes(provider, headers, body):
    """What the demo answers to a request that a library has signed, and to the same with another body."""
    demo = subprocess.Popen([HOOKBRIDGE, "demo", "--provider", provider], stdout=subprocess.PIPE, text=True)
    try:
        for line in demo.stdout:
            found = re.search(r"--secret (\S+) --url (\S+)", line)
            if found:
                break
        secret, url = found.groups()
        # The demo must not wait for someone who reads what it prints.
        threading.Thread(target=demo.stdout.read, daemon=True).start()
        url = signed_url(provider, headers, body, url)
        signed = {**headers, **SIGN[provider](secret, headers, body, url)}
        # The wrong one first: the right one is then no duplicate.
        return post(url, signed, body + " "), post(url, signed, body)
    finally:
        demo.terminate()
        demo.wait()


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong = []

    def expect(holds, what):
        print("ok   " if holds else "WRONG", what, flush=True)
        if not holds:
            wrong.append(what)

    for provider in sorted({*VERIFY, *IN_NODE}):
        url = f"http://127.0.0.1:{server.server_port}/hooks/{provider}"
        for sample in samples(provider):
            headers, body, called = sent(provider, sample, url)
            other = body.replace(":", ": ", 1).replace("=", "=x", 1)
            for language, verify in verifiers(provider):
                name = f"{provider} {sample}: sent by hookbridge, verified by the library for {language}"
                expect(verify(headers, body, called), name)
                expect(not verify(headers, other, called), f"{name}, with another body refused")
            if provider in SIGN:
                name = f"{provider} {sample}: signed by the library"
                tampered, genuine = demo_takes(provider, headers, body)
                expect(tampered == 401, f"{name}, with another body refused by hookbridge ({tampered})")
                expect(genuine == 200, f"{name}, verified by hookbridge ({genuine})")
    node.stdin.close()
    sys.exit(f"{len(wrong)} of the comparisons are wrong" if wrong else 0)


main()
