// The rows of the backend table: what a server library must be able to do with the server. A row
// gets the library's calls, and a client without a library that hears what comes of them.

import assert from 'node:assert/strict';
import { fresh, member, until } from '../support.mjs';

export const rows = [];
const row = (id, title, run) => rows.push({ id, title, run });

/** The data of the events that the listener has heard in the channel, up to `count` of them. */
async function heard(listener, channel, count) {
  const found = [];
  while (found.length < count) {
    const frame = await listener.next('news');
    if (frame.channel === channel) found.push(JSON.parse(frame.data));
  }
  return found;
}

row('trigger', 'Publishes to one channel', async ({ sdk, listen }) => {
  const name = fresh('news');
  const listener = await listen(name);
  assert.deepEqual(await sdk.trigger([name], 'news', { title: 'ünïcode ✓' }), {});
  assert.deepEqual(await heard(listener, name, 1), [{ title: 'ünïcode ✓' }]);
});

row('several', 'Publishes to several channels at once', async ({ sdk, listen }) => {
  const names = [fresh('a'), fresh('b'), fresh('c=d,e;f@g.h')];
  const listeners = await Promise.all(names.map((name) => listen(name)));
  assert.deepEqual(await sdk.trigger(names, 'news', { n: 1 }), {});
  for (const [i, name] of names.entries()) {
    assert.deepEqual(await heard(listeners[i], name, 1), [{ n: 1 }]);
  }
});

row('excluded', 'Leaves out the connection that caused the event', async ({ sdk, listen }) => {
  const name = fresh('news');
  const [sender, other] = [await listen(name), await listen(name)];
  await sdk.trigger([name], 'news', { n: 1 }, { socket_id: sender.socketId });
  await sdk.trigger([name], 'news', { n: 2 });
  assert.deepEqual(await heard(other, name, 2), [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(await heard(sender, name, 1), [{ n: 2 }]);
});

row('batch', 'Publishes several events in one call', async ({ sdk, listen }) => {
  const name = fresh('news');
  const listener = await listen(name);
  await sdk.batch([1, 2, 3].map((n) => ({ channel: name, name: 'news', data: { n } })));
  assert.deepEqual(await heard(listener, name, 3), [{ n: 1 }, { n: 2 }, { n: 3 }]);
});

row('info', 'Learns the number of subscribers from publishing', async ({ sdk, listen }) => {
  const name = fresh('presence-room');
  await listen(name, member('anna'));
  await listen(name, member('anna'));
  const answer = await sdk.trigger([name], 'news', {}, { info: 'user_count,subscription_count' });
  assert.deepEqual(answer, { channels: { [name]: { user_count: 1, subscription_count: 2 } } });
});

row('channels', 'Lists channels by prefix', async ({ sdk, listen }) => {
  const name = fresh('presence-room');
  assert.deepEqual(await sdk.channels(name), { channels: {} });
  await listen(name, member('anna'));
  assert.deepEqual(await sdk.channels(name), { channels: { [name]: { user_count: 1 } } });
});

row('channel', 'Asks about one channel', async ({ sdk, listen }) => {
  const name = fresh('presence-room');
  assert.equal((await sdk.channel(name)).occupied, false);
  await listen(name, member('anna'));
  assert.deepEqual(await sdk.channel(name), { occupied: true, user_count: 1 });
});

row('users', 'Lists the users of a presence channel', async ({ sdk, listen }) => {
  const name = fresh('presence-room');
  await listen(name, member('anna'));
  assert.deepEqual(await sdk.users(name), { users: [{ id: 'anna' }] });
});

row('to_user', 'Publishes to a user', async ({ sdk, signIn }) => {
  const id = fresh('anna');
  const listener = await signIn(id);
  await sdk.toUser(id, 'news', { n: 1 });
  assert.deepEqual(await heard(listener, `#server-to-user-${id}`, 1), [{ n: 1 }]);
});

row('terminate', 'Ends the connections of a user', async ({ sdk, signIn }) => {
  const id = fresh('anna');
  const listener = await signIn(id);
  await sdk.terminate(id);
  assert.equal((await listener.closed()).code, 4009);
});

row('refused', 'Is told that its secret is wrong', async ({ sdk }) => {
  const status = await sdk.statusWithSecret('not the secret');
  assert.equal(status, 401);
});

row('too_large', 'Is told that an event is too large', async ({ sdk }) => {
  const status = await sdk.statusOf([fresh('news')], 'news', 'x'.repeat(10_241));
  assert.equal(status, 413);
});

row('encrypted', 'Publishes to encrypted channels', async ({ sdk, listen }) => {
  const name = fresh('private-encrypted-notes');
  const listener = await listen(name);
  await sdk.encrypted(name, 'news', { secret: 1 });
  const [data] = await heard(listener, name, 1);
  assert.deepEqual(Object.keys(data).sort(), ['ciphertext', 'nonce']);
});

row('authorize', 'Signs for private and presence channels', async ({ sdk, connect }) => {
  for (const name of [fresh('private-a'), fresh('presence-a')]) {
    const listener = await connect();
    const user = name.startsWith('presence-') ? member('anna') : undefined;
    const signed = await sdk.authorize(listener.socketId, name, user);
    listener.send({ event: 'pusher:subscribe', data: { channel: name, ...signed } });
    await listener.next('pusher_internal:subscription_succeeded');
  }
});

row('authenticate', 'Signs for users', async ({ sdk, connect }) => {
  const listener = await connect();
  const signed = await sdk.authenticate(listener.socketId, { id: fresh('anna') });
  listener.send({ event: 'pusher:signin', data: signed });
  await listener.next('pusher:signin_success');
});

row('webhook', 'Takes our webhooks for genuine, and forged ones not', async ({ sdk, listen, webhooks }) => {
  const name = fresh('hooked');
  await listen(name);
  const request = await until('the webhook arrives',
    () => webhooks.requests.find(({ body }) => body.includes(name)));
  const events = await sdk.webhook(request);
  assert.deepEqual(events, [{ name: 'channel_occupied', channel: name }]);
  const forged = { ...request, body: request.body.replace('occupied', 'vacated') };
  assert.equal(await sdk.webhook(forged), null);
});
