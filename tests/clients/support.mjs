// What the client programs share: the server they talk to, clients that are always closed again,
// waiting with a deadline, and a look at which worker process holds a connection.
//
// The server comes from the environment; `cargo test --test clients` starts one and sets it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir, readlink } from 'node:fs/promises';
import http from 'node:http';
import { promisify } from 'node:util';
import PusherServer from 'pusher';
import PusherClient from 'pusher-js';
import WebSocket from 'ws';

const run = promisify(execFile);

/** The value of an environment variable, or an error that says how to get it. */
function need(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set. Run these programs with \`cargo test --test clients\`, ` +
      'or start a server yourself and set LINEMAN_HOST, LINEMAN_PORT, LINEMAN_APP_ID, ' +
      'LINEMAN_APP_KEY, LINEMAN_APP_SECRET, LINEMAN_CONTROL and LINEMAN_CONFIG.');
  }
  return value;
}

export const server = {
  host: need('LINEMAN_HOST'),
  port: Number(need('LINEMAN_PORT')),
  appId: need('LINEMAN_APP_ID'),
  key: need('LINEMAN_APP_KEY'),
  secret: need('LINEMAN_APP_SECRET'),
};

// ---------------------------------------------------------------- waiting

/** How long anything may take before it counts as missing. Generous: machines are busy. */
export const PATIENCE_MS = 15_000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Waits until `check` answers something true and returns it. `what` is the claim that the failure
 * message repeats; `shown` may add what was seen instead.
 */
export async function until(what, check, { ms = PATIENCE_MS, shown } = {}) {
  const deadline = performance.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > deadline) {
      const seen = shown ? `; seen: ${JSON.stringify(await shown())}` : '';
      assert.fail(`after ${ms} ms still not so: ${what}${seen}`);
    }
    await pause(10);
  }
}

/** A promise with a deadline, for things that call back once. */
export function within(what, promise, ms = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({
      message: `did not happen within ${ms} ms: ${what}`,
    })), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A channel name nobody else uses, so that tests cannot hear each other. */
export const fresh = (prefix) => `${prefix}-${randomBytes(5).toString('hex')}`;

// ---------------------------------------------------------------- closing what was opened

const opened = [];

/** Remembers how to close something; `closeAll` does it, newest first. */
export function onClose(close) {
  opened.push(close);
}

/** For `afterEach`: leaves no connection behind, so that each test starts with an empty server. */
export async function closeAll() {
  for (const close of opened.splice(0).reverse()) await close();
}

// ---------------------------------------------------------------- the server SDK

/**
 * The server SDK for Node. Each call makes one with a kept-alive connection of its own, so several
 * of them are several publishers, on whichever worker the system gave each.
 */
export function publisher(options = {}) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  onClose(() => agent.destroy());
  return new PusherServer({
    appId: server.appId,
    key: server.key,
    secret: server.secret,
    host: server.host,
    port: String(server.port),
    useTLS: false,
    agent,
    ...options,
  });
}

/** The status and text of a call that is expected to be refused. */
export async function refusal(promise) {
  try {
    const response = await promise;
    assert.fail(`expected a refusal, but the call was answered ${response.status}`);
  } catch (error) {
    if (!(error instanceof PusherServer.RequestError)) throw error;
    assert.ok(error.status, `the request itself broke: ${error.error ?? error}`);
    return { status: error.status, body: error.body };
  }
}

// ---------------------------------------------------------------- pusher-js

/** Signs for `user` what pusher-js wants to subscribe to, as a customer's backend does. */
export function authorizer(user, secret = server.secret) {
  const signer = new PusherServer({ appId: server.appId, key: server.key, secret });
  return ({ socketId, channelName }, answer) => {
    const member = channelName.startsWith('presence-') ? user : undefined;
    answer(null, signer.authorizeChannel(socketId, channelName, member));
  };
}

/** The user as the SDKs want it. */
export const member = (id, info = { name: `name of ${id}` }) => ({ user_id: id, user_info: info });

