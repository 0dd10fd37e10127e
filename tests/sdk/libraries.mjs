// Signs and verifies with the providers' libraries for Node. One JSON object a line comes in, and its result goes out.
import { createInterface } from "node:readline";
import * as octokit from "@octokit/webhooks-methods";
import { Paddle } from "@paddle/paddle-node-sdk";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import Stripe from "stripe";

const stripe = new Stripe("sk_test_none");

const sign = {
  github: async ({ body, secret }) => ({ "x-hub-signature-256": await octokit.sign(secret, body) }),
  stripe: async ({ body, secret }) => ({
    "stripe-signature": stripe.webhooks.generateTestHeaderString({ payload: body, secret }),
  }),
};

const verify = {
  github: ({ body, headers, secret }) => octokit.verify(secret, body, headers["x-hub-signature-256"]),
  linear: ({ body, headers, secret }) => {
    const { webhookTimestamp } = JSON.parse(body);
    return new LinearWebhookClient(secret).verify(Buffer.from(body), headers["linear-signature"], webhookTimestamp);
  },
  paddle: ({ body, headers, secret }) =>
    new Paddle("none").webhooks.isSignatureValid(body, secret, headers["paddle-signature"]),
  shopify: async ({ body, headers, secret }) => {
    const shopify = shopifyApi({
      apiKey: "none",
      apiSecretKey: secret,
      apiVersion: Object.values(ApiVersion)[0],
      hostName: "hooks.example.com",
      isEmbeddedApp: false,
      logger: { log: () => {} },
    });
    const rawRequest = { method: "POST", url: "/", headers };
    const { valid } = await shopify.webhooks.validate({ rawBody: body, rawRequest, rawResponse: {} });
    return valid;
  },
  stripe: ({ body, headers, secret }) =>
    stripe.webhooks.constructEvent(body, headers["stripe-signature"], secret) !== undefined,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { what, provider, ...request } = JSON.parse(line);
  let result;
  try {
    result = { ok: await { sign, verify }[what][provider](request) };
  } catch (error) {
    result = { error: String(error) };
  }
  console.log(JSON.stringify(result));
}
