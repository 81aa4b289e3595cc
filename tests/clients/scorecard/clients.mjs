// The rows of the client table: what a client library must get from the server. A row gets `open`,
// which makes connected clients of one library and closes them again.

import assert from 'node:assert/strict';
import net from 'node:net';
import { fresh, member, publisher, server, until } from '../support.mjs';
import { masterKey } from './backend.mjs';

/** Events of the program, without those of the library. */
const events = async (client, name) => (await client.heard(name))
  .filter(([event]) => !event.startsWith('pusher'));

/** Waits until the client has heard an event in the channel, and returns it with its data. */
const hears = (client, name, event) => until(`${event} is heard in ${name}`,
  async () => (await client.heard(name)).find(([heard]) => heard === event),
  { shown: () => client.heard(name) });

async function joins(client, name) {
  const joined = await client.join(name);
  assert.equal(joined.ok, true, `joining ${name} was refused: ${JSON.stringify(joined)}`);
  return joined;
}

/** Stands between a client and the server, and can cut. */
async function relay() {
  const sockets = new Set();
  const through = net.createServer((near) => {
    const far = net.connect(server.port, server.host);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => { sockets.delete(from); to.destroy(); });
      from.pipe(to);
    }
  });
  await new Promise((listening) => { through.listen(0, '127.0.0.1', listening); });
  return {
    port: through.address().port,
    cut: () => sockets.forEach((socket) => socket.destroy()),
    close: () => { through.close(); sockets.forEach((socket) => socket.destroy()); },
  };
}

/** Opens two clients that have joined the same channel. */
async function two(open, name) {
  const clients = [await open(), await open()];
  for (const client of clients) await joins(client, name);
  return clients;
}

export const rows = [];
const row = (id, title, run) => rows.push({ id, title, run });

row('connect', 'Connects and gets a socket id', async (open) => {
  const client = await open();
  assert.match((await client.state()).socketId, /^\d+\.\d+$/);
});

row('heartbeat', 'Its heartbeats are answered', async (open, { heartbeats = 3 }) => {
  const client = await open({ activityTimeout: 1000 });
  const { socketId } = await client.state();
  await until('they are answered', async () => (await client.state()).pongs >= heartbeats);
  assert.equal((await client.state()).socketId, socketId, 'it is still the same connection');
});

row('public', 'Public channels', async (open) => {
  const name = fresh('news');
  const client = await open();
  await joins(client, name);
  await publisher().trigger(name, 'news', { title: 'ünïcode ✓ \u{1F40E}' });
  const [, data] = await hears(client, name, 'news');
  assert.deepEqual(data, { title: 'ünïcode ✓ \u{1F40E}' });
});

row('large', 'Events of 10 KB arrive whole', async (open) => {
  const name = fresh('news');
  const client = await open();
  await joins(client, name);
  const text = '"ü'.repeat(2559);
  await publisher().trigger(name, 'news', text);
  const [, data] = await hears(client, name, 'news');
  assert.equal(data, text);
});

row('unsubscribe', 'Unsubscribing ends the events', async (open) => {
  const [left, kept] = [fresh('left'), fresh('kept')];
  const client = await open();
  await joins(client, left);
  await joins(client, kept);
  const sdk = publisher();
  await sdk.trigger(left, 'news', { n: 1 });
  await hears(client, left, 'news');
  await client.leave(left);
  // The server has heard of it when it says that nobody is there.
  await until('the channel is empty', async () => {
    const answer = await sdk.get({ path: `/channels/${left}` });
    return (await answer.json()).occupied === false;
  });
  await sdk.trigger(left, 'news', { n: 2 });
  await sdk.trigger(kept, 'news', { n: 3 });
  await hears(client, kept, 'news');
  assert.deepEqual((await events(client, left)).map(([, data]) => data), [{ n: 1 }]);
});

row('private', 'Private channels', async (open) => {
  const name = fresh('private-orders');
  const client = await open();
  await joins(client, name);
  await publisher().trigger(name, 'news', { n: 1 });
  assert.deepEqual((await hears(client, name, 'news'))[1], { n: 1 });
});

row('refused', 'A refused subscription is told', async (open) => {
  const client = await open({ secret: 'not the secret' });
  const answer = await client.join(fresh('private-orders'));
  assert.equal(answer.ok, false);
  assert.equal(answer.status, 401);
  assert.equal((await client.state()).connected, true);
});

row('presence', 'Presence channels: who is there, who comes, who goes', async (open) => {
  const name = fresh('presence-room');
  const [first, second] = [{ id: 'anna', name: 'Anna' }, { id: 'ben', name: 'Ben' }];
  const anna = await open({ user: member('anna', first) });
  await joins(anna, name);
  const ben = await open({ user: member('ben', second) });
  const { members, me } = await joins(ben, name);
  assert.deepEqual([members, me], [{ anna: first, ben: second }, 'ben']);
  const [, added] = await hears(anna, name, 'pusher:member_added');
  assert.deepEqual([added.id, added.info], ['ben', second]);
  await ben.leave(name);
  const [, removed] = await hears(anna, name, 'pusher:member_removed');
  assert.equal(removed.id, 'ben');
});

row('client_events', 'Client events reach the others', async (open) => {
  const name = fresh('private-chat');
  const [anna, ben] = await two(open, name);
  await anna.say(name, 'client-news', { from: 'anna' });
  assert.deepEqual((await hears(ben, name, 'client-news'))[1], { from: 'anna' });
  await ben.say(name, 'client-news', { from: 'ben' });
  await hears(anna, name, 'client-news');
  assert.deepEqual((await events(anna, name)).map(([, data]) => data), [{ from: 'ben' }]);
});

