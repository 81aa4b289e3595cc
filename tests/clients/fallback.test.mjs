// pusher-js where no WebSocket gets through: in Node and in a browser on a page of another origin,
// over one answer without an end and over polling; and EventSource, which is no pusher-js at all.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, afterEach, before, test } from 'node:test';
import { launch, open, site } from './browsers.mjs';
import {
  client, closeAll, connected, fence, fresh, heard, member, pids, publisher, server, subscribed, until,
} from './support.mjs';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());
afterEach(closeAll);

/** Options for pusher-js that leave it no WebSocket. */
const over = (transport) => ({
  httpHost: server.host, httpPort: server.port, enabledTransports: [transport],
});

const TRANSPORTS = ['xhr_streaming', 'xhr_polling'];

for (const transport of TRANSPORTS) {
  test(`${transport}: presence, private channels and client events, in Node`, async () => {
    const room = fresh('presence-room');
    const people = Array.from({ length: 6 }, (_, i) =>
      client({ ...over(transport), user: member(`user${i}`) }));
    await Promise.all(people.map(connected));
    for (const pusher of people) {
      assert.equal(pusher.connection.connection.transport.name, transport);
      await subscribed(pusher, room);
    }
    const channels = people.map((pusher) => pusher.channel(room));
    await until('everybody sees everybody', () =>
      channels.every((channel) => channel.members.count === people.length),
    { shown: () => channels.map((channel) => channel.members.count) });

    const said = channels.map((channel) => heard(channel, 'client-said'));
    channels[0].trigger('client-said', { text: 'grüße 👋\n"quoted"' });
    await until('all others hear it', () => said.slice(1).every((got) => got.length === 1));
    assert.deepEqual(said[1], [{ text: 'grüße 👋\n"quoted"' }]);
    assert.deepEqual(said[0], [], 'and not who said it');

    people[5].disconnect();
    // Between two polls nobody is there who could break off: then it takes http_session_seconds.
    await until('one who leaves is seen to leave', () =>
      channels.slice(0, 5).every((channel) => channel.members.count === 5), { ms: 40_000 });

    const mine = await subscribed(people[0], fresh('private-mine'));
    const got = heard(mine, 'large');
    const sdk = publisher();
    const large = (n) => `${n}-${'ä'.repeat(4000)}`;
    const sent = Array.from({ length: 90 }, (_, n) => large(n));
    for (const data of sent) await sdk.trigger(mine.name, 'large', data);
    await fence([mine]);
    assert.deepEqual(got, sent, 'each once and in order, over several streams');
    assert.equal(people[0].connection.state, 'connected');
  });

  test(`${transport}: a client whose worker is killed comes back as another`, async () => {
    const name = fresh('news');
    const clients = Array.from({ length: 8 }, () => client(over(transport)));
    await Promise.all(clients.map(connected));
    const channels = await Promise.all(clients.map((pusher) => subscribed(pusher, name)));
    const before = clients.map((pusher) => pusher.connection.socket_id);
    // One after the other, since all sessions may have begun with the same.
    for (const victim of await pids('worker')) {
      process.kill(victim, 'SIGKILL');
      await until('the worker is replaced', async () => {
        const workers = await pids('worker');
        return workers.length === 2 && !workers.includes(victim);
      });
    }
    // A session has one worker; a stream may end with another.
    await until('some have come back as others', () =>
      clients.some((pusher, i) => pusher.connection.socket_id !== before[i]));
    // How soon pusher-js tries again is its own affair.
    const news = channels.map((channel) => heard(channel, 'news'));
    const sdk = publisher();
    await until('all hear of the channel again', async () => {
      await sdk.trigger(name, 'news', 1);
      return news.every((got) => got.length > 0);
    });
  });
}

