// pusher-js, the browser library, as Node runs it: what an application sees of the server.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import {
  apart, client, closeAll, connected, fence, fresh, heard, member, pids, publisher, record, spread,
  subscribed, until, within,
} from './support.mjs';

afterEach(closeAll);

test('a client connects and gets a socket id of two numbers', async () => {
  const clients = await spread(16);
  const ids = clients.map(({ pusher }) => pusher.connection.socket_id);
  for (const id of ids) assert.match(id, /^\d+\.\d+$/);
  assert.equal(new Set(ids).size, ids.length, 'no two connections share a socket id');
});

test('a public channel carries strings, objects and unusual text unchanged to both workers', async () => {
  const name = fresh('public');
  const clients = await spread(16);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const records = channels.map(record);

  const sent = [
    ['words', 'hello'],
    ['object', { text: 'grüße 👋', nested: { list: [1, 2.5, null, true] } }],
    ['empty', ''],
    ['App\\Events\\OrderShipped', 'a name with backslashes'],
    ['markup', '<b>"quotes" & \\slashes\\</b>\n\u2028'],
    ['number-text', '42abc'],
  ];
  const sdk = publisher();
  for (const [event, data] of sent) await sdk.trigger(name, event, data);
  await fence(channels);

  for (const got of records) assert.deepEqual(got.slice(0, -1), sent);
});

test('a private channel is open to the signed and tells the others why not', async () => {
  const name = fresh('private-orders');
  const good = client();
  const channel = await subscribed(good, name);
  const got = heard(channel, 'order');

  const forger = client({ secret: 'not the secret' });
  const refused = forger.subscribe(name);
  const stolen = heard(refused, 'order');
  const error = await within('the forger hears that it was refused', new Promise((resolve) =>
    refused.bind('pusher:subscription_error', resolve)));
  assert.equal(error.type, 'AuthError');
  assert.equal(error.status, 401);
  assert.ok(error.error.length > 0, 'the refusal has a text');
  assert.equal(forger.connection.state, 'connected', 'a refusal does not end the connection');

  await publisher().trigger(name, 'order', { id: 1 });
  await fence([channel]);
  assert.deepEqual(got, [{ id: 1 }]);
  assert.deepEqual(stolen, [], 'the refused client hears nothing of the channel');
  assert.equal(refused.subscribed, false);
});

test('who subscribes to a presence channel sees everybody who is there, on either worker', async () => {
  const name = fresh('presence-room');
  const clients = await spread(8, (i) => client({ user: member(`user${i}`, { seat: i }) }));
  for (const { pusher } of clients) await subscribed(pusher, name);

  const late = client({ user: member('late', { seat: 'standing' }) });
  const channel = await subscribed(late, name);
  assert.equal(channel.members.count, clients.length + 1);
  assert.deepEqual(channel.members.me, { id: 'late', info: { seat: 'standing' } });
  for (let i = 0; i < clients.length; i += 1) {
    assert.deepEqual(channel.members.get(`user${i}`), { id: `user${i}`, info: { seat: i } });
  }
});

test('joining and leaving is told to the others, not to oneself', async () => {
  const name = fresh('presence-door');
  const [anna, ben] = await apart((i) => client({ user: member(i === 0 ? 'anna' : 'ben') }));
  const hers = await subscribed(anna, name);
  const seenByAnna = record(hers);

  const his = ben.subscribe(name);
  const seenByBen = record(his);
  await subscribed(ben, name);
  await until('anna sees ben', () => hers.members.count === 2);
  assert.deepEqual(seenByAnna, [['pusher:member_added', { id: 'ben', info: { name: 'name of ben' } }]]);
  assert.deepEqual(seenByBen.map(([event]) => event), ['pusher:subscription_succeeded']);

  ben.unsubscribe(name);
  await until('anna sees ben leave', () => hers.members.count === 1);
  assert.deepEqual(seenByAnna[1], ['pusher:member_removed', { id: 'ben', info: { name: 'name of ben' } }]);
  assert.equal(seenByAnna.length, 2);
});