/** Options that point pusher-js (and Echo, which hands them on) at our server. */
export function clientOptions({ user, secret, ...rest } = {}) {
  return {
    cluster: '',
    wsHost: server.host,
    wsPort: server.port,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: { customHandler: authorizer(user, secret) },
    ...rest,
  };
}

/** A pusher-js client that is closed when the test ends. Not necessarily connected yet. */
export function client(options = {}) {
  const { key = server.key, ...rest } = options;
  const pusher = new PusherClient(key, clientOptions(rest));
  onClose(() => pusher.disconnect());
  return pusher;
}

/** Waits until a pusher-js client is connected. */
export async function connected(pusher) {
  await until('pusher-js is connected', () => pusher.connection.state === 'connected', {
    shown: () => pusher.connection.state,
  });
  return pusher;
}

/** Subscribes and waits for success; a refusal fails at once with what the server said. */
export function subscribed(pusher, name) {
  const channel = pusher.channel(name) ?? pusher.subscribe(name);
  if (channel.subscribed) return Promise.resolve(channel);
  return within(`subscribed to ${name}`, new Promise((resolve, reject) => {
    channel.bind('pusher:subscription_succeeded', () => resolve(channel));
    channel.bind('pusher:subscription_error', (error) =>
      reject(new Error(`subscribing to ${name} was refused: ${JSON.stringify(error)}`)));
  }));
}

/** Everything a channel emits, as [event, data] in order of arrival. */
export function record(channel) {
  const events = [];
  channel.bind_global((event, data) => events.push([event, data]));
  return events;
}

/** Only the data of one event, in order of arrival. */
export function heard(channel, event) {
  const data = [];
  channel.bind(event, (value) => data.push(value));
  return data;
}

/**
 * Publishes a last event on the channel and waits until every client has it. Events of one channel
 * keep their order, so whatever has not arrived by then was never sent.
 */
export async function fence(channels) {
  // Starts with a letter: pusher-js would take bare digits for a number.
  const mark = `mark-${randomBytes(6).toString('hex')}`;
  const seen = channels.map((channel) => within(`the closing event on ${channel.name}`,
    new Promise((resolve) => channel.bind('fence', (data) => data === mark && resolve()))));
  await publisher().trigger(channels[0].name, 'fence', mark);
  await Promise.all(seen);
}

// ---------------------------------------------------------------- a client without a library

/** A bare WebSocket that remembers every frame, for what no library would send or show. */
export class Raw {
  /** Connects; `path` may replace the whole path and query. */
  constructor({ key = server.key, protocol = 7, path } = {}) {
    const target = path ?? `/app/${key}?protocol=${protocol}&client=raw&version=1.0`;
    this.frames = [];
    this.pongs = 0;
    this.end = null;
    this.socket = new WebSocket(`ws://${server.host}:${server.port}${target}`);
    this.socket.on('message', (data, binary) => {
      assert.equal(binary, false, 'the server sends text only');
      this.frames.push(JSON.parse(data.toString()));
    });
    this.socket.on('pong', () => { this.pongs += 1; });
    this.socket.on('error', (error) => { this.error = error; });
    this.socket.on('close', (code, reason) => { this.end = { code, reason: reason.toString() }; });
    this.read = 0;
    onClose(() => this.socket.terminate());
  }

  /** Connects and reads the greeting. */
  static async open(options) {
    const raw = new Raw(options);
    const greeting = await raw.next('pusher:connection_established');
    raw.socketId = JSON.parse(greeting.data).socket_id;
    return raw;
  }