test('a browser whose WebSockets are blocked falls back by itself, across origins', async () => {
  const room = fresh('presence-far');
  const near = client({ user: member('near') });
  const channel = await subscribed(near, room);
  const said = heard(channel, 'client-said');
  const page = await open(browser, await site(member('far')), {
    // As behind a proxy that lets none through: they neither open nor fail.
    before: (context) => context.addInitScript(() => {
      globalThis.WebSocket = class { close() {} };
    }),
  });
  await page.evaluate(([key, host, port, name]) => {
    globalThis.heard = [];
    const pusher = new globalThis.Pusher(key, {
      cluster: '', wsHost: host, wsPort: port, httpHost: host, httpPort: port, forceTLS: false,
      enabledTransports: ['ws', 'xhr_streaming', 'xhr_polling'],
      channelAuthorization: { endpoint: '/pusher/auth' },
    });
    const own = pusher.subscribe(name);
    own.bind('news', (data) => globalThis.heard.push(data));
    own.bind('pusher:subscription_succeeded', () => {
      globalThis.people = own.members.count;
      own.trigger('client-said', { text: 'from the page' });
    });
    globalThis.pusher = pusher;
  }, [server.key, server.host, server.port, room]);
  await page.waitForFunction(() => globalThis.people === 2);
  const transport = await page.evaluate(() =>
    globalThis.pusher.connection.connection.transport.name);
  assert.equal(transport, 'xhr_streaming', 'chosen by pusher-js');
  await until('what the page said is heard', () => said.length === 1);

  const sdk = publisher();
  const sent = Array.from({ length: 80 }, (_, n) => `${n}-${'x'.repeat(9000)}`);
  for (const data of sent) await sdk.trigger(room, 'news', data);
  await page.waitForFunction(() => globalThis.heard.length >= 80);
  assert.deepEqual(await page.evaluate(() => globalThis.heard), sent);
  await page.evaluate(() => globalThis.pusher.disconnect());
  await until('the page has left', () => channel.members.count === 1);
});

test('a browser polls, across origins', async () => {
  const room = fresh('presence-poll');
  const page = await open(browser, await site(member('far')));
  await page.evaluate(([key, host, port, name]) => {
    globalThis.heard = [];
    const pusher = new globalThis.Pusher(key, {
      cluster: '', httpHost: host, httpPort: port, forceTLS: false,
      enabledTransports: ['xhr_polling'], channelAuthorization: { endpoint: '/pusher/auth' },
    });
    const channel = pusher.subscribe(name);
    channel.bind('news', (data) => globalThis.heard.push(data));
    channel.bind('pusher:subscription_succeeded', () => { globalThis.ready = true; });
  }, [server.key, server.host, server.port, room]);
  await page.waitForFunction(() => globalThis.ready);
  const sdk = publisher();
  for (let n = 0; n < 20; n += 1) await sdk.trigger(room, 'news', n);
  await page.waitForFunction(() => globalThis.heard.length >= 20);
  assert.deepEqual(await page.evaluate(() => globalThis.heard),
    Array.from({ length: 20 }, (_, n) => n));
});

/** The URL of a stream of events, signed as a backend signs it. */
function signedUrl(channels, data, seconds = 60) {
  const query = Object.entries({
    auth_key: server.key, channel_data: data, channels,
    expires: String(Math.floor(Date.now() / 1000) + seconds),
  }).filter(([, value]) => value !== undefined);
  const plain = query.map(([key, value]) => `${key}=${value}`).join('&');
  const signature = createHmac('sha256', server.secret)
    .update(`GET\n/app/${server.key}/sse\n${plain}`).digest('hex');
  const encoded = new URLSearchParams([...query, ['auth_signature', signature]]);
  return `http://${server.host}:${server.port}/app/${server.key}/sse?${encoded}`;
}

test('EventSource in a browser reads public channels, and with a signed URL all others', async () => {
  const [open_, room] = [fresh('public'), fresh('presence-read')];
  const near = client({ user: member('near') });
  const channel = await subscribed(near, room);
  const page = await open(browser, await site(member('far')));
  const data = JSON.stringify({ user_id: 'reader', user_info: { name: 'Grüße' } });
  await page.evaluate(([plain, signed]) => {
    globalThis.heard = [];
    globalThis.ready = 0;
    for (const url of [plain, signed]) {
      const source = new EventSource(url);
      source.addEventListener('pusher_internal:subscription_succeeded', () => { globalThis.ready += 1; });
      source.addEventListener('price', (event) => globalThis.heard.push(JSON.parse(event.data)));
    }
  }, [`http://${server.host}:${server.port}/app/${server.key}/sse?channels=${open_}`,
    signedUrl(room, data)]);
  await page.waitForFunction(() => globalThis.ready === 2);
  await until('the reader is a member', () => channel.members.get('reader'));
  const sdk = publisher();
  for (const name of [open_, room]) await sdk.trigger(name, 'price', { euro: 1 });
  await page.waitForFunction(() => globalThis.heard.length === 2);
  const got = await page.evaluate(() => globalThis.heard);
  got.sort((a, b) => a.channel.localeCompare(b.channel));
  assert.deepEqual(got, [room, open_].map((name) =>
    ({ event: 'price', channel: name, data: JSON.stringify({ euro: 1 }) })));
  await page.context().close();
  await until('the reader has left', () => channel.members.count === 1);
});
