// @parse/node-apn, unmodified, against `lineman mock apns`: it takes another host and authority.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import apn from '@parse/node-apn';
import { mock } from './mock.mjs';

const { hostname, port } = mock.url;
const options = (more = {}) => ({
  token: { key: mock.key, keyId: mock.key_id, teamId: mock.team_id },
  address: hostname, port: Number(port), ca: mock.ca,
  manageChannelsAddress: hostname, manageChannelsPort: Number(port),
  production: false, requestTimeout: 4000, ...more,
});
const provider = new apn.Provider(options());
after(() => provider.shutdown());

const note = (more = {}) => {
  const note = new apn.Notification({ aps: { alert: 'hello' } });
  Object.assign(note, { topic: 'org.example.app', pushType: 'alert', ...more });
  return note;
};
const token = (start) => start.padEnd(64, '0');

test('a notification is accepted', async () => {
  const { sent, failed } = await provider.send(note(), token('aa'));
  assert.deepEqual(failed, []);
  assert.equal(sent[0].device, token('aa'));
});

test('refusals come with their reasons', async () => {
  const { failed } = await provider.send(note(), [token('dead'), token('bad')]);
  const seen = Object.fromEntries(failed.map((one) => [one.device.slice(0, 3), one]));
  assert.deepEqual([seen.dea.status, seen.dea.response.reason], [410, 'Unregistered']);
  assert.ok(Math.abs(seen.dea.response.timestamp - Date.now()) < 60_000);
  assert.deepEqual([seen.bad.status, seen.bad.response.reason], [400, 'BadDeviceToken']);
});

test('what is wrong with a request is found', async () => {
  const reasons = async (more) =>
    (await provider.send(note(more), token('aa'))).failed.map((one) => one.response?.reason);
  assert.deepEqual(await reasons({ topic: undefined }), ['MissingTopic']);
  assert.deepEqual(await reasons({ pushType: 'background', priority: 10 }), ['BadPriority']);
  assert.deepEqual(await reasons({ alert: 'x'.repeat(5000) }), ['PayloadTooLarge']);
});

test('a thousand at a time', async () => {
  const tokens = Array.from({ length: 1000 }, (_, at) => token(at.toString(16).padStart(4, '1')));
  const { sent, failed } = await provider.send(note(), tokens);
  assert.deepEqual([sent.length, failed], [1000, []]);
});

test('after a GOAWAY it goes on over another connection', async () => {
  await provider.send(note(), token('90a3a1'));
  // What it asks until it has taken notice of the GOAWAY, it loses.
  for (let tries = 0; tries < 50; tries += 1) {
    const { sent } = await provider.send(note(), token('ab'));
    if (sent.length === 1) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  assert.fail('there is no other connection');
});

test('channels are made and sent to', async () => {
  const storing = note();
  storing.rawPayload = { 'message-storage-policy': 1, 'push-type': 'LiveActivity' };
  const made = await provider.manageChannels(storing, 'org.example.app', 'create');
  assert.deepEqual(made.failed, []);
  const channelId = made.sent[0]['apns-channel-id'];
  assert.ok(channelId);
  const update = note({ channelId, pushType: 'liveactivity', expiry: 0 });
  const { sent, failed } = await provider.broadcast(update, 'org.example.app');
  assert.deepEqual([sent.length, failed], [1, []]);
});

test('another team needs another connection', async () => {
  const wrong = new apn.Provider(options({
    token: { key: mock.key, keyId: 'OTHERKEY01', teamId: 'OTHERTEAM1' },
  }));
  const { failed } = await wrong.send(note(), token('aa'));
  wrong.shutdown();
  assert.deepEqual(failed.map((one) => one.response?.reason), ['InvalidProviderToken']);
});
