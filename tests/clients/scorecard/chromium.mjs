// pusher-js in a page of a real browser, with the build that web sites load for encrypted channels.

import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { server } from '../support.mjs';
import { options, sign } from './backend.mjs';

export const title = 'pusher-js 8.6.0, Chromium';
export const lacks = {};

let browser;
let site;

/** Starts the browser and a site whose pages load pusher-js and the driver. */
export async function begin() {
  const resolve = createRequire(import.meta.url).resolve;
  const files = {
    '/pusher.js': await readFile(resolve('pusher-js/dist/web/pusher-with-encryption.min.js')),
    '/driver.mjs': await readFile(new URL('pusher-js-driver.mjs', import.meta.url)),
    '/': '<!doctype html><link rel="icon" href="data:,"><script src="/pusher.js"></script>' +
      `<script src="http://${server.host}:${server.port}/lineman.js"></script>` +
      '<script type="module">import { drive } from "/driver.mjs"; window.drive = drive;</script>',
  };
  site = http.createServer((request, response) => {
    response.setHeader('content-type', request.url === '/' ? 'text/html' : 'text/javascript');
    response.end(files[request.url]);
  });
  await new Promise((listening) => { site.listen(0, '127.0.0.1', listening); });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--disable-dev-shm-usage'],
  });
}

export async function end() {
  await browser?.close();
  site?.close();
}

/** A page for each client; what the driver returns is reached by evaluating in the page. */
export async function open({ key, signIn, user, secret, recover, ...rest }) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.exposeFunction('sign', (...asked) => sign({ user, secret }, ...asked));
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.waitForFunction(() => window.drive);
  await page.evaluate(([name, chosen, who, recovers]) => {
    const addOn = recovers && window.lineman;
    window.client = window.drive(window.Pusher, name, chosen, window.sign, who, addOn);
  }, [key, options(rest), signIn, recover]);
  const call = (method) => (...args) =>
    page.evaluate(([name, given]) => window.client[name](...given), [method, args]);
  return {
    join: call('join'),
    heard: call('heard'),
    say: call('say'),
    leave: call('leave'),
    state: call('state'),
    close: () => context.close(),
  };
}
