// A real browser for the client programs: Chromium, a page in it that fails the test when a script
// fails, and a site that serves pusher-js and signs as any backend would.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { PATIENCE_MS, onClose, publisher } from './support.mjs';

export const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

export async function launch() {
  assert.ok(existsSync(executablePath), `no browser at ${executablePath}: run tests/setup, or set CHROMIUM`);
  return chromium.launch({
    executablePath,
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--disable-dev-shm-usage'],
  });
}

/**
 * A page in a window of its own, which fails the test when a script in it fails. `before` may
 * prepare the window.
 */
export async function open(browser, url, { before = () => {} } = {}) {
  const context = await browser.newContext();
  await before(context);
  onClose(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  onClose(() => assert.deepEqual(errors, [], 'scripts in the page failed'));
  await page.goto(url);
  return page;
}

/** Serves a page that loads pusher-js as any site would, and signs for it as any backend would. */
export async function site(user) {
  const library = await readFile(createRequire(import.meta.url)
    .resolve('pusher-js/dist/web/pusher.min.js'));
  const sdk = publisher();
  const web = http.createServer((request, response) => {
    if (request.url === '/pusher.js') {
      response.setHeader('content-type', 'text/javascript');
      response.end(library);
    } else if (request.url === '/pusher/auth') {
      let form = '';
      request.on('data', (text) => { form += text; });
      request.on('end', () => {
        const { socket_id: socket, channel_name: channel } = Object.fromEntries(new URLSearchParams(form));
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(sdk.authorizeChannel(socket, channel,
          channel.startsWith('presence-') ? user : undefined)));
      });
    } else if (request.url === '/pusher/user-auth') {
      let form = '';
      request.on('data', (text) => { form += text; });
      request.on('end', () => {
        const { socket_id: socket } = Object.fromEntries(new URLSearchParams(form));
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(sdk.authenticateUser(socket, { id: user.user_id })));
      });
    } else {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><link rel="icon" href="data:,"><script src="/pusher.js"></script>');
    }
  });
  await new Promise((listening) => { web.listen(0, '127.0.0.1', listening); });
  onClose(() => new Promise((closed) => {
    web.closeAllConnections();
    web.close(closed);
  }));
  return `http://127.0.0.1:${web.address().port}/`;
}
