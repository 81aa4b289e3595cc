// The add-on for pusher-js: what clients missed comes when they are back, once and in order, in Node,
// in Laravel Echo and in a browser; and when it cannot, they are told.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';
import Echo from 'laravel-echo';
import { chromium } from 'playwright-core';
import PusherClient from 'pusher-js';
import {
  PATIENCE_MS, client, clientOptions, closeAll, connected, fresh, heard, onClose, pause, pids, publisher,
  record, server, spread, subscribed, until,
} from './support.mjs';

const require = createRequire(import.meta.url);
const lineman = require('../../src/app/addon/lineman.js');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const home = `http://${server.host}:${server.port}`;
let browser;

before(async () => {
  assert.ok(existsSync(executablePath), `no browser at ${executablePath}: run tests/setup, or set CHROMIUM`);
  browser = await chromium.launch({
    executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
});
after(() => browser?.close());
afterEach(closeAll);

/** Posts numbered events, one after the other, from each of some publishers; a refused one again. */
class Traffic {
  constructor(channel, publishers = 2) {
    this.accepted = 0;
    this.running = true;
    this.loops = Array.from({ length: publishers }, (_, who) => this.publish(channel, who));
    onClose(() => this.stop());
  }

  async publish(channel, who) {
    const sdk = publisher();
    for (let n = 0; this.running; n += 1) {
      await sdk.trigger(channel, 'n', `${who}:${n}`).then(() => { this.accepted += 1; }, () => {});
      await pause(10);
    }
  }

  flowing(more = 20) {
    const goal = this.accepted + more;
    return until('events are accepted', () => this.accepted >= goal);
  }

  async stop() {
    this.running = false;
    await Promise.all(this.loops);
  }
}

/** What the server keeps of the channel, oldest first. */
async function history(channel) {
  const response = await publisher().get({ path: `/channels/${channel}/history`, params: { limit: 1000 } });
  return (await response.json()).events.map(({ data }) => data);
}

/** A client of the channel with the add-on, and all that it heard. */
async function reader(pusher, name) {
  lineman(pusher);
  const channel = await subscribed(await connected(pusher), name);
  return {
    pusher, channel, got: heard(channel, 'n'),
    recovered: heard(channel, 'lineman:recovered'), gaps: heard(channel, 'lineman:gap'),
  };
}

async function killed(role, pid) {
  process.kill(pid, 'SIGKILL');
  await until(`the ${role} is replaced`, async () => {
    const now = await pids(role);
    return now.length > 0 && !now.includes(pid);
  });
}

test('a killed worker costs its clients nothing', async (t) => {
  const name = fresh('kept-feed');
  const spreaded = await spread(8);
  const readers = [];
  for (const { pusher, worker } of spreaded) readers.push({ ...await reader(pusher, name), worker });
  const traffic = new Traffic(name);
  await traffic.flowing();
  await killed('worker', readers[0].worker);
  const own = readers.filter(({ worker }) => worker === readers[0].worker);
  await until('its clients are back', () => own.every(({ recovered, gaps }) => recovered.length + gaps.length > 0));
  await traffic.flowing();
  await traffic.stop();
  const all = await history(name);
  t.diagnostic(`${all.length} events; missed meanwhile: ${own.map(({ recovered }) => recovered[0]?.missed)}`);
  assert.ok(all.length >= traffic.accepted);
  for (const one of readers) {
    await until('everything is here', () => one.got.length >= all.length, { shown: () => one.got.length });
    assert.deepEqual(one.got, all);
    assert.deepEqual(one.gaps, []);
    assert.equal(one.recovered.length, own.includes(one) ? 1 : 0);
  }
  assert.ok(own.every(({ recovered }) => recovered[0].missed > 0), 'something was missed');
});

test('with a killed switchboard the past is gone, and whoever may have missed something is told', async () => {
  const name = fresh('kept-feed');
  const [away, here] = [await reader(client(), name), await reader(client(), name)];
  await publisher().trigger(name, 'n', 'a');
  await until('both have it', () => away.got.length === 1 && here.got.length === 1);
  away.pusher.disconnect();
  const [switchboard] = await pids('switchboard');
  await killed('switchboard', switchboard);
  await until('events are accepted', () => publisher().trigger(name, 'n', 'b').then(() => true, () => false));
  away.pusher.connect();
  await until('it is told', () => away.gaps.length === 1);
  await publisher().trigger(name, 'n', 'c');
  await until('both hear what follows', () => [away, here].every(({ got }) => got.at(-1) === 'c'));
  assert.deepEqual(away.got, ['a', 'c']);
  assert.deepEqual(away.recovered, []);
  assert.deepEqual(here.got, ['a', 'b', 'c']);
  assert.equal(here.gaps.length, 1, 'another epoch');
});

test('a client does not recover its own events, nor what it has left', async () => {
  const name = fresh('private-kept-talk');
  const [anna, ben] = [await reader(client(), name), await reader(client(), name)];
  const [ofAnna, ofBen] = [heard(anna.channel, 'client-x'), heard(ben.channel, 'client-x')];
  for (const round of [1, 2]) {
    anna.channel.trigger('client-x', `anna ${round}`);
    await until('Ben hears Anna', () => ofBen.at(-1) === `anna ${round}`);
    anna.pusher.disconnect();
    ben.channel.trigger('client-x', `ben ${round}`);
    await until('it is kept', async () => (await history(name)).length === 2 * round);
    anna.pusher.connect();
    await until('Anna is back', () => anna.recovered.length === round);
    await until('Anna hears Ben', () => ofAnna.at(-1) === `ben ${round}`);
  }
  assert.deepEqual(ofAnna, ['ben 1', 'ben 2']);
  assert.deepEqual(anna.recovered, [{ missed: 1 }, { missed: 1 }]);

  anna.pusher.unsubscribe(name);
  ben.channel.trigger('client-x', 'ben 3');
  await until('it is kept', async () => (await history(name)).length === 5);
  const again = await subscribed(anna.pusher, name);
  const told = record(again);
  ben.channel.trigger('client-x', 'ben 4');
  await until('Anna hears Ben', () => told.length > 0);
  assert.deepEqual(told, [['client-x', 'ben 4']]);
});

test('pusher-js without the add-on notices nothing', async () => {
  const name = fresh('kept-feed');
  const pusher = await connected(client());
  const channel = pusher.subscribe(name);
  const told = record(channel);
  await until('it is subscribed', () => channel.subscribed);
  await publisher().trigger(name, 'n', 'a');
  await until('it is here', () => told.length === 2);
  pusher.disconnect();
  await publisher().trigger(name, 'n', 'b');
  await connected((pusher.connect(), pusher));
  await until('it is back', () => channel.subscribed);
  await publisher().trigger(name, 'n', 'c');
  await until('it is here', () => told.length === 4);
  assert.deepEqual(told, [['pusher:subscription_succeeded', {}], ['n', 'a'],
    ['pusher:subscription_succeeded', {}], ['n', 'c']]);
});

test('Laravel Echo takes the add-on too', async () => {
  const name = fresh('kept-feed');
  const echo = new Echo({ broadcaster: 'pusher', Pusher: PusherClient, key: server.key, ...clientOptions() });
  onClose(() => echo.disconnect());
  const { pusher } = echo.connector;
  lineman(pusher);
  const got = [];
  const channel = echo.channel(name).listen('.n', (data) => got.push(data));
  await until('it is subscribed', () => channel.subscription.subscribed);
  pusher.disconnect();
  await publisher().trigger(name, 'n', 'a');
  pusher.connect();
  await until('it is here', () => got.length === 1);
});

/** A page of another site that loads pusher-js and the add-on. */
async function site() {
  const library = await readFile(require.resolve('pusher-js/dist/web/pusher.min.js'));
  const web = http.createServer((request, response) => {
    const script = request.url === '/pusher.js';
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
    response.end(script ? library : '<!doctype html><link rel="icon" href="data:,">'
      + `<script src="/pusher.js"></script><script src="${home}/lineman.js"></script>`);
  });
  await new Promise((listening) => { web.listen(0, '127.0.0.1', listening); });
  onClose(() => new Promise((closed) => {
    web.closeAllConnections();
    web.close(closed);
  }));
  const context = await browser.newContext();
  onClose(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(`http://127.0.0.1:${web.address().port}/`);
  return page;
}

/** Subscribes in the page; what it hears is in `heard`. */
function enter(page, name) {
  return page.evaluate(([key, wsHost, wsPort, channel]) => new Promise((ready) => {
    globalThis.heard = [];
    const options = { cluster: '', wsHost, wsPort, forceTLS: false, enabledTransports: ['ws'] };
    const pusher = globalThis.lineman(new globalThis.Pusher(key, options), { storage: globalThis.sessionStorage });
    const subscribedTo = pusher.subscribe(channel);
    for (const event of ['n', 'lineman:gap', 'lineman:recovered']) {
      subscribedTo.bind(event, (data) => globalThis.heard.push([event, data]));
    }
    subscribedTo.bind('pusher:subscription_succeeded', ready);
  }), [server.key, server.host, server.port, name]);
}

test('in a browser, a killed worker and a reload of the page cost nothing', async () => {
  const name = fresh('kept-feed');
  const page = await site();
  await enter(page, name);
  const traffic = new Traffic(name);
  await traffic.flowing();
  // Whichever the page is on.
  for (const pid of await pids('worker')) await killed('worker', pid);
  await page.waitForFunction(() => globalThis.heard.some(([event]) => event.startsWith('lineman:')));
  const seen = await page.evaluate(() => globalThis.heard);
  await page.reload();
  await traffic.flowing();
  await enter(page, name);
  await traffic.flowing();
  await traffic.stop();
  const all = await history(name);
  const last = all.at(-1);
  await page.waitForFunction((data) => globalThis.heard.at(-1)?.[1] === data, last);
  const told = await page.evaluate(() => globalThis.heard);
  const events = (list) => list.filter(([event]) => event === 'n').map(([, data]) => data);
  assert.deepEqual(told.filter(([event]) => event === 'lineman:gap'), []);
  assert.ok(seen.some(([event]) => event === 'lineman:recovered'));
  // Between the look and the reload the old page heard more, which is remembered too.
  const [before, since] = [events(seen), events(told)];
  assert.deepEqual(before, all.slice(0, before.length));
  assert.deepEqual(since, all.slice(all.length - since.length));
  assert.ok(before.length + since.length <= all.length, 'nothing twice');
  assert.ok(since.length > 20, 'the reload was bridged');
});

test('the add-on is a script and a module, and browsers need not load it twice', async () => {
  const page = await browser.newPage();
  onClose(() => page.close());
  await page.goto(`${home}/healthz`);
  assert.equal(await page.evaluate(async () => typeof (await import('/lineman.mjs')).default), 'function');
  const first = await fetch(`${home}/lineman.js`);
  assert.match(first.headers.get('content-type'), /^text\/javascript/);
  assert.match(first.headers.get('cache-control'), /max-age/);
  assert.equal(await first.text(), await readFile(require.resolve('../../src/app/addon/lineman.js'), 'utf8'));
  const tag = first.headers.get('etag');
  const second = await fetch(`${home}/lineman.js`, { headers: { 'If-None-Match': tag } });
  assert.equal(second.status, 304);
  assert.equal((await fetch(`${home}/lineman.js`, { method: 'POST' })).status, 405);
});
