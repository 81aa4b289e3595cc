// firebase-admin, unmodified, against `lineman mock fcm`. Its hosts cannot be chosen, so the sockets
// that it opens to Google's are led to the mock, whose certificate is for those names too. Over HTTP/2
// it writes `:scheme: https:`, with a colon that RFC 9113 section 8.3.1 does not know: Google takes no
// notice, the h2 crate resets the stream. So it is told to use HTTP/1.1 for many messages as well.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import tls from 'node:tls';
import { after, test } from 'node:test';
import { mock } from './mock.mjs';

const here = { host: mock.url.hostname, port: Number(mock.url.port) };
const { connect } = tls;
tls.connect = (...given) => {
  // A URL's port and host, then options; or options alone.
  const [port, host] = typeof given[0] === 'object' ? [] : given;
  const options = { port, host, ...given.find((one) => typeof one === 'object') };
  const led = options.host?.endsWith('.googleapis.com')
    ? { ...options, ...here, servername: options.host } : options;
  return connect(led, given.find((one) => typeof one === 'function'));
};

const { cert, deleteApp, initializeApp } = await import('firebase-admin/app');
const { getMessaging } = await import('firebase-admin/messaging');

const account = JSON.parse(readFileSync(mock.account));
const app = initializeApp({ credential: cert(account) });
after(() => deleteApp(app));
const messaging = getMessaging(app);
messaging.enableLegacyHttpTransport();

const code = (promise) => promise.then(() => 'sent', (error) => error.code);

test('a message is accepted, for real and on trial', async () => {
  const id = await messaging.send({ token: 'aaa', notification: { title: 'hello' } });
  assert.match(id, new RegExp(`^projects/${account.project_id}/messages/`));
  const tried = await messaging.send({ token: 'aaa', data: { a: '1' } }, true);
  assert.match(tried, /fake_message_id$/);
});

test('refusals come with their codes', async () => {
  assert.equal(await code(messaging.send({ token: 'dead-1' })), 'messaging/registration-token-not-registered');
  assert.equal(await code(messaging.send({ token: 'strange' })), 'messaging/mismatched-credential');
  assert.equal(await code(messaging.send({ token: 'apns' })), 'messaging/third-party-auth-error');
  assert.equal(await code(messaging.send({ token: 'busy' })), 'messaging/message-rate-exceeded');
  assert.equal(await code(messaging.send({ token: 'broken' })), 'messaging/internal-error');
  assert.equal(await code(messaging.send({ token: 'not a token' })), 'messaging/invalid-argument');
});

test('many messages get an answer each', async () => {
  const tokens = Array.from({ length: 100 }, (_, at) => (at % 10 ? `t${at}` : `dead-${at}`));
  const { successCount, responses } = await messaging.sendEach(tokens.map((token) => ({ token })));
  assert.equal(successCount, 90);
  assert.equal(responses[10].error.code, 'messaging/registration-token-not-registered');
});

test('what is not there for a while is tried again', async () => {
  assert.match(await messaging.send({ token: 'shaky' }), /messages/);
});

test('devices subscribe to topics', async () => {
  const ways = ['subscribeToTopic', 'unsubscribeFromTopic', 'subscribeToTopicLegacy'];
  for (const way of ways) {
    const done = await messaging[way](['aaa', 'not a token'], 'news');
    assert.deepEqual([done.successCount, done.failureCount], [1, 1], way);
  }
  assert.match(await messaging.send({ topic: 'news', data: {} }), /messages/);
});
