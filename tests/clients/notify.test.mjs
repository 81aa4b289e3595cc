// Notifications: the server SDK for Node asks for them, pusher-js gets them and acknowledges, with the
// add-on and without; who does not gets a push.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { afterEach, test } from 'node:test';
import PusherServer from 'pusher';
import { client, closeAll, fresh, publisher, server, until } from './support.mjs';

const lineman = createRequire(import.meta.url)('../../src/app/addon/lineman.js');
const { appId, key, secret } = server;

afterEach(closeAll);

/** A pusher-js client that has signed in, and the notifications it got. */
async function person(id, around = (pusher) => pusher) {
  const signer = new PusherServer({ appId, key, secret });
  const pusher = around(client({
    userAuthentication: {
      customHandler: ({ socketId }, answer) => answer(null, signer.authenticateUser(socketId, { id })),
    },
  }));
  const got = [];
  pusher.user.bind('lineman:notification', (data) => got.push(data));
  pusher.signin();
  await until('pusher-js has signed in', () => pusher.user.user_data !== null);
  return { pusher, got };
}

const read = async (response) => JSON.parse(await response.text());

/** A user with a device. */
async function owner() {
  const user = fresh('user');
  const device = { device_id: `of-${user}`, platform: 'android', token: `token-${user}`, user_id: user };
  const { status } = await publisher().post({ path: '/devices', body: device });
  assert.equal(status, 201);
  return user;
}

async function notify(user) {
  const body = { to: { users: [user] }, note: { title: 'Hello', data: { order: 7 } }, ack_timeout: 1 };
  const response = await publisher().post({ path: '/notify', body });
  assert.equal(response.status, 202);
  return read(response);
}

async function becomes(id, counts) {
  const shown = async () => (await read(await publisher().get({ path: `/notifications/${id}` }))).counts;
  await until(`its deliveries are ${JSON.stringify(counts)}`, async () => {
    try {
      assert.deepEqual(await shown(), counts);
      return true;
    } catch {
      return false;
    }
  }, { shown });
}

test('pusher-js alone gets a notification and acknowledges it', async () => {
  const user = await owner();
  const { pusher, got } = await person(user);
  const sent = await notify(user);
  assert.deepEqual(sent.users, [{ user_id: user, live: 1, push: 0, held: 1 }]);
  await until('it is there', () => got.length === 1);
  assert.deepEqual(got[0], { title: 'Hello', data: { order: 7 }, notification_id: sent.id });
  pusher.send_event('lineman:ack', { id: sent.id });
  await becomes(sent.id, { cancelled: 1 });
});

test('with the add-on it is one word, or none', async () => {
  const user = await owner();
  const one = await person(user, lineman);
  const first = await notify(user);
  await until('it is there', () => one.got.length === 1);
  one.got[0].acknowledge();
  await becomes(first.id, { cancelled: 1 });
  one.pusher.disconnect();

  const other = await owner();
  await person(other, (pusher) => lineman(pusher, { acknowledge: true }));
  const second = await notify(other);
  await becomes(second.id, { cancelled: 1 });
});

test('who does not acknowledge, or is away, gets a push', async () => {
  const [silent, away] = [await owner(), await owner()];
  const { got } = await person(silent, lineman);
  const first = await notify(silent);
  const second = await notify(away);
  assert.equal(second.users[0].push, 1);
  await until('it is there', () => got.length === 1);
  await becomes(first.id, { queued: 1 });
});
