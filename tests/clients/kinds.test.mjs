// Cache channels, encrypted channels and counts of subscriptions, as pusher-js knows them.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { afterEach, test } from 'node:test';
import PusherServer from 'pusher';
import {
  client, closeAll, connected, fence, fresh, heard, publisher, server, spread, subscribed, until,
} from './support.mjs';

afterEach(closeAll);

test('a cache channel tells newcomers its last event, or that there is none', async () => {
  const name = fresh('cache-score');
  const first = await connected(client());
  const channel = first.subscribe(name);
  const misses = heard(channel, 'pusher:cache_miss');
  const got = heard(channel, 'goal');
  await until('the miss is told', () => misses.length === 1);
  const sdk = publisher();
  for (const score of ['1:0', '1:1']) await sdk.trigger(name, 'goal', { score });
  await until('both goals arrive', () => got.length === 2);

  for (const { pusher } of await spread(8)) {
    const late = pusher.subscribe(name);
    const replay = heard(late, 'goal');
    await until('the last goal is told', () => replay.length > 0);
    assert.deepEqual(replay, [{ score: '1:1' }]);
  }
  const response = await sdk.get({ path: `/channels/${name}`, params: { info: 'cache' } });
  const { cache } = await response.json();
  assert.deepEqual(JSON.parse(cache.data), { score: '1:1' });
  assert.ok(cache.ttl > 0 && cache.ttl <= 1800);
});

test('an encrypted channel is read by its subscribers only', async () => {
  const encryptionMasterKeyBase64 = randomBytes(32).toString('base64');
  const name = fresh('private-encrypted-notes');
  const sdk = publisher({ encryptionMasterKeyBase64 });
  const { appId, key, secret } = server;
  const signer = new PusherServer({ appId, key, secret, encryptionMasterKeyBase64 });
  const customHandler = ({ socketId, channelName }, answer) =>
    answer(null, signer.authorizeChannel(socketId, channelName));
  const reader = client({ channelAuthorization: { customHandler } });
  const frames = [];
  reader.connection.bind('message', (message) => frames.push(message));
  const channel = await subscribed(reader, name);
  const notes = heard(channel, 'note');
  await sdk.trigger(name, 'note', { text: 'secret' });
  await until('the note is decrypted', () => notes.length > 0);
  assert.deepEqual(notes, [{ text: 'secret' }]);
  const [frame] = frames.filter((message) => message.event === 'note');
  assert.deepEqual(Object.keys(frame.data).sort(), ['ciphertext', 'nonce']);
});

test('subscribers are told how many they are on both workers', async () => {
  const name = fresh('crowd');
  const clients = await spread(6, () => client({ key: 'counting-key' }));
  const channels = [];
  for (const { pusher } of clients) channels.push(await subscribed(pusher, name));
  const counts = channels.map((channel) => heard(channel, 'pusher:subscription_count'));
  clients.pop().pusher.disconnect();
  await until('everybody left is told', () => counts.slice(0, -1).every((list) => list
    .some(({ subscription_count: count }) => count === clients.length)), { shown: () => counts });
  assert.equal(channels[0].subscriptionCount, clients.length);
});
