// One call reaches a person whose only client is a page in a real browser: live while the page is there
// and says so, by push to his telephone when it is silent or closed. The provider is `lineman mock`, and
// whoever started this program looks at what it got.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { launch, open, site } from './browsers.mjs';
import { closeAll, member, publisher, server, until } from './support.mjs';

let browser;

before(async () => { browser = await launch(); });
after(() => browser?.close());
afterEach(closeAll);

const read = async (response) => JSON.parse(await response.text());

/** Somebody with a telephone. */
async function owner(user, token) {
  const body = { device_id: `of-${user}`, platform: 'ios', token, user_id: user };
  const { status } = await publisher().post({ path: '/devices', body });
  assert.equal(status, 201);
}

/** A page in which pusher-js, as it is, has signed in; it acknowledges if it is told to. */
async function page(user, acknowledges) {
  const page = await open(browser, await site(member(user)));
  await page.evaluate(([key, wsHost, wsPort, user, acknowledges]) => {
    globalThis.got = [];
    const pusher = new globalThis.Pusher(key, {
      cluster: '', wsHost, wsPort, forceTLS: false, enabledTransports: ['ws'],
      userAuthentication: { endpoint: '/pusher/user-auth' },
    });
    pusher.user.bind('lineman:notification', (data) => {
      globalThis.got.push(data);
      if (acknowledges) pusher.send_event('lineman:ack', { id: data.notification_id });
    });
    pusher.subscribe(`page-of-${user}`);
    pusher.signin();
    globalThis.pusher = pusher;
  }, [server.key, server.host, server.port, user, acknowledges]);
  await page.waitForFunction(() => globalThis.pusher.user.user_data
    && globalThis.pusher.allChannels()[0].subscribed);
  return page;
}

/** Until the call's only user is reached this way; what the notification is then. */
async function reached(user, how) {
  const body = { to: { users: [user] }, note: { title: 'Hello' }, ack_timeout: 2 };
  const response = await publisher().post({ path: '/notify', body });
  assert.equal(response.status, 202);
  const sent = await read(response);
  let shown;
  await until(`${user} is reached: ${JSON.stringify(how)}`, async () => {
    shown = await read(await publisher().get({ path: `/notifications/${sent.id}` }));
    return JSON.stringify(shown.counts) === JSON.stringify(how);
  }, { shown: () => shown });
  return { sent: sent.users[0], shown, events: shown.timeline.map(({ event }) => event) };
}

const live = (page) => page.evaluate(() => globalThis.got.length);

test('a page that acknowledges is enough', async () => {
  await owner('present', 'aa'.repeat(32));
  const present = await page('present', true);
  const { sent, events } = await reached('present', { cancelled: 1 });
  assert.deepEqual(sent, { user_id: 'present', live: 1, push: 0, held: 1 });
  assert.equal(await live(present), 1);
  assert.ok(events.includes('acknowledged'), events);
});

test('a page that is there and silent is followed by a push', async () => {
  await owner('silent', 'bb'.repeat(32));
  const silent = await page('silent', false);
  const { sent, shown, events } = await reached('silent', { accepted: 1 });
  assert.deepEqual(sent, { user_id: 'silent', live: 1, push: 0, held: 1 });
  assert.equal(await live(silent), 1);
  assert.deepEqual(events.filter((event) => event !== 'done'),
    ['accepted', 'live', 'push', 'delivery accepted']);
  const at = (name) => shown.timeline.find(({ event }) => event === name).at_ms;
  assert.ok(at('push') - at('live') >= 2_000, 'not before the timeout');
});

test('when the tab is closed, the telephone rings at once', async () => {
  await owner('gone', 'cc'.repeat(32));
  const closing = await page('gone', true);
  await reached('gone', { cancelled: 1 });
  await closing.close();
  await until('nobody is there', async () => {
    const response = await publisher().get({ path: '/channels/page-of-gone' });
    return !(await read(response)).occupied;
  });
  const { sent } = await reached('gone', { accepted: 1 });
  assert.deepEqual(sent, { user_id: 'gone', live: 0, push: 1, held: 0 });
});
