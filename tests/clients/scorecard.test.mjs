// The scorecard: every feature with every SDK, and docs/conformance.md is what came of it.
// With LINEMAN_BLESS=1 the page is written instead of compared.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { after, afterEach, before, test } from 'node:test';
import PusherServer from 'pusher';
import { rows as backendRows } from './scorecard/backends.mjs';
import { receiver, sign } from './scorecard/backend.mjs';
import * as chromium from './scorecard/chromium.mjs';
import { rows as clientRows } from './scorecard/clients.mjs';
import * as echo from './scorecard/echo.mjs';
import * as nodeSdk from './scorecard/node-sdk.mjs';
import * as pusherJs from './scorecard/pusher-js.mjs';
import * as pysher from './scorecard/pysher.mjs';
import * as pythonSdk from './scorecard/python-sdk.mjs';
import { recorded as recordedBackends } from './scorecard/recorded-backends.mjs';
import { recorded as recordedClients } from './scorecard/recorded.mjs';
import { markdown, score, withClients } from './scorecard/table.mjs';
import { Raw, closeAll, server } from './support.mjs';

const page = new URL('../../docs/conformance.md', import.meta.url);
const libraries = [pusherJs, chromium, echo, pysher, ...recordedClients];
const backends = [nodeSdk, pythonSdk, ...recordedBackends];
let webhooks;

before(async () => {
  webhooks = await receiver(Number(process.env.LINEMAN_WEBHOOK_PORT));
  await chromium.begin();
});
after(async () => {
  await chromium.end();
  webhooks.close();
});
afterEach(closeAll);

/** What a subscription needs beside the channel's name. */
const auth = (raw, name, user) => (/^(private|presence)-/.test(name)
  ? sign({ user }, 'channel', raw.socketId, name) : {});

const clients = score('clients', clientRows, libraries, withClients);

const calls = score('backends', backendRows, backends, async (row, column) => {
  const sdk = column.open();
  const listen = async (name, user) => {
    const raw = await Raw.open();
    raw.send({ event: 'pusher:subscribe', data: { channel: name, ...await auth(raw, name, user) } });
    await raw.next('pusher_internal:subscription_succeeded');
    return raw;
  };
  const signIn = async (id) => {
    const raw = await Raw.open();
    const signer = new PusherServer(server);
    raw.send({ event: 'pusher:signin', data: signer.authenticateUser(raw.socketId, { id }) });
    await raw.next('pusher:signin_success');
    return raw;
  };
  try {
    await row.run({ sdk, listen, signIn, connect: () => Raw.open(), webhooks });
  } finally {
    sdk.close();
  }
});

test('docs/conformance.md is what was just seen', async () => {
  const text = `# Conformance

Which feature works with which SDK. \`cargo test --test clients scorecard\` runs every cell against a
server with two workers and compares this page with what it saw; ✓ means that it did, ✗ that it
failed, – that the SDK has no such thing, for the reason below the table. Versions are those in
\`tests/clients\`. *Recorded* SDKs do not run in the tests: scripts send what they send and read as
strictly as they read (\`tests/clients/scorecard/recorded.mjs\` and \`recorded-backends.mjs\`).

## Client libraries

${markdown('', clientRows, libraries, clients)}

## Server libraries

${markdown('', backendRows, backends, calls)}
`;
  if (process.env.LINEMAN_BLESS) await writeFile(page, text);
  const written = await readFile(page, 'utf8').catch(() => '');
  assert.equal(written, text, 'write the page anew: LINEMAN_BLESS=1 cargo test --test clients scorecard');
});
