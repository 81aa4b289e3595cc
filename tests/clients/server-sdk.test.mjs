// The `pusher` server SDK for Node: publishing and asking over the signed HTTP API.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import {
  Raw, client, closeAll, connected, fence, fresh, heard, member, publisher, refusal, server, spread,
  subscribed,
} from './support.mjs';

afterEach(closeAll);

/** Sixteen subscribers of one channel, on both workers. */
async function audience(name, make) {
  const clients = await spread(16, make);
  return Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
}

/** The JSON of a GET. */
async function read(path, params) {
  const response = await publisher().get({ path, params });
  assert.equal(response.status, 200);
  return response.json();
}

test('an event to one channel is answered 200 {} and reaches everybody', async () => {
  const name = fresh('news');
  const channels = await audience(name);
  const got = channels.map((channel) => heard(channel, 'headline'));
  const response = await publisher().trigger(name, 'headline', { text: 'rain' });
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  assert.deepEqual(await response.json(), {});
  await fence(channels);
  for (const list of got) assert.deepEqual(list, [{ text: 'rain' }]);
});

test('an event to several channels reaches each of them once', async () => {
  const names = Array.from({ length: 100 }, () => fresh('many'));
  const [{ pusher: first }, { pusher: second }] = await spread(2);
  const heardBy = [];
  for (const [i, name] of names.entries()) {
    const channel = await subscribed(i % 2 === 0 ? first : second, name);
    heardBy.push([channel, heard(channel, 'all')]);
  }
  await publisher().trigger(names, 'all', 'x');
  for (const [channel, list] of heardBy) {
    await fence([channel]);
    assert.deepEqual(list, ['x'], channel.name);
  }
});

test('publishing where nobody listens is fine', async () => {
  const response = await publisher().trigger(fresh('nobody'), 'anything', 'x');
  assert.equal(response.status, 200);
});

test('socket_id leaves one connection out', async () => {
  const name = fresh('edits');
  const clients = await spread(4);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const got = channels.map((channel) => heard(channel, 'edit'));
  await publisher().trigger([name], 'edit', 1, { socket_id: clients[2].pusher.connection.socket_id });
  await fence(channels);
  assert.deepEqual(got.map((list) => list.length), clients.map((_, i) => (i === 2 ? 0 : 1)));
});

test('info in a publish counts the users of both workers', async () => {
  const name = fresh('presence-count');
  const plain = fresh('plain');
  // Eight users with two connections each.
  await audience(name, (i) => client({ user: member(`user${i % 8}`) }));
  const response = await publisher().trigger([name, plain], 'e', 'x', { info: 'user_count' });
  const { channels } = await response.json();
  assert.deepEqual(channels[name], { user_count: 8 });
  assert.ok(!(plain in channels) || !('user_count' in channels[plain]),
    'only presence channels have users');
});

test('info counts the subscriptions of both workers', async () => {
  const name = fresh('audience');
  const channels = await audience(name);
  const response = await publisher().trigger(name, 'e', 'x', { info: 'subscription_count' });
  assert.deepEqual(await response.json(), { channels: { [name]: { subscription_count: channels.length } } });
  assert.deepEqual(await read(`/channels/${name}`, { info: 'subscription_count' }),
    { occupied: true, subscription_count: channels.length });
});

test('a batch reaches its channels in order and answers with the info asked for', async () => {
  const [one, two] = [fresh('batch'), fresh('presence-batch')];
  const [{ pusher: first }, { pusher: second }] = await spread(2,
    (i) => client({ user: member(`user${i}`) }));
  const left = await subscribed(first, one);
  const right = await subscribed(second, two);
  const [gotLeft, gotRight] = [heard(left, 'b'), heard(right, 'b')];

  const sdk = publisher();
  const plain = await sdk.triggerBatch(Array.from({ length: 10 }, (_, n) => (
    { channel: n % 2 ? one : two, name: 'b', data: { n } })));
  assert.deepEqual(await plain.json(), {});
  await fence([left]);
  await fence([right]);
  assert.deepEqual(gotLeft.map(({ n }) => n), [1, 3, 5, 7, 9]);
  assert.deepEqual(gotRight.map(({ n }) => n), [0, 2, 4, 6, 8]);

  const counted = await sdk.triggerBatch([
    { channel: one, name: 'b', data: 'x' },
    { channel: two, name: 'b', data: 'x', info: 'user_count' },
  ]);
  const { batch } = await counted.json();
  assert.equal(batch.length, 2);
  assert.deepEqual(batch, [{}, { user_count: 1 }]);
});

