// Laravel Echo over pusher-js, with the calls a Laravel application makes.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import Echo from 'laravel-echo';
import PusherClient from 'pusher-js';
import {
  clientOptions, closeAll, fresh, member, onClose, portOf, publisher, pids, server, until, within,
  workerOf,
} from './support.mjs';

afterEach(closeAll);

/** One Echo, configured as in Laravel's own bootstrap file, but for our server. */
async function echo({ user, secret } = {}) {
  const one = new Echo({
    broadcaster: 'pusher',
    Pusher: PusherClient,
    key: server.key,
    ...clientOptions({ user, secret }),
  });
  onClose(() => one.disconnect());
  await until('Echo is connected', () => one.connectionStatus() === 'connected',
    { shown: () => one.connectionStatus() });
  return one;
}

/** Echoes for each of `users`, with more of them than needed until two workers serve some. */
async function echoes(users) {
  const workers = await pids('worker');
  const all = [];
  const spare = [];
  const seen = new Set();
  for (const user of users) {
    const one = await echo({ user });
    all.push(one);
    seen.add(await workerOf(portOf(one.connector.pusher), workers));
  }
  while (seen.size < 2) {
    // All on one worker: replace the last by one on another.
    assert.ok(spare.length < 100, 'a hundred connections more and still all on one worker');
    spare.push(all.pop());
    const one = await echo({ user: users.at(-1) });
    all.push(one);
    seen.add(await workerOf(portOf(one.connector.pusher), workers));
  }
  for (const one of spare) one.disconnect();
  return all;
}

/** Waits for the subscription behind an Echo channel. */
function ready(channel) {
  return within(`Echo's subscription to ${channel.name}`, new Promise((resolve, reject) => {
    if (channel.subscription.subscribed) resolve();
    channel.subscribed(resolve);
    channel.error((error) => reject(new Error(JSON.stringify(error))));
  }));
}

test('listen hears a broadcast event by its class name and by its own name', async () => {
  const name = fresh('orders');
  const [one, two] = await echoes([undefined, undefined]);
  const got = [];
  for (const [who, each] of [one, two].entries()) {
    const channel = each.channel(name);
    channel.listen('OrderShipped', (data) => got.push([who, 'class', data]));
    channel.listen('.order.paid', (data) => got.push([who, 'alias', data]));
    await ready(channel);
  }
  const sdk = publisher();
  await sdk.trigger(name, 'App\\Events\\OrderShipped', { order: { id: 7 } });
  await sdk.trigger(name, 'order.paid', { order: { id: 8 } });
  await until('both hear both', () => got.length === 4, { shown: () => got });
  for (const who of [0, 1]) {
    assert.deepEqual(got.filter(([by]) => by === who), [
      [who, 'class', { order: { id: 7 } }],
      [who, 'alias', { order: { id: 8 } }],
    ]);
  }
});

test('toOthers, by socketId, leaves the sender out', async () => {
  const name = fresh('orders');
  const [sender, other] = await echoes([undefined, undefined]);
  const got = { sender: [], other: [] };
  for (const [who, each] of Object.entries({ sender, other })) {
    const channel = each.channel(name);
    channel.listen('.edit', (data) => got[who].push(data.n));
    await ready(channel);
  }
  const sdk = publisher();
  await sdk.trigger(name, 'edit', { n: 1 }, { socket_id: sender.socketId() });
  await sdk.trigger(name, 'edit', { n: 2 });
  await until('both have the last one', () => got.sender.at(-1) === 2 && got.other.at(-1) === 2);
  assert.deepEqual(got, { sender: [2], other: [1, 2] });
});

test('private channels: listen, and whispers reach the others only', async () => {
  const name = fresh('thread');
  const [anna, ben] = await echoes([undefined, undefined]);
  const hers = anna.private(name);
  const his = ben.private(name);
  await ready(hers);
  await ready(his);

  const listened = [];
  hers.listen('Reply', (data) => listened.push(data));
  await publisher().trigger(`private-${name}`, 'App\\Events\\Reply', { text: 'hello' });
  await until('the event arrives', () => listened.length > 0);
  assert.deepEqual(listened, [{ text: 'hello' }]);

  const whispers = { anna: [], ben: [] };
  hers.listenForWhisper('typing', (data) => whispers.anna.push(data));
  his.listenForWhisper('typing', (data) => whispers.ben.push(data));
  hers.whisper('typing', { who: 'anna' });
  await until('ben hears anna type', () => whispers.ben.length > 0);
  his.whisper('typing', { who: 'ben' });
  await until('anna hears ben type', () => whispers.anna.length > 0);
  assert.deepEqual(whispers, { anna: [{ who: 'ben' }], ben: [{ who: 'anna' }] });
});

test('join tells here, joining and leaving with the users\' info', async () => {
  const name = fresh('room');
  const [anna, ben] = await echoes([
    member('1', { id: 1, name: 'Anna' }), member('2', { id: 2, name: 'Ben' }),
  ]);
  const told = [];
  const hers = anna.join(name)
    .here((users) => told.push(['here', users]))
    .joining((user) => told.push(['joining', user]))
    .leaving((user) => told.push(['leaving', user]));
  await ready(hers);
  await until('anna is alone', () => told.length === 1);

  let benSees;
  const his = ben.join(name).here((users) => { benSees = users; });
  await ready(his);
  await until('ben sees who is there', () => benSees);
  assert.deepEqual([...benSees].sort((a, b) => a.id - b.id),
    [{ id: 1, name: 'Anna' }, { id: 2, name: 'Ben' }]);
  await until('anna sees ben come', () => told.length === 2);

  const whispers = [];
  hers.listenForWhisper('wave', (data) => whispers.push(data));
  his.whisper('wave', { from: 2 });
  await until('anna sees ben wave', () => whispers.length > 0);
  assert.deepEqual(whispers, [{ from: 2 }]);

  ben.leave(name);
  await until('anna sees ben go', () => told.length === 3);
  assert.deepEqual(told, [
    ['here', [{ id: 1, name: 'Anna' }]],
    ['joining', { id: 2, name: 'Ben' }],
    ['leaving', { id: 2, name: 'Ben' }],
  ]);
});

test('error is called when the server refuses a subscription', async () => {
  const name = fresh('secret');
  const one = await echo({ secret: 'not the secret', user: member('1') });
  const errors = [one.private(name), one.join(name)].map((channel) => within(
    `the error callback of ${channel.name}`, new Promise((resolve) => channel.error(resolve))));
  for (const error of await Promise.all(errors)) {
    assert.equal(error.type, 'AuthError');
    assert.equal(error.status, 401);
  }
  assert.equal(one.connectionStatus(), 'connected');
});