test('a user with tabs on two workers joins once and leaves once', async () => {
  const name = fresh('presence-tabs');
  const lobby = fresh('private-lobby');
  const watchers = await spread(4, (i) => client({ user: member(`watcher${i}`) }));
  const channels = [];
  for (const { pusher } of watchers) channels.push(await subscribed(pusher, name));
  await fence(channels);
  const records = channels.map(record);
  const tellings = () => records.map((events) => events
    .filter(([event]) => event.startsWith('pusher:member_'))
    .map(([event, data]) => [event, data.id]));
  const everyWatcher = (expected) => watchers.map(() => expected);

  const [first, second] = await apart(() => client({ user: member('tabby') }));
  const firstTab = await subscribed(first, name);
  const secondTab = await subscribed(second, name);
  assert.equal(firstTab.members.count, watchers.length + 1);
  assert.equal(secondTab.members.count, watchers.length + 1);
  await fence(channels);
  assert.deepEqual(tellings(), everyWatcher([['pusher:member_added', 'tabby']]));

  // The first tab leaves. What one connection sends keeps its order on the way through the server,
  // so when its client event has arrived, its leaving has been dealt with.
  const listener = await subscribed(await connected(client()), lobby);
  const farewells = heard(listener, 'client-bye');
  const door = await subscribed(first, lobby);
  first.unsubscribe(name);
  assert.ok(door.trigger('client-bye', {}));
  await until('the farewell arrives', () => farewells.length === 1);
  await fence(channels);
  assert.deepEqual(tellings(), everyWatcher([['pusher:member_added', 'tabby']]));

  second.disconnect();
  await until('the last tab closing is told',
    () => tellings().every((told) => told.length > 1), { shown: tellings });
  await fence(channels);
  assert.deepEqual(tellings(),
    everyWatcher([['pusher:member_added', 'tabby'], ['pusher:member_removed', 'tabby']]));
});

test('client events reach the others with the sender\'s user id, and not the sender', async () => {
  const name = fresh('presence-chat');
  const clients = await spread(6, (i) => client({ user: member(`user${i}`) }));
  const channels = [];
  for (const { pusher } of clients) channels.push(await subscribed(pusher, name));
  const got = channels.map((channel) => {
    const list = [];
    channel.bind('client-message', (data, extra) => list.push([data, extra?.user_id]));
    return list;
  });

  assert.ok(channels[0].trigger('client-message', { text: 'hi' }));
  await until('everyone else has it', () => got.slice(1).every((list) => list.length > 0),
    { shown: () => got });
  await fence(channels);
  assert.deepEqual(got[0], [], 'no echo');
  for (const list of got.slice(1)) assert.deepEqual(list, [[{ text: 'hi' }, 'user0']]);
});

test('client events on a private channel carry no user id', async () => {
  const name = fresh('private-chat');
  const [speaker, listener] = await apart(() => client());
  const mouth = await subscribed(speaker, name);
  const ear = await subscribed(listener, name);
  const got = [];
  ear.bind('client-message', (...args) => got.push(args));
  mouth.trigger('client-message', 'plain words');
  await until('the listener has it', () => got.length > 0);
  await fence([ear]);
  assert.deepEqual(got.map(([data, extra]) => [data, extra?.user_id]), [['plain words', undefined]]);
});

test('client events are refused on public channels', async () => {
  const name = fresh('public');
  const [speaker, listener] = await apart(() => client());
  const mouth = await subscribed(speaker, name);
  const ear = await subscribed(listener, name);
  const got = heard(ear, 'client-message');
  const errors = [];
  speaker.connection.bind('error', (error) => errors.push(error));
  // pusher-js itself only warns and sends.
  mouth.trigger('client-message', 'psst');
  await until('the speaker is told', () => errors.length > 0);
  assert.equal(errors.length, 1);
  assert.equal(errors[0].data.code, null);
  assert.ok(errors[0].data.message.length > 0, 'the refusal has a text');
  await fence([ear]);
  assert.deepEqual(got, []);
  assert.equal(speaker.connection.state, 'connected');
});