test('a batch leaves out the sender of each event', async () => {
  const name = fresh('batch');
  const clients = await spread(2);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const got = channels.map((channel) => heard(channel, 'b'));
  await publisher().triggerBatch([
    { channel: name, name: 'b', data: 'first', socket_id: clients[0].pusher.connection.socket_id },
    { channel: name, name: 'b', data: 'second' },
  ]);
  await fence(channels);
  assert.deepEqual(got[0], ['second']);
  for (const list of got.slice(1)) assert.deepEqual(list, ['first', 'second']);
});

test('a batch with one bad event publishes none of them', async () => {
  const name = fresh('batch');
  const pusher = await connected(client());
  const channel = await subscribed(pusher, name);
  const got = heard(channel, 'b');
  const refused = await refusal(publisher().triggerBatch([
    { channel: name, name: 'b', data: 'fine' },
    { channel: name, name: 'b', data: 'x'.repeat(10_241) },
  ]));
  assert.equal(refused.status, 413);
  const many = await refusal(publisher().triggerBatch(
    Array.from({ length: 11 }, () => ({ channel: name, name: 'b', data: 'x' }))));
  assert.equal(many.status, 400);
  await fence([channel]);
  assert.deepEqual(got, []);
});

test('channels lists the occupied ones, with a prefix and with counts', async () => {
  const prefix = fresh('presence-list');
  const other = fresh('other');
  const clients = await spread(6, (i) => client({ user: member(`user${i % 3}`) }));
  for (const [i, { pusher }] of clients.entries()) {
    await subscribed(pusher, `${prefix}-${i % 2}`);
    await subscribed(pusher, other);
  }
  const users = (rest) => new Set(clients.map((_, i) => i).filter((i) => i % 2 === rest)
    .map((i) => i % 3)).size;

  const all = await read('/channels');
  assert.deepEqual(all.channels[other], {});
  assert.deepEqual(all.channels[`${prefix}-0`], {});

  const counted = await read('/channels', { filter_by_prefix: prefix, info: 'user_count' });
  assert.deepEqual(counted, { channels: {
    [`${prefix}-0`]: { user_count: users(0) },
    [`${prefix}-1`]: { user_count: users(1) },
  } });

  assert.deepEqual(await read('/channels', { filter_by_prefix: fresh('none') }), { channels: {} });
  const everyChannel = await refusal(publisher().get({ path: '/channels', params: { info: 'user_count' } }));
  assert.equal(everyChannel.status, 400, 'users can be counted on presence channels only');
});

test('one channel is told occupied or not, with its users counted', async () => {
  const name = fresh('presence-one');
  assert.deepEqual(await read(`/channels/${name}`), { occupied: false });
  await audience(name, (i) => client({ user: member(`user${i % 5}`) }));
  assert.deepEqual(await read(`/channels/${name}`), { occupied: true });
  assert.deepEqual(await read(`/channels/${name}`, { info: 'user_count' }),
    { occupied: true, user_count: 5 });

  const odd = `${fresh('odd')}=@,.;`;
  await subscribed(await connected(client()), odd);
  assert.deepEqual(await read(`/channels/${odd}`), { occupied: true });
  const count = await refusal(publisher().get({ path: `/channels/${odd}`, params: { info: 'user_count' } }));
  assert.equal(count.status, 400, 'a channel without presence has no users to count');
});

test('users lists each user of a presence channel once', async () => {
  const name = fresh('presence-users');
  await audience(name, (i) => client({ user: member(`user${i % 7}`) }));
  const { users } = await read(`/channels/${name}/users`);
  assert.deepEqual(users.map(({ id }) => id).sort(),
    Array.from({ length: 7 }, (_, i) => `user${i}`));
  assert.deepEqual(await read(`/channels/${fresh('presence-empty')}/users`), { users: [] });
  assert.equal((await refusal(publisher().get({ path: `/channels/${fresh('public')}/users` }))).status, 400);
});