  send(message) {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  /** The next unread frame with this event name; frames before it count as read. */
  async next(event) {
    let found;
    await until(`a ${event} arrives`, () => {
      if (this.error) throw this.error;
      const at = this.frames.findIndex((frame, i) => i >= this.read && frame.event === event);
      if (at >= 0) {
        found = this.frames[at];
        this.read = at + 1;
      }
      return at >= 0;
    }, { shown: () => ({ unread: this.frames.slice(this.read), closed: this.end }) });
    return found;
  }

  /** The code and reason the connection was closed with. */
  closed() {
    return until('the server closes the connection', () => this.end,
      { shown: () => this.frames });
  }

  /** Asks and waits for the answer: whatever was sent before has been dealt with. */
  async ping() {
    this.send({ event: 'pusher:ping', data: {} });
    return this.next('pusher:pong');
  }

  /** The signed `data` of a subscribe message. */
  subscription(channel, user, { key = server.key, secret = server.secret } = {}) {
    if (!/^(private|presence)-/.test(channel)) return { channel };
    const signer = new PusherServer({ appId: server.appId, key, secret });
    return { channel, ...signer.authorizeChannel(this.socketId, channel, user) };
  }

  /** Subscribes and waits for success. */
  async subscribe(channel, user) {
    this.send({ event: 'pusher:subscribe', data: this.subscription(channel, user) });
    const success = await this.next('pusher_internal:subscription_succeeded');
    assert.equal(success.channel, channel);
    return success;
  }
}

// ---------------------------------------------------------------- processes

/** The server's own account of its processes. */
export async function status() {
  const { stdout } = await run(need('LINEMAN_CONTROL'),
    ['status', '--json', '--config', need('LINEMAN_CONFIG')]);
  return JSON.parse(stdout);
}

/** The pids of the running processes of one role. */
export async function pids(role) {
  const { processes } = await status();
  return processes
    .filter((process) => process.role === role && process.state === 'running')
    .map((process) => process.pid);
}

/**
 * Which worker process holds the connection that has this port on our side: the kernel's table of
 * connections names the socket, and the worker has it among its open files. Linux only.
 */
export async function workerOf(localPort, workers) {
  const inode = await inodeOfPeer(localPort);
  for (const pid of workers ?? await pids('worker')) {
    if (await holds(pid, inode)) return pid;
  }
  throw new Error(`no worker holds the connection from port ${localPort} (socket ${inode})`);
}

/** The kernel hands its table out in pieces, so a row may be missed once; it is there the next time. */
function inodeOfPeer(localPort) {
  const hex = (port) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return until(`the system shows the connection from port ${localPort} to ${server.port}`, () => {
    for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
      const rows = readFileSync(table, 'utf8').split('\n').slice(1);
      for (const row of rows) {
        const [, local, remote, , , , , , , inode] = row.trim().split(/\s+/);
        if (local?.endsWith(hex(server.port)) && remote.endsWith(hex(localPort))) return inode;
      }
    }
    return null;
  });
}

async function holds(pid, inode) {
  const directory = `/proc/${pid}/fd`;
  const files = await readdir(directory).catch(() => []);
  for (const file of files) {
    const target = await readlink(`${directory}/${file}`).catch(() => '');
    if (target === `socket:[${inode}]`) return true;
  }
  return false;
}

/** Our side's port of a connected pusher-js client. */
export function portOf(pusher) {
  const { socket } = pusher.connection.connection.transport;
  return socket._stream.localPort;
}

/**
 * Opens `count` connected clients with `make(index)` and, should the system have put all on one
 * worker, more until at least two workers serve some. Returns [{ pusher, worker }].
 */
export async function spread(count, make = () => client()) {
  const workers = await pids('worker');
  assert.ok(workers.length >= 2, `two workers or more are needed, found ${workers.length}`);
  const all = [];
  while (all.length < count || new Set(all.map((one) => one.worker)).size < 2) {
    assert.ok(all.length < count + 100, 'a hundred connections more and still all on one worker');
    const pusher = await connected(make(all.length));
    all.push({ pusher, worker: await workerOf(portOf(pusher), workers) });
  }
  return all;
}

/** Two connected clients on two different workers, made by `make(index)`. */
export async function apart(make) {
  const all = await spread(2, make);
  const first = all[0];
  const second = all.find((one) => one.worker !== first.worker);
  for (const { pusher } of all) {
    if (pusher !== first.pusher && pusher !== second.pusher) pusher.disconnect();
  }
  return [first.pusher, second.pusher];
}