test('after unsubscribing nothing arrives any more, and subscribing again works', async () => {
  const name = fresh('public');
  const [leaver, stayer] = await apart(() => client());
  const left = await subscribed(leaver, name);
  const stayed = await subscribed(stayer, name);
  const frames = [];
  leaver.connection.bind('message', (message) => frames.push(message));

  leaver.unsubscribe(name);
  // The answer to a later subscription on the same connection: the leaving has been dealt with here.
  const other = await subscribed(leaver, fresh('public'));
  await fence([other]);
  await publisher().trigger(name, 'news', 1);
  await fence([stayed]);
  await fence([other]);
  assert.deepEqual(frames.filter((frame) => frame.channel === name), []);
  assert.equal(left.subscribed, false);

  const back = await subscribed(leaver, name);
  const got = heard(back, 'news');
  await publisher().trigger(name, 'news', 2);
  await fence([back]);
  assert.deepEqual(got, [2]);
});

test('a silent client checks on the server and is answered', async () => {
  const pusher = client({ activityTimeout: 300, pongTimeout: 10_000 });
  const names = [];
  const states = [];
  pusher.connection.bind('message', (message) => names.push(message.event));
  pusher.connection.bind('state_change', ({ current }) => states.push(current));
  await connected(pusher);
  await until('three rounds of ping and pong',
    () => names.filter((name) => name === 'pusher:pong').length >= 3, { shown: () => names });
  assert.deepEqual(states.slice(states.indexOf('connected')), ['connected']);
});

test('an unknown key is refused with 4001 and the client stays away', async () => {
  const pusher = client({ key: 'no-such-key' });
  const errors = [];
  const retries = [];
  pusher.connection.bind('error', (error) => errors.push(error));
  pusher.connection.bind('connecting_in', (seconds) => retries.push(seconds));
  await until('pusher-js gives up', () => pusher.connection.state === 'disconnected',
    { shown: () => [pusher.connection.state, errors] });
  assert.equal(errors.length, 1);
  assert.equal(errors[0].error.data.code, 4001);
  assert.deepEqual(retries, []);
  assert.ok(!pusher.connection.retryTimer, 'no retry is planned');
});

test('an event skips the connection that caused it, on whichever worker', async () => {
  const name = fresh('public');
  const clients = await spread(8);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const got = channels.map((channel) => heard(channel, 'edit'));
  const sdk = publisher();
  for (const [i, { pusher }] of clients.entries()) {
    await sdk.trigger(name, 'edit', i, { socket_id: pusher.connection.socket_id });
  }
  await fence(channels);
  for (const [i, list] of got.entries()) {
    assert.deepEqual(list, clients.map((_, n) => n).filter((n) => n !== i));
  }
});

test('a thousand events of four publishers reach everyone in one and the same order', async () => {
  const name = fresh('feed');
  const clients = await spread(16);
  const workers = new Set(clients.map(({ worker }) => worker));
  assert.ok(workers.size >= 2 && workers.size <= (await pids('worker')).length);
  const channels = await Promise.all(clients.map(({ pusher }) => subscribed(pusher, name)));
  const got = channels.map((channel) => heard(channel, 'n'));

  const publishers = 4;
  const each = 250;
  await Promise.all(Array.from({ length: publishers }, async (_, who) => {
    const sdk = publisher();
    for (let n = 0; n < each; n += 1) await sdk.trigger(name, 'n', `${who}:${n}`);
  }));
  await fence(channels);

  const order = got[0];
  assert.equal(order.length, publishers * each);
  assert.equal(new Set(order).size, order.length, 'nothing arrives twice');
  for (const [i, list] of got.entries()) {
    assert.deepEqual(list, order, `client ${i} heard another order than client 0`);
  }
  for (let who = 0; who < publishers; who += 1) {
    const own = order.filter((entry) => entry.startsWith(`${who}:`));
    assert.deepEqual(own, Array.from({ length: each }, (_, n) => `${who}:${n}`),
      `events of publisher ${who}, each sent after the one before was answered, changed places`);
  }
});
