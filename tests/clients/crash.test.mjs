// Processes die in the middle of traffic: what clients and publishers may notice, and what not.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import http from 'node:http';
import PusherServer from 'pusher';
import {
  client, closeAll, connected, fresh, heard, member, onClose, pause, pids, portOf, publisher, record,
  server, spread, status, subscribed, until, workerOf,
} from './support.mjs';

afterEach(closeAll);

/** How long the server may take to have all its processes again. */
const REPLACED_MS = 10_000;

/** Publishers that post numbered events one after the other, each over its own connection. */
class Traffic {
  constructor(channel, publishers) {
    this.channel = channel;
    this.running = true;
    this.outcomes = [];
    this.agents = Array.from({ length: publishers }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));
    this.loops = this.agents.map((agent, who) => this.publish(agent, who));
    onClose(() => this.stop());
  }

  async publish(agent, who) {
    const sdk = new PusherServer({
      appId: server.appId, key: server.key, secret: server.secret,
      host: server.host, port: String(server.port), useTLS: false, agent,
    });
    for (let n = 0; this.running; n += 1) {
      const event = `${who}:${n}`;
      const sent = performance.now();
      this.outcomes.push({ event, sent, answer: await this.answer(sdk, event), who });
      await pause(2);
    }
  }

  /** 200, another status, or the way in which the connection broke. */
  async answer(sdk, event) {
    try {
      return (await sdk.trigger(this.channel, 'n', event)).status;
    } catch (error) {
      if (!(error instanceof PusherServer.RequestError)) throw error;
      return error.status ?? error.error.code ?? String(error.error);
    }
  }

  /** How many of the publishers have their connection on this worker. */
  async on(worker, workers) {
    let count = 0;
    for (const agent of this.agents) {
      const [socket] = Object.values({ ...agent.sockets, ...agent.freeSockets }).flat();
      if (socket?.localPort && await workerOf(socket.localPort, workers) === worker) count += 1;
    }
    return count;
  }

  /** The answers from this position on, counted. */
  tally(from = 0) {
    const counts = {};
    for (const { answer } of this.outcomes.slice(from)) counts[answer] = (counts[answer] ?? 0) + 1;
    return counts;
  }

  /** Waits until every publisher has been answered 200 so many times more. */
  flowing(times = 5) {
    const from = this.outcomes.length;
    return until('every publisher is answered 200 again', () => {
      const since = this.outcomes.slice(from).filter(({ answer }) => answer === 200);
      return this.agents.every((_, who) => since.filter((one) => one.who === who).length >= times);
    }, { shown: () => this.tally(from) });
  }

  /** Ends the traffic once what is under way was answered. */
  async stop() {
    this.running = false;
    await Promise.all(this.loops);
    for (const agent of this.agents) agent.destroy();
  }

  /** The events answered 200 and sent after this moment: one sent before may have been passed on before it. */
  accepted(after = 0) {
    return this.outcomes
      .filter(({ answer, sent }) => answer === 200 && sent > after)
      .map(({ event }) => event);
  }
}

/** Notes each time a client is not connected any more. */
function breaks(pusher) {
  const seen = [];
  pusher.connection.bind('state_change', ({ previous, current }) => {
    if (previous === 'connected') seen.push(current);
  });
  return seen;
}

/**
 * Kills processes at once. `replaced` waits until each role has as many as before, without them, and
 * tells how long that took.
 */
async function kill(...victims) {
  const { processes } = await status();
  const roles = new Set(processes.filter(({ pid }) => victims.includes(pid)).map(({ role }) => role));
  const before = processes.filter(({ role }) => roles.has(role)).length;
  for (const pid of victims) process.kill(pid, 'SIGKILL');
  const started = performance.now();
  return async function replaced() {
    await until(`the killed ${[...roles].join(' and ')} is replaced`, async () => {
      const now = (await Promise.all([...roles].map(pids))).flat();
      return now.length === before && !victims.some((pid) => now.includes(pid));
    }, { ms: REPLACED_MS, shown: status });
    return Math.round(performance.now() - started);
  };
}

/** Nothing twice, and everything that was promised. */
function assertDelivered(got, promised, who) {
  assert.equal(new Set(got).size, got.length, `${who} heard an event twice`);
  const had = new Set(got);
  const missing = promised.filter((event) => !had.has(event));
  assert.deepEqual(missing, [], `${who} missed events that were answered 200`);
}

/** What several clients heard in common came in the same order for all. */
function assertSameOrder(lists) {
  const [first, ...rest] = lists;
  const known = new Set(first);
  for (const list of rest) {
    const both = new Set(list.filter((event) => known.has(event)));
    assert.deepEqual(list.filter((event) => both.has(event)), first.filter((event) => both.has(event)),
      'two clients heard the same events in different order');
  }
}

const members = (channel) => Object.keys(channel.members.members).sort();

