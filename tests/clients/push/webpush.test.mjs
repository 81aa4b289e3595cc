// web-push, unmodified, against `lineman mock webpush`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import webpush from 'web-push';
import { mock } from './mock.mjs';

const vapid = webpush.generateVAPIDKeys();
const vapidDetails = { subject: 'mailto:push@example.org', ...vapid };
const [subscription] = mock.subscriptions;
const send = (more = {}, to = subscription) =>
  webpush.sendNotification(to, 'hello from web-push', {
    vapidDetails, TTL: 60, contentEncoding: 'aes128gcm', ...more,
  });
const status = (promise) => promise.then((it) => it.statusCode, (error) => error.statusCode);

test('a message is accepted', async () => {
  const { statusCode, headers } = await send({ urgency: 'high', topic: 'one' });
  assert.equal(statusCode, 201);
  assert.ok(headers.location.startsWith(`${mock.url.origin}/m/`));
  assert.equal(headers.ttl, '60');
});

test('refusals are as they should be', async () => {
  const at = (number) => status(send({}, mock.subscriptions[number]));
  assert.equal(await status(send({}, { ...subscription, endpoint: `${mock.url.origin}/push/nobody` })), 404);
  assert.equal(await at(1), 410);
  assert.equal(await at(2), 429);
  assert.equal(await status(send({ vapidDetails: null })), 401);
  const other = { ...vapidDetails, publicKey: webpush.generateVAPIDKeys().publicKey };
  assert.equal(await status(send({ vapidDetails: other })), 403);
});
