// What the server sends is read by a push service that others wrote: web-push-testing checks the header
// fields and VAPID's signature, and decrypts. It speaks HTTP, so there is TLS before it.

import assert from 'node:assert/strict';
import { createECDH } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { publisher, until } from '../support.mjs';

const require = createRequire(import.meta.url);
const { PushApiModel } = require('web-push-testing/src/PushApiModel.js');
const WebPushTestingServer = require('web-push-testing/src/server.js');

const { LINEMAN_VAPID: secret, LINEMAN_TLS: tls } = process.env;
const vapid = createECDH('prime256v1');
vapid.setPrivateKey(secret, 'base64url');

const model = new PushApiModel();
let service;
let front;
let home;

before(async () => {
  service = new WebPushTestingServer(model, 0);
  service.startServer();
  await until('the service listens', () => service._server.listening);
  const { port } = service._server.address();
  home = `http://localhost:${port}`;
  const files = { key: readFileSync(`${tls}.key`), cert: readFileSync(`${tls}.pem`) };
  front = https.createServer(files, (request, response) => {
    const { method, url: path, headers } = request;
    const onward = http.request({ port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  await new Promise((listening) => { front.listen(0, 'localhost', listening); });
  model.notifyUrl = `https://localhost:${front.address().port}/notify/`;
});
after(() => {
  front.closeAllConnections();
  front.close();
  service._server.closeAllConnections();
  service._server.close();
});

const read = async (response) => JSON.parse(await response.text());

async function ask(path, body) {
  const response = await fetch(`${home}${path}`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  });
  assert.equal(response.status, 200);
  return response;
}

/** A browser that subscribes there, and is registered here. */
async function subscriber(name) {
  const options = { userVisibleOnly: 'true', applicationServerKey: vapid.getPublicKey('base64url') };
  const { data } = await (await ask('/subscribe', options)).json();
  const { endpoint, keys, clientHash } = data;
  const device = { device_id: name, platform: 'web', token: { endpoint, keys }, user_id: name };
  const { status } = await publisher().post({ path: '/devices', body: device });
  assert.equal(status, 201);
  return clientHash;
}

/** What becomes of a push to somebody. */
async function pushed(user, note) {
  const body = { to: { users: [user] }, note, deliver: 'push' };
  const { id } = await read(await publisher().post({ path: '/notify', body }));
  let shown;
  await until('it is done', async () => {
    shown = await read(await publisher().get({ path: `/notifications/${id}` }));
    return shown.state === 'done';
  }, { shown: () => shown });
  return shown.deliveries[0];
}

test('a message is accepted and read, whatever its letters', async () => {
  const client = await subscriber('reader');
  const note = { title: 'grüße 👋', body: 'x'.repeat(500), data: { order: 7 } };
  const delivery = await pushed('reader', note);
  assert.equal(delivery.state, 'accepted', JSON.stringify(delivery));
  const { data } = await (await ask('/get-notifications', { clientHash: client })).json();
  assert.equal(data.messages.length, 1);
  assert.deepEqual(JSON.parse(data.messages[0]), { notification: note });
});

test('a subscription that has ended is given up, and its device with it', async () => {
  const client = await subscriber('gone');
  await ask(`/expire-subscription/${client}`, {});
  const delivery = await pushed('gone', { title: 'Hello' });
  assert.equal(delivery.state, 'failed', JSON.stringify(delivery));
  const device = await read(await publisher().get({ path: '/devices/gone' }));
  assert.equal(device.is_active, false);
});