row('excluded', 'Events published with its socket id do not come back', async (open) => {
  const name = fresh('news');
  const [sender, other] = await two(open, name);
  const { socketId } = await sender.state();
  const sdk = publisher();
  await sdk.trigger(name, 'first', {}, { socket_id: socketId });
  await sdk.trigger(name, 'last', {});
  await hears(sender, name, 'last');
  await hears(other, name, 'last');
  assert.deepEqual((await events(sender, name)).map(([event]) => event), ['last']);
  assert.deepEqual((await events(other, name)).map(([event]) => event), ['first', 'last']);
});

row('encrypted', 'Encrypted channels are decrypted', async (open) => {
  const name = fresh('private-encrypted-notes');
  const client = await open();
  await joins(client, name);
  await publisher({ encryptionMasterKeyBase64: masterKey }).trigger(name, 'news', { secret: 'ü' });
  assert.deepEqual((await hears(client, name, 'news'))[1], { secret: 'ü' });
});

row('cache', 'Cache channels: the last event comes first', async (open) => {
  const name = fresh('cache-score');
  await publisher().trigger(name, 'news', { goals: 3 });
  const client = await open();
  await joins(client, name);
  assert.deepEqual((await hears(client, name, 'news'))[1], { goals: 3 });
});

row('cache_miss', 'Cache channels: that there is none is told', async (open) => {
  const name = fresh('cache-score');
  const client = await open();
  await joins(client, name);
  await hears(client, name, 'pusher:cache_miss');
});

row('counts', 'How many subscribers a channel has', async (open) => {
  const name = fresh('crowd');
  const one = await open({ key: 'counting-key' });
  await joins(one, name);
  const [, data] = await hears(one, name, 'pusher:subscription_count');
  assert.deepEqual(data, { subscription_count: 1 });
});

row('sign_in', 'Signs in', async (open) => {
  const client = await open({ signIn: { id: fresh('anna') } });
  await until('it has signed in', async () => (await client.state()).signedIn);
});

row('user_event', 'Events to a user', async (open) => {
  const id = fresh('anna');
  const client = await open({ signIn: { id } });
  await until('it has signed in', async () => (await client.state()).signedIn);
  await publisher().sendToUser(id, 'hint', { n: 1 });
  const [, data] = await until('the hint arrives',
    async () => (await client.state()).user.find(([event]) => event === 'hint'));
  assert.deepEqual(data, { n: 1 });
});

row('watchlist', 'Watchlists: who comes and goes', async (open) => {
  const id = fresh('ben');
  const watcher = await open({ signIn: { id: fresh('anna'), watchlist: [id] } });
  const told = async () => (await watcher.state()).watch;
  await until('it is told that he is away', async () => (await told()).length === 1);
  const ben = await open({ signIn: { id } });
  await until('it is told that he comes', async () => (await told()).length === 2);
  await ben.close();
  await until('it is told that he goes', async () => (await told()).length === 3);
  assert.deepEqual(await told(), [['offline', [id]], ['online', [id]], ['offline', [id]]]);
});

row('terminate', 'Terminated users stay away', async (open) => {
  const id = fresh('anna');
  const client = await open({ signIn: { id } });
  await until('it has signed in', async () => (await client.state()).signedIn);
  await publisher().terminateUserConnections(id);
  await until('it is gone and stays away', async () => (await client.state()).stopped);
});

row('unknown_app', 'An unknown key is told, and not tried again', async (open) => {
  const client = await open({ key: 'no-such-key', unconnected: true });
  await until('it gives up', async () => (await client.state()).stopped);
});

row('return', 'After a cut it comes back and hears on', async (open) => {
  const name = fresh('news');
  const between = await relay();
  try {
    const client = await open({ port: between.port });
    await joins(client, name);
    const { socketId } = await client.state();
    between.cut();
    await until('it is connected again', async () => {
      const state = await client.state();
      return state.connected && state.socketId !== socketId;
    });
    const sdk = publisher();
    await until('it hears again', async () => {
      await sdk.trigger(name, 'news', {});
      return (await client.heard(name)).some(([event]) => event === 'news');
    });
  } finally {
    between.close();
  }
});


for (const [id, transport] of [['streaming', 'xhr_streaming'], ['polling', 'xhr_polling']]) {
  row(id, `Without WebSocket, by ${transport}`, async (open) => {
    const name = fresh('private-chat');
    const clients = [await open({ transport }), await open({ transport })];
    for (const client of clients) {
      assert.equal((await client.state()).transport, transport);
      await joins(client, name);
    }
    await clients[0].say(name, 'client-news', { from: 'anna' });
    assert.deepEqual((await hears(clients[1], name, 'client-news'))[1], { from: 'anna' });
    await publisher().trigger(name, 'news', { n: 1 });
    for (const client of clients) assert.deepEqual((await hears(client, name, 'news'))[1], { n: 1 });
  });
}

row('recovery', 'With the add-on: what it missed comes when it is back', async (open) => {
  const name = fresh('kept-news');
  const between = await relay();
  try {
    const client = await open({ port: between.port, recover: true });
    await joins(client, name);
    const sdk = publisher();
    await sdk.trigger(name, 'news', 0);
    await hears(client, name, 'news');
    between.cut();
    for (const n of [1, 2, 3]) await sdk.trigger(name, 'news', n);
    const heard = async () => (await client.heard(name))
      .filter(([event]) => event === 'news').map(([, data]) => data);
    await until('the last one is there', async () => (await heard()).includes(3), { shown: heard });
    await sdk.trigger(name, 'news', 4);
    await until('it hears on', async () => (await heard()).includes(4), { shown: heard });
    assert.deepEqual(await heard(), [0, 1, 2, 3, 4]);
  } finally {
    between.close();
  }
});
