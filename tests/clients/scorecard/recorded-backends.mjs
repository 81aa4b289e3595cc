// Server SDKs that cannot run here, as scripts: they put requests together as the SDK does, and take
// answers as strictly as the SDK takes them. What is known of each is in the profiles.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import http from 'node:http';
import { server } from '../support.mjs';

const viaKey = 'Happens inside the SDK, by the same rules as in the others';

/** PHP: one channel goes as `channel`, only 200 is success, queries come percent-encoded by Guzzle. */
const php = {
  title: 'PHP 7 (recorded)',
  library: 'pusher-http-php 7.2.6',
  body: (channels, rest) => (channels.length === 1
    ? { ...rest, channel: channels[0] } : { ...rest, channels }),
  encode: encodeURIComponent,
  accepts: (status) => status === 200,
};

/** Ruby: always `channels`, parameters in the order of the alphabet. */
const ruby = {
  title: 'Ruby 2 (recorded)',
  library: 'pusher-http-ruby 2.0.3',
  body: (channels, rest) => ({ ...rest, channels }),
  encode: encodeURIComponent,
  accepts: (status) => status === 200 || status === 202,
};

/** Go: always `channels`, commas stay as they are in queries. */
const go = {
  title: 'Go 5 (recorded)',
  library: 'pusher-http-go 5.1.1',
  body: (channels, rest) => ({ name: rest.name, channels, ...rest }),
  encode: (value) => encodeURIComponent(value).replaceAll('%2C', ','),
  accepts: (status) => status >= 200 && status < 300,
};

const hex = (secret, text) => createHmac('sha256', secret).update(text).digest('hex');

class Recorded {
  constructor(profile) {
    this.profile = profile;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  /** Signs what the SDK signs: the path and the plain, sorted parameters. */
  request(method, route, { params = {}, body, secret = server.secret } = {}) {
    const path = `/apps/${server.appId}${route}`;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const all = {
      ...params,
      auth_key: server.key,
      auth_timestamp: String(Math.floor(Date.now() / 1000)),
      auth_version: '1.0',
      ...(text !== undefined && { body_md5: createHash('md5').update(text).digest('hex') }),
    };
    const plain = Object.keys(all).sort().map((name) => `${name}=${all[name]}`).join('&');
    all.auth_signature = hex(secret, `${method}\n${path}\n${plain}`);
    const query = Object.entries(all)
      .map(([name, value]) => `${name}=${this.profile.encode(value)}`).join('&');
    const headers = { 'X-Pusher-Library': this.profile.library };
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    const { host, port } = server;
    return new Promise((answer, fail) => {
      const asked = http.request({ host, port, method, path: `${path}?${query}`, headers, agent: this.agent },
        (response) => {
          let said = '';
          response.on('data', (piece) => { said += piece; });
          response.on('end', () => answer({ status: response.statusCode, body: said }));
        });
      asked.on('error', fail);
      asked.end(text);
    });
  }

  /** What the SDK returns, or the error it throws. */
  async json(...asked) {
    const { status, body } = await this.request(...asked);
    if (!this.profile.accepts(status)) throw new Error(`refused with ${status}: ${body}`);
    return JSON.parse(body);
  }

  event(channels, name, data, params = {}) {
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    return { body: this.profile.body(channels, { name, data: text, ...params }) };
  }
}

/** Strict as the SDKs' readers: names and types of all fields, and the key as one knows it. */
function webhook({ rawHeaders, body }) {
  const sent = Object.fromEntries(rawHeaders.flatMap((name, i) => (i % 2 ? [] : [[name, rawHeaders[i + 1]]])));
  const signature = Buffer.from(sent['X-Pusher-Signature'] ?? '');
  const expected = Buffer.from(hex(server.secret, body));
  if (sent['X-Pusher-Key'] !== server.key || sent['Content-Type'] !== 'application/json') return null;
  if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return null;
  const { time_ms: time, events } = JSON.parse(body);
  if (!Number.isInteger(time) || events.some(({ channel }) => typeof channel !== 'string')) {
    throw new Error(`a webhook that the SDKs cannot read: ${body}`);
  }
  return events;
}

function open(profile) {
  const sdk = new Recorded(profile);
  const read = (route, params) => sdk.json('GET', route, { params });
  return {
    trigger: (...event) => sdk.json('POST', '/events', sdk.event(...event)),
    batch: (events) => sdk.json('POST', '/batch_events', {
      body: { batch: events.map((event) => ({ ...event, data: JSON.stringify(event.data) })) },
    }),
    channels: (prefix) => read('/channels', { filter_by_prefix: prefix, info: 'user_count' }),
    channel: (name) => read(`/channels/${name}`, { info: 'user_count' }),
    users: (name) => read(`/channels/${name}/users`),
    toUser: (id, ...event) => sdk.json('POST', '/events', sdk.event([`#server-to-user-${id}`], ...event)),
    terminate: (id) => sdk.json('POST', `/users/${id}/terminate_connections`, { body: {} }),
    statusOf: async (...event) => (await sdk.request('POST', '/events', sdk.event(...event))).status,
    statusWithSecret: async (secret) =>
      (await sdk.request('POST', '/events', { ...sdk.event(['any'], 'news', {}), secret })).status,
    webhook,
    close: () => sdk.agent.destroy(),
  };
}

export const recorded = [php, ruby, go].map((profile) => ({
  title: profile.title,
  lacks: { encrypted: viaKey, authorize: viaKey, authenticate: viaKey },
  open: () => open(profile),
}));
