// examples/publish.sh: publishing with nothing but bash, openssl and curl.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, test } from 'node:test';
import { promisify } from 'node:util';
import {
  closeAll, fence, fresh, heard, server, spread, subscribed,
} from './support.mjs';

afterEach(closeAll);

const run = promisify(execFile);
const script = fileURLToPath(new URL('../../examples/publish.sh', import.meta.url));

const publish = (args, env = {}) => run(script, args, {
  env: {
    ...process.env,
    HOST: `${server.host}:${server.port}`,
    APP_ID: server.appId,
    KEY: server.key,
    SECRET: server.secret,
    ...env,
  },
});

test('what the script publishes reaches everybody, byte for byte', async () => {
  const name = fresh('room');
  const clients = await spread(4);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const got = channels.map((channel) => heard(channel, 'message'));
  const data = [
    '{"text":"hi"}',
    'plain words',
    '"quotes", back\\slashes, $dollars and `ticks`',
    'two\nlines\tand a tab',
    'grüße 👋',
  ];
  for (const text of data) await publish([name, 'message', text]);
  await fence(channels);
  for (const list of got) assert.deepEqual(list, [{ text: 'hi' }, ...data.slice(1)]);
});

test('the script says what the server refused and fails', async () => {
  const failed = await publish([fresh('room'), 'message', 'x'], { SECRET: 'guess' })
    .then(() => assert.fail('a wrong secret must not succeed'), (error) => error);
  assert.notEqual(failed.code, 0);
  assert.match(failed.stdout + failed.stderr, /401/);
});

test('without arguments the script explains itself', async () => {
  const failed = await publish([]).then(() => assert.fail('it must not succeed'), (error) => error);
  assert.equal(failed.code, 2);
  assert.match(failed.stderr, /publish\.sh CHANNEL EVENT DATA/);
});