/** Who the server says is there; nobody while it cannot say. */
async function users(sdk, channel) {
  try {
    const response = await sdk.get({ path: `/channels/${channel}/users` });
    return (await response.json()).users.map(({ id }) => id).sort();
  } catch (error) {
    if (error.status === 503) return [];
    throw error;
  }
}

test('a killed worker takes nothing from the clients of the others, and its own come back', async (t) => {
  const feed = fresh('feed');
  const room = fresh('presence-room');
  const clients = await spread(20, (i) => client({ user: member(`user${i}`) }));
  for (const one of clients) {
    one.feed = await subscribed(one.pusher, feed);
    one.got = heard(one.feed, 'n');
    one.room = await subscribed(one.pusher, room);
    one.breaks = breaks(one.pusher);
    one.firstId = one.pusher.connection.socket_id;
  }
  const workers = await pids('worker');
  const victim = clients[0].worker;
  const [own, others] = [
    clients.filter(({ worker }) => worker === victim),
    clients.filter(({ worker }) => worker !== victim),
  ];

  const traffic = new Traffic(feed, 6);
  await traffic.flowing();
  const exposed = await traffic.on(victim, workers);
  const replaced = await kill(victim);
  t.diagnostic(`the worker was replaced after ${await replaced()} ms`);

  await until('the clients of the killed worker are back', () => own.every((one) =>
    one.pusher.connection.state === 'connected' && one.pusher.connection.socket_id !== one.firstId
      && one.feed.subscribed && one.room.subscribed),
  { shown: () => own.map(({ pusher }) => pusher.connection.state) });
  const back = performance.now();
  await traffic.flowing();
  await traffic.stop();

  const tally = traffic.tally();
  t.diagnostic(`answers to publishers: ${JSON.stringify(tally)}, of which ${exposed} of 6 sat on the killed worker`);
  const { 200: fine, ...broken } = tally;
  assert.ok(fine > 0);
  for (const answer of Object.keys(broken)) {
    assert.ok(['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE'].includes(answer),
      `publishers were answered ${JSON.stringify(tally)}`);
  }
  const resets = Object.values(broken).reduce((sum, count) => sum + count, 0);
  assert.ok(resets <= exposed, `${resets} requests broke, but only ${exposed} publishers sat on the killed worker`);

  const last = traffic.accepted().at(-1);
  await until('the last event is everywhere', () => clients.every(({ got }) => got.includes(last)));
  for (const [i, one] of others.entries()) {
    assert.deepEqual(one.breaks, [], `client ${i} of another worker was disconnected`);
    assertDelivered(one.got, traffic.accepted(), `client ${i} of another worker`);
  }
  for (const [i, one] of own.entries()) {
    assert.equal(one.breaks.length, 1, `client ${i} of the killed worker was disconnected ${one.breaks}`);
    assertDelivered(one.got, traffic.accepted(back), `client ${i} of the killed worker, once back,`);
  }
  assertSameOrder(clients.map(({ got }) => got));

  const everyone = clients.map((_, i) => `user${i}`).sort();
  const sdk = publisher();
  await until('the server knows everybody again', async () =>
    (await users(sdk, room)).join() === everyone.join(), { shown: () => users(sdk, room) });
  await until('every client knows everybody again', () =>
    clients.every((one) => members(one.room).join() === everyone.join()),
  { shown: () => clients.map((one) => members(one.room).length) });
});

test('a user with a tab on another worker does not leave with a killed worker', async () => {
  const room = fresh('presence-tabs');
  const tabs = await spread(2, () => client({ user: member('tabby') }));
  const victim = tabs[0].worker;
  const watchers = (await spread(4, (i) => client({ user: member(`watcher${i}`) })))
    .filter(({ worker }) => worker !== victim);
  if (watchers.length === 0) {
    // All four landed on the victim: go on until one does not.
    const more = await spread(30, (i) => client({ user: member(`watcher${i}`) }));
    watchers.push(...more.filter(({ worker }) => worker !== victim));
  }
  const watching = await subscribed(watchers[0].pusher, room);
  for (const { pusher } of tabs) await subscribed(pusher, room);
  await until('the watcher sees the user', () => watching.members.get('tabby'));
  const told = record(watching);
  const { pusher: lost } = tabs[0];
  const firstId = lost.connection.socket_id;

  const replaced = await kill(victim);
  await replaced();
  await until('the tab of the killed worker is back', () => lost.connection.state === 'connected'
    && lost.connection.socket_id !== firstId && lost.channel(room).subscribed);
  const sdk = publisher();
  await until('the server counts both users', async () =>
    (await users(sdk, room)).join() === ['tabby', watchers[0].pusher.channel(room).members.myID].sort().join(),
  { shown: () => users(sdk, room) });
  await sdk.trigger(room, 'last', '');
  await until('the watcher has the last event', () => told.some(([event]) => event === 'last'));
  assert.deepEqual(told.map(([event]) => event), ['last']);
});

