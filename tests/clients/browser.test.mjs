// A real browser: pusher-js in a page, and the demo page as two people use it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, afterEach, before, test } from 'node:test';
import { promisify } from 'node:util';
import { executablePath, launch, open as openIn, site } from './browsers.mjs';
import {
  PATIENCE_MS, closeAll, fresh, member, onClose, publisher, server, until,
} from './support.mjs';

const run = promisify(execFile);
let browser;

before(async () => { browser = await launch(); });
after(() => browser?.close());
afterEach(closeAll);

const open = (url) => openIn(browser, url);

test('a browser hears what a backend posts, on public, private and presence channels', async () => {
  const names = [fresh('public'), fresh('private-own'), fresh('presence-all')];
  const page = await open(await site(member('browser', { name: 'Browser' })));
  await page.evaluate(([key, wsHost, wsPort, channels]) => {
    globalThis.heard = [];
    globalThis.ready = 0;
    const pusher = new globalThis.Pusher(key, {
      cluster: '', wsHost, wsPort, forceTLS: false, enabledTransports: ['ws'],
      channelAuthorization: { endpoint: '/pusher/auth' },
    });
    for (const name of channels) {
      const channel = pusher.subscribe(name);
      channel.bind('pusher:subscription_succeeded', () => { globalThis.ready += 1; });
      channel.bind('news', (data) => globalThis.heard.push([name, data]));
    }
    globalThis.pusher = pusher;
  }, [server.key, server.host, server.port, names]);
  await page.waitForFunction(() => globalThis.ready === 3);

  const sdk = publisher();
  const data = { text: 'grüße 👋', n: 1 };
  for (const name of names) await sdk.trigger(name, 'news', data);
  await page.waitForFunction(() => globalThis.heard.length === 3);
  assert.deepEqual(await page.evaluate(() => globalThis.heard), names.map((name) => [name, data]));

  const response = await sdk.get({ path: `/channels/${names[2]}/users` });
  assert.deepEqual(await response.json(), { users: [{ id: 'browser' }] });
  await page.evaluate(() => globalThis.pusher.disconnect());
});

/** The demo page, entered by a person of this name. */
async function enter(name) {
  const page = await open(`http://${server.host}:${server.port}/`);
  await page.getByLabel('Your name').fill(name);
  await page.getByRole('button', { name: 'Enter' }).click();
  await page.locator('#state[data-state=connected]').waitFor();
  return page;
}

const people = (page) => page.locator('#people li').allTextContents();
const lines = (page) => page.locator('#log li:not(.note)').allTextContents();

async function write(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.getByRole('button', { name: 'Send' }).click();
}

test('two people chat on the demo page, and curl speaks to both', async () => {
  const anna = await enter('Anna');
  const ben = await enter('Ben');
  await until('both see both', async () => (await people(anna)).length === 2, { shown: () => people(anna) });
  assert.deepEqual(await people(anna), ['Anna (you)', 'Ben']);
  assert.deepEqual(await people(ben), ['Anna', 'Ben (you)']);

  const said = [];
  const everybodyHas = (line) => {
    said.push(line);
    return until(`both pages show ${line}`, async () =>
      (await lines(anna)).includes(line) && (await lines(ben)).includes(line),
    { shown: async () => [await lines(anna), await lines(ben)] });
  };
  await write(anna, 'hello Ben');
  await everybodyHas('Annahello Ben');
  await write(ben, 'hello <b>Anna</b> 👋');
  await everybodyHas('Benhello <b>Anna</b> 👋');
  assert.equal(await anna.locator('#log li b b').count(), 0, 'markup stays text');

  const curl = await anna.locator('#curl').textContent();
  const { stdout } = await run('bash', ['-c', `${curl} --silent --show-error --fail`]);
  assert.deepEqual(JSON.parse(stdout), {});
  await everybodyHas('backendhello from curl');
  assert.deepEqual(await lines(anna), said);
  assert.deepEqual(await lines(ben), said);

  await ben.close();
  await until('Anna sees Ben leave', async () => (await people(anna)).length === 1,
    { shown: () => people(anna) });
  assert.deepEqual(await people(anna), ['Anna (you)']);
});

test('the demo page works without anything from elsewhere', async () => {
  const context = await browser.newContext();
  onClose(() => context.close());
  const page = await context.newPage();
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  const home = `http://${server.host}:${server.port}/`;
  const response = await page.goto(home);
  assert.equal(response.status(), 200);
  assert.match(response.headers()['content-type'], /^text\/html/);
  await page.waitForLoadState('load');
  assert.deepEqual(asked.filter((url) => !url.startsWith('data:')), [home]);
});

test('the demo page finds its way back when the connection breaks', async () => {
  const context = await browser.newContext();
  onClose(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  // Keeps the page's sockets at hand, so that one can be cut from inside.
  await page.addInitScript(() => {
    globalThis.sockets = [];
    const Real = globalThis.WebSocket;
    globalThis.WebSocket = class extends Real {
      constructor(...args) {
        super(...args);
        globalThis.sockets.push(this);
      }
    };
  });
  await page.goto(`http://${server.host}:${server.port}/`);
  await page.getByLabel('Your name').fill('Clara');
  await page.getByRole('button', { name: 'Enter' }).click();
  await page.locator('#state[data-state=connected]').waitFor();
  await page.evaluate(() => globalThis.sockets[0].close());
  await page.locator('#state[data-state=waiting]').waitFor();
  await page.locator('#state[data-state=connected]').waitFor();
  assert.equal(await page.evaluate(() => globalThis.sockets.length), 2);
  assert.deepEqual(await people(page), ['Clara (you)']);
});
