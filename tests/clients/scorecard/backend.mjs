// What stands for the customer's backend in the scorecard: keys, signatures, the receiver of webhooks.

import { createHash } from 'node:crypto';
import http from 'node:http';
import { createRequire } from 'node:module';
import PusherServer from 'pusher';
import { server } from '../support.mjs';

/** The add-on that the server hands out. */
export const addOn = createRequire(import.meta.url)('../../../src/app/addon/lineman.js');

/** For encrypted channels. */
export const masterKey = createHash('sha256').update('scorecard').digest('base64');

/** The signature that a client's library asks its backend for. */
export async function sign({ user, secret = server.secret }, what, socketId, about) {
  const signer = new PusherServer({
    appId: server.appId, key: server.key, secret, encryptionMasterKeyBase64: masterKey,
  });
  if (what === 'user') return signer.authenticateUser(socketId, about);
  return signer.authorizeChannel(socketId, about, about.startsWith('presence-') ? user : undefined);
}

/** Data as the libraries hand it on: JSON when it is, else the text. */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Options that point pusher-js (and Echo) at our server. */
export function options({ port = server.port, transport = 'ws', ...rest }) {
  return {
    cluster: '',
    wsHost: server.host,
    wsPort: port,
    httpHost: server.host,
    httpPort: port,
    forceTLS: false,
    enabledTransports: [transport],
    ...rest,
  };
}

/** Receives webhooks; `requests` has them as [headers, body as text]. */
export async function receiver(port) {
  const requests = [];
  const web = http.createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (text) => { body += text; });
    request.on('end', () => {
      requests.push({ headers: request.headers, rawHeaders: request.rawHeaders, body });
      response.end();
    });
  });
  await new Promise((listening) => { web.listen(port, '127.0.0.1', listening); });
  return { requests, close: () => { web.closeAllConnections(); web.close(); } };
}
