// Client SDKs that cannot run here, as scripts: they send what the SDK sends, and take what comes as
// strictly as the SDK takes it. What is known of each is in the profiles.

import WebSocket from 'ws';
import { server, within } from '../support.mjs';
import { parse, sign } from './backend.mjs';

const others = {
  streaming: 'The SDK knows WebSocket only',
  polling: 'The SDK knows WebSocket only',
  recovery: 'The add-on is for pusher-js',
};
const unknown = 'How this SDK reads it is not recorded';

/** Java: drafts of protocol 5, pings without data, a missing `data` breaks the application. */
const java = {
  title: 'Java 2.4 (recorded)',
  query: 'client=java-client&protocol=5&version=2.4.4',
  lacks: { watchlist: unknown, counts: unknown, encrypted: 'Decryption happens in the SDK; the frames are those of private channels' },
  ping: (socket) => socket.send('{"event": "pusher:ping"}'),
  read(frame) {
    if (!('data' in frame)) throw new Error(`Java breaks on a frame without data: ${JSON.stringify(frame)}`);
    return frame;
  },
  roster: ({ ids, hash }) => Object.fromEntries(ids.map((id) => [id, hash[id]])),
  refusal: 'pusher:subscription_error',
};

/** Swift: an object as `data` is dropped, in `pusher:error` anything else. */
const swift = {
  title: 'Swift 10 (recorded)',
  query: 'client=pusher-websocket-swift&version=10.1.6&protocol=7',
  lacks: { watchlist: unknown, counts: unknown, encrypted: 'Decryption happens in the SDK; the frames are those of private channels' },
  ping: (socket) => socket.send('{"event":"pusher:ping","data":{}}'),
  read(frame) {
    if (frame.event === 'pusher:error') return typeof frame.data?.message === 'string' ? frame : null;
    return typeof frame.data === 'string' ? frame : null;
  },
  roster: ({ hash }) => hash,
  refusal: 'pusher:subscription_error',
};

/** .NET: drafts of protocol 5, a PING frame each second, an internal event fails a subscription. */
const dotnet = {
  title: '.NET 2.2 (recorded)',
  query: 'protocol=5&client=pusher-dotnet-client&version=2.2.1',
  lacks: { watchlist: unknown, counts: unknown, encrypted: 'Decryption happens in the SDK; the frames are those of private channels' },
  everySecond: (socket) => socket.ping(),
  ping: (socket) => socket.ping(),
  read(frame) {
    if (frame.event === 'pusher:error' && typeof frame.data !== 'object') {
      throw new Error(`.NET cannot read ${JSON.stringify(frame)}`);
    }
    return frame;
  },
  roster: ({ hash }) => hash,
  refusal: 'pusher_internal:subscription_error',
};

class Recorded {
  constructor(profile, { key, port = server.port, signIn, user, secret }) {
    Object.assign(this, { profile, url: `ws://${server.host}:${port}/app/${key}?${profile.query}` });
    Object.assign(this, { signIn, user, secret });
    // What is heard stays readable after leaving, so that an event too many shows.
    Object.assign(this, { joined: new Map(), wanted: new Set(), answers: new Map() });
    this.seen = { pongs: 0, codes: [], user: [], watch: [] };
    this.connect();
  }

  connect() {
    this.socket = new WebSocket(this.url);
    this.socketId = undefined;
    this.socket.on('message', (data) => this.take(JSON.parse(data.toString())));
    this.socket.on('pong', () => { this.seen.pongs += 1; });
    this.socket.on('error', () => {});
    this.socket.on('close', (code) => {
      clearInterval(this.timer);
      this.connected = false;
      if (code >= 4000 && code < 4100) this.stopped = true;
      else if (!this.closing) setTimeout(() => this.connect(), 200);
    });
    this.socket.on('open', () => {
      const { everySecond } = this.profile;
      if (everySecond) this.timer = setInterval(() => everySecond(this.socket), 1000);
    });
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async take(frame) {
    const read = this.profile.read(frame);
    if (!read) return;
    const { event, channel, data } = read;
    const value = typeof data === 'string' ? parse(data) : data;
    if (event === 'pusher:connection_established') await this.established(value);
    else if (event === 'pusher:pong') this.seen.pongs += 1;
    else if (event === 'pusher:error') this.seen.codes.push(value.code);
    else if (event === 'pusher:signin_success') this.signedIn = true;
    else if (event === 'pusher_internal:subscription_succeeded') {
      const members = value.presence && this.profile.roster(value.presence);
      this.answers.get(channel)?.({ ok: true, members, me: this.user?.user_id });
    } else if (event === this.profile.refusal) this.answers.get(channel)?.({ ok: false, ...value });
    else if (channel === `#server-to-user-${this.signIn?.id}`) this.seen.user.push([event, value]);
    else if (event.startsWith('pusher_internal:member_')) {
      const told = { id: value.user_id, info: value.user_info };
      this.joined.get(channel)?.push([event.replace('pusher_internal', 'pusher'), told]);
    } else this.joined.get(channel)?.push([event, value, read.user_id]);
  }

  async established({ socket_id: socketId }) {
    this.socketId = socketId;
    this.connected = true;
    if (this.signIn) {
      const data = await sign({}, 'user', socketId, this.signIn);
      this.send({ event: 'pusher:signin', data });
      this.send({ event: 'pusher:subscribe', data: { auth: '', channel: `#server-to-user-${this.signIn.id}` } });
    }
    for (const name of this.wanted) await this.subscribe(name);
  }

  async subscribe(name) {
    const data = { channel: name };
    if (/^(private|presence)-/.test(name)) {
      const { auth, channel_data: member } = await sign(this, 'channel', this.socketId, name);
      Object.assign(data, { auth }, member && { channel_data: member });
    }
    this.send({ event: 'pusher:subscribe', data });
  }

  join(name) {
    this.joined.set(name, []);
    this.wanted.add(name);
    if (this.connected) this.subscribe(name);
    return within(`joining ${name}`, new Promise((answer) => this.answers.set(name, answer)));
  }

  heard(name) {
    return this.joined.get(name) ?? [];
  }

  say(name, event, data) {
    this.send({ event, channel: name, data });
  }

  leave(name) {
    this.wanted.delete(name);
    this.send({ event: 'pusher:unsubscribe', data: { channel: name } });
  }

  state() {
    const { connected, stopped, socketId, signedIn, seen } = this;
    return { connected, stopped, socketId, signedIn, ...seen };
  }

  ping() {
    this.profile.ping(this.socket);
  }

  close() {
    this.closing = true;
    clearInterval(this.timer);
    this.socket.terminate();
  }
}

export const recorded = [java, swift, dotnet].map((profile) => ({
  title: profile.title,
  lacks: { ...profile.lacks, ...others },
  async open({ activityTimeout, ...options }) {
    const client = new Recorded(profile, options);
    if (activityTimeout) {
      const timer = setInterval(() => client.connected && client.ping(), activityTimeout);
      client.socket.on('close', () => clearInterval(timer));
    }
    return client;
  },
}));
