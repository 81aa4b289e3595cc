// Signed-in users: pusher-js signs in, the server SDK for Node sends to users and ends their
// connections, watchlists tell who is there.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import PusherServer from 'pusher';
import {
  client, closeAll, connected, fresh, publisher, server, spread, subscribed, until,
} from './support.mjs';

afterEach(closeAll);

const { appId, key, secret } = server;

/** A pusher-js client that signs in as the user, once it is connected. */
function person(id, { watchlist, signWith = secret } = {}) {
  const signer = new PusherServer({ appId, key, secret: signWith });
  const user = { id, user_info: { name: `name of ${id}` }, watchlist };
  const signChannel = ({ socketId, channelName }, answer) =>
    answer(null, signer.authorizeChannel(socketId, channelName, undefined));
  const pusher = client({
    userAuthentication: {
      customHandler: ({ socketId }, answer) => answer(null, signer.authenticateUser(socketId, user)),
    },
    channelAuthorization: { customHandler: signChannel },
  });
  pusher.signin();
  return pusher;
}

async function signedIn(pusher) {
  await until('pusher-js has signed in', () => pusher.user.user_data !== null);
  return pusher;
}

test('an event to a user reaches all his connections and nobody else', async () => {
  const ann = fresh('ann');
  const bob = fresh('bob');
  const got = [];
  const people = await spread(8, (i) => person(i % 2 === 0 ? ann : bob));
  for (const [i, { pusher }] of people.entries()) {
    got[i] = [];
    pusher.user.bind('hint', (data) => got[i].push(data));
    await signedIn(pusher);
  }
  const sdk = publisher();
  await sdk.sendToUser(ann, 'hint', { n: 1 });
  await sdk.sendToUser(bob, 'hint', { n: 2 });
  await until('everybody has his own', () => got.every((list) => list.length > 0));
  assert.deepEqual(got, people.map((_, i) => [{ n: 1 + (i % 2) }]));
});

test('terminating ends the connections of a user, who stays away', async () => {
  const ann = fresh('ann');
  const people = await spread(4, () => person(ann));
  const other = await signedIn(person(fresh('bob')));
  for (const { pusher } of people) await signedIn(pusher);
  const response = await publisher().terminateUserConnections(ann);
  assert.equal(response.status, 200);
  for (const { pusher } of people) {
    await until('it is disconnected', () => pusher.connection.state === 'disconnected');
  }
  assert.equal(other.connection.state, 'connected');
});

test('a watchlist tells who comes and who goes', async () => {
  const [ann, bob] = [fresh('ann'), fresh('bob')];
  const told = [];
  const watcher = person(fresh('watcher'), { watchlist: [ann, bob] });
  for (const name of ['online', 'offline']) {
    watcher.user.watchlist.bind(name, ({ user_ids: ids }) => told.push([name, ids]));
  }
  await until('the first event is there', () => told.length === 1);
  assert.equal(told[0][0], 'offline');
  assert.deepEqual([...told[0][1]].sort(), [ann, bob].sort());
  const one = await signedIn(person(ann));
  await until('ann is online', () => told.length === 2);
  const two = await signedIn(person(ann));
  one.disconnect();
  const others = await signedIn(person(bob));
  await until('bob is online', () => told.length === 3);
  two.disconnect();
  await until('ann is offline', () => told.length === 4);
  assert.deepEqual(told.slice(1), [['online', [ann]], ['online', [bob]], ['offline', [ann]]]);
  assert.equal(others.connection.state, 'connected');
});

test('who has signed in needs no channel_data in a presence channel', async () => {
  const ann = fresh('ann');
  const pusher = await connected(person(ann));
  const channel = await subscribed(pusher, fresh('presence-room'));
  assert.equal(channel.members.me.id, ann);
  assert.deepEqual(channel.members.me.info, { name: `name of ${ann}` });
});

test('a wrong signature signs nobody in', async () => {
  const errors = [];
  const pusher = person(fresh('mallory'), { signWith: 'guess' });
  pusher.connection.bind('error', (error) => errors.push(error));
  await until('the client is told', () => errors.length > 0);
  assert.equal(errors[0].data.code, 4009);
  assert.equal(pusher.user.user_data, null);
  assert.equal(pusher.connection.state, 'connected');
});