test('a killed switchboard disconnects nobody, loses no accepted event and leaves presence true', async (t) => {
  const feed = fresh('feed');
  const room = fresh('presence-room');
  const clients = await spread(20, (i) => client({ user: member(`user${i}`) }));
  for (const one of clients) {
    one.feed = await subscribed(one.pusher, feed);
    one.got = heard(one.feed, 'n');
    one.room = await subscribed(one.pusher, room);
    one.told = record(one.room);
    one.breaks = breaks(one.pusher);
  }
  await until('all see all', () => clients.every((one) => one.room.members.count === clients.length));
  const tab = await connected(client({ user: member('user19') }));
  await subscribed(tab, room);
  // Joins during the gap, over a connection that is there already.
  const joiner = await connected(client({ user: member('joiner') }));

  const traffic = new Traffic(feed, 4);
  await traffic.flowing();
  for (const one of clients) one.told.length = 0;
  const from = traffic.outcomes.length;
  const [switchboard] = await pids('switchboard');
  const replaced = await kill(switchboard);

  // In the gap: two leave, one by closing and one by unsubscribing, one joins, and one user closes
  // one of two tabs.
  const [closer, leaver] = clients;
  closer.pusher.disconnect();
  leaver.pusher.unsubscribe(room);
  tab.disconnect();
  const joining = subscribed(joiner, room);
  joining.catch(() => {}); // awaited below, unless something else fails first
  t.diagnostic(`the switchboard was replaced after ${await replaced()} ms`);
  const hers = await joining;
  await traffic.flowing();
  await traffic.stop();

  const tally = traffic.tally(from);
  t.diagnostic(`answers to publishers from the kill on: ${JSON.stringify(tally)}`);
  const { 200: fine, 503: refused = 0, ...broken } = tally;
  assert.ok(fine > 0);
  assert.deepEqual(broken, {}, `publishers were answered ${JSON.stringify({ fine, refused, ...broken })}`);

  const stayed = clients.filter((one) => one !== closer);
  const last = traffic.accepted().at(-1);
  await until('the last event is everywhere', () => stayed.every(({ got }) => got.includes(last)));
  for (const [i, one] of stayed.entries()) {
    assert.deepEqual(one.breaks, [], `client ${i} was disconnected`);
    assertDelivered(one.got, traffic.accepted(), `client ${i}`);
  }
  assertSameOrder(stayed.map(({ got }) => got));

  const truth = [...clients.map((_, i) => `user${i}`).slice(2), 'joiner'].sort();
  const sdk = publisher();
  await until('the server knows who is there', async () =>
    (await users(sdk, room)).join() === truth.join(), { shown: () => users(sdk, room) });
  const inside = stayed.filter((one) => one !== leaver);
  await until('every client knows who is there', () => inside.every((one) =>
    members(one.room).join() === truth.join()), { shown: () => inside.map((one) => members(one.room)) });
  assert.deepEqual(members(hers), truth);

  // Whatever else would have been told about the gap comes before this last event.
  await sdk.trigger(room, 'last', '');
  await until('the last event is everywhere', () =>
    inside.every((one) => one.told.some(([event]) => event === 'last')));
  for (const [i, one] of inside.entries()) {
    const told = one.told.filter(([event]) => event !== 'last').map(([event, { id }]) => `${event} ${id}`);
    assert.deepEqual(told.sort(), ['pusher:member_added joiner', 'pusher:member_removed user0',
      'pusher:member_removed user1'], `what client ${i} was told`);
  }
  const response = await sdk.get({ path: `/channels/${room}`, params: { info: 'user_count' } });
  assert.deepEqual(await response.json(), { occupied: true, user_count: truth.length });
});

test('a worker and the switchboard killed together leave no ghost behind', async () => {
  const room = fresh('presence-room');
  const clients = await spread(12, (i) => client({ user: member(`user${i}`) }));
  for (const one of clients) {
    one.room = await subscribed(one.pusher, room);
    one.firstId = one.pusher.connection.socket_id;
  }
  await until('all see all', () => clients.every((one) => one.room.members.count === clients.length));
  const victim = clients[0].worker;
  const [switchboard] = await pids('switchboard');
  const replaced = await kill(switchboard, victim);

  // Nobody is left who could tell the switchboard that this one was there, and it does not return.
  const [gone, ...stayed] = clients;
  gone.pusher.disconnect();
  await replaced();
  await until('the other clients of the killed worker are back', () => stayed.every((one) =>
    one.room.subscribed && (one.worker !== victim || one.pusher.connection.socket_id !== one.firstId)),
  { shown: () => stayed.map(({ pusher }) => pusher.connection.state) });

  const truth = stayed.map((one) => one.room.members.myID).sort();
  const sdk = publisher();
  await until('the server knows who is there', async () =>
    (await users(sdk, room)).join() === truth.join(), { shown: () => users(sdk, room) });
  await until('every client knows who is there', () =>
    stayed.every((one) => members(one.room).join() === truth.join()),
  { shown: () => stayed.map((one) => members(one.room)) });
});