test('a wrong secret, an unknown key and a foreign app are refused', async () => {
  const name = fresh('safe');
  const channel = await subscribed(await connected(client()), name);
  const got = heard(channel, 'e');
  assert.equal((await refusal(publisher({ secret: 'guess' }).trigger(name, 'e', 'x'))).status, 401);
  assert.equal((await refusal(publisher({ key: 'no-such-key' }).trigger(name, 'e', 'x'))).status, 401);
  assert.equal((await refusal(publisher({ appId: 'no-such-app' }).trigger(name, 'e', 'x'))).status, 404);
  assert.equal((await refusal(publisher({ secret: 'guess' }).get({ path: '/channels' }))).status, 401);
  await fence([channel]);
  assert.deepEqual(got, []);
});

test('a signature is for one body, one path and ten minutes', async () => {
  const sdk = publisher();
  const base = `http://${server.host}:${server.port}`;
  const path = `/apps/${server.appId}/events`;
  const body = JSON.stringify({ name: 'e', channels: [fresh('safe')], data: 'x' });
  const query = sdk.createSignedQueryString({ method: 'POST', path, body });
  const post = async (url, text) => (await fetch(url, {
    method: 'POST', body: text, headers: { 'content-type': 'application/json' },
  })).status;
  assert.equal(await post(`${base}${path}?${query}`, body), 200, 'as signed');
  assert.equal(await post(`${base}${path}?${query}`, body.replace('"x"', '"y"')), 401, 'another body');
  assert.equal(await post(`${base}/apps/${server.appId}/batch_events?${query}`, body), 401, 'another path');
  assert.equal(await post(`${base}${path}?${query}&info=user_count`, body), 401, 'one parameter more');
  assert.equal(await post(`${base}${path}`, body), 401, 'no signature');

  const now = Date.now;
  try {
    for (const seconds of [-700, 700]) {
      Date.now = () => now() + seconds * 1000;
      const skewed = sdk.createSignedQueryString({ method: 'POST', path, body });
      assert.equal(await post(`${base}${path}?${skewed}`, body), 401, `a clock ${seconds} s off`);
    }
  } finally {
    Date.now = now;
  }
});

test('data may have 10,240 bytes and not one more', async () => {
  const name = fresh('large');
  const channel = await subscribed(await connected(client()), name);
  const got = heard(channel, 'big');
  const largest = 'ü'.repeat(5_120);
  assert.equal((await publisher().trigger(name, 'big', largest)).status, 200);
  const refused = await refusal(publisher().trigger(name, 'big', `${largest}x`));
  assert.equal(refused.status, 413);
  assert.ok(refused.body.length > 0, 'the refusal says why');
  await fence([channel]);
  assert.deepEqual(got, [largest]);
});

test('more than a hundred channels are refused with 400', async () => {
  const channels = Array.from({ length: 101 }, (_, n) => `crowd-${n}`);
  // The SDK would refuse this by itself; its plain `post` signs anything.
  const refused = await refusal(publisher().post({
    path: '/events', body: { name: 'e', data: 'x', channels },
  }));
  assert.equal(refused.status, 400);
});

test('requests that make no sense are refused with 400 and a reason', async () => {
  const name = fresh('ok');
  const bodies = {
    'no name': { data: 'x', channels: [name] },
    'no data': { name: 'e', channels: [name] },
    'no channels': { name: 'e', data: 'x' },
    'an empty list of channels': { name: 'e', data: 'x', channels: [] },
    'a bad channel name': { name: 'e', data: 'x', channels: ['not a channel'] },
    'a name too long': { name: 'e'.repeat(201), data: 'x', channels: [name] },
    'a bad socket id': { name: 'e', data: 'x', channels: [name], socket_id: 'me' },
  };
  for (const [what, body] of Object.entries(bodies)) {
    const refused = await refusal(publisher().post({ path: '/events', body }));
    assert.equal(refused.status, 400, what);
    assert.ok(refused.body.length > 0, `${what}: a reason`);
  }
});

test('channel instead of channels, as the PHP SDK sends it, is accepted', async () => {
  const name = fresh('php');
  const raw = await Raw.open();
  await raw.subscribe(name);
  const response = await publisher().post({ path: '/events', body: { name: 'e', data: 'x', channel: name } });
  assert.equal(response.status, 200);
  assert.deepEqual(await raw.next('e'), { event: 'e', channel: name, data: 'x' });
});
