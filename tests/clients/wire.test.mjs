// The protocol frame by frame over a bare WebSocket: what no library would send, and the exact form
// of what the server sends.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { Raw, closeAll, fresh, member, publisher, server, until } from './support.mjs';

afterEach(closeAll);

/** Data is a JSON string in every message but pusher:error, where it is an object. */
function assertDataRule(frames) {
  for (const frame of frames) {
    const expected = frame.event === 'pusher:error' ? 'object' : 'string';
    assert.equal(typeof frame.data, expected, `data of ${JSON.stringify(frame)}`);
  }
}

for (const protocol of [5, 6, 7]) {
  test(`protocol ${protocol} is greeted with a socket id and an activity timeout`, async () => {
    const raw = new Raw({ protocol });
    const greeting = await raw.next('pusher:connection_established');
    assert.deepEqual(Object.keys(greeting).sort(), ['data', 'event']);
    const data = JSON.parse(greeting.data);
    assert.match(data.socket_id, /^\d+\.\d+$/);
    assert.ok(Number.isInteger(data.activity_timeout) && data.activity_timeout >= 10,
      `activity_timeout is ${data.activity_timeout}`);
    assert.equal(raw.read, 1, 'the greeting is the first message');
  });
}

test('protocol 5 is told an error as an event before the close, protocol 7 by the close alone', async () => {
  const old = new Raw({ key: 'no-such-key', protocol: 5 });
  assert.equal((await old.closed()).code, 4001);
  assert.deepEqual(old.frames.map(({ event }) => event), ['pusher:error']);
  assert.equal(old.frames[0].data.code, 4001);
  assert.ok(old.frames[0].data.message.length > 0);

  const current = new Raw({ key: 'no-such-key', protocol: 7 });
  const end = await current.closed();
  assert.equal(end.code, 4001);
  assert.ok(end.reason.length > 0, 'the close frame has a reason');
  assert.deepEqual(current.frames, []);
});

test('a protocol nobody speaks is refused with 4007, a version that is no number with 4006', async () => {
  assert.equal((await new Raw({ protocol: 3 }).closed()).code, 4007);
  assert.equal((await new Raw({ protocol: 99 }).closed()).code, 4007);
  assert.equal((await new Raw({ protocol: 'seven' }).closed()).code, 4006);
});

test('without a protocol in the query the newest is spoken', async () => {
  const raw = await Raw.open({ path: `/app/${server.key}` });
  raw.socket.send(Buffer.from([0]));
  await raw.closed();
  assert.equal(raw.frames.length, 1, 'the close frame says it all, as from protocol 6 on');
});

test('a prefix before /app does not matter, and other paths are refused with 4005', async () => {
  await Raw.open({ path: `/some/proxy/app/${server.key}?protocol=7` });
  assert.equal((await new Raw({ path: '/nowhere' }).closed()).code, 4005);
});

test('malformed messages are answered with pusher:error without a code, and the connection stays', async () => {
  const raw = await Raw.open();
  const bad = [
    '["pusher:ping",null,null]',
    '{"event":',
    'hello',
    '[]',
    '{"data":{}}',
    '{"event":7}',
    '{"event":"pusher:subscribe"}',
    '{"event":"pusher:subscribe","data":{}}',
    '{"event":"pusher:no-such-thing","data":{}}',
  ];
  for (const text of bad) {
    raw.send(text);
    const { data } = await raw.next('pusher:error');
    assert.equal(data.code, null, `code for ${text}`);
    assert.ok(data.message.length > 0, `message for ${text}`);
  }
  await raw.subscribe(fresh('public'));
  assertDataRule(raw.frames);
});

test('who sends nothing but rubbish is closed with 4009 in the end', async () => {
  const raw = await Raw.open();
  for (let n = 0; n < 60; n += 1) raw.send('rubbish');
  assert.equal((await raw.closed()).code, 4009);
});

test('a binary frame closes the connection with 1003', async () => {
  const raw = await Raw.open();
  raw.socket.send(Buffer.from([1, 2, 3]));
  assert.equal((await raw.closed()).code, 1003);
});

test('a message beyond the limit closes the connection with 1009', async () => {
  const raw = await Raw.open();
  raw.send('x'.repeat(1024 * 1024));
  assert.equal((await raw.closed()).code, 1009);
});

test('pings are answered in kind, with or without data', async () => {
  const raw = await Raw.open();
  raw.send({ event: 'pusher:ping', data: {} });
  assert.deepEqual(await raw.next('pusher:pong'), { event: 'pusher:pong', data: '{}' });
  raw.send({ event: 'pusher:ping' });
  assert.deepEqual(await raw.next('pusher:pong'), { event: 'pusher:pong', data: '{}' });
  for (let n = 0; n < 50; n += 1) raw.socket.ping();
  await until('fifty control pings are answered', () => raw.pongs === 50, { shown: () => raw.pongs });
  raw.send({ event: 'pusher:pong', data: {} });
  await raw.ping();
});

test('subscribing answers with empty data, and a second time just the same', async () => {
  const raw = await Raw.open();
  const name = fresh('public');
  const success = { event: 'pusher_internal:subscription_succeeded', channel: name, data: '{}' };
  raw.send({ event: 'pusher:subscribe', data: { channel: name, auth: '' } });
  assert.deepEqual(await raw.next(success.event), success);
  raw.send({ event: 'pusher:subscribe', data: JSON.stringify({ channel: name }) });
  assert.deepEqual(await raw.next(success.event), success);

  await publisher().trigger(name, 'once', 'x');
  await publisher().trigger(name, 'fence', 'x');
  await raw.next('fence');
  assert.equal(raw.frames.filter(({ event }) => event === 'once').length, 1,
    'two subscriptions of one connection are one');
});

test('names outside the alphabet or too long are refused', async () => {
  const raw = await Raw.open();
  for (const name of ['', 'with space', 'a/b', 'x'.repeat(201), 'ümlaut', '#private']) {
    raw.send({ event: 'pusher:subscribe', data: { channel: name } });
  }
  await raw.ping();
  assert.deepEqual(raw.frames.filter(({ event }) => event.includes('succeeded')), []);
  await raw.subscribe('x'.repeat(200));
  await raw.subscribe(`${fresh('ok')}_-=@,.;`);
  assertDataRule(raw.frames);
});

test('a bad signature is told twice over and never answered with the right one', async () => {
  const raw = await Raw.open();
  const other = await Raw.open();
  const name = fresh('private-vault');
  const right = raw.subscription(name).auth;
  const wrong = {
    'no signature': { channel: name },
    'an empty one': { channel: name, auth: '' },
    'one without a key': { channel: name, auth: right.split(':')[1] },
    'one with another key': { channel: name, auth: `other-key:${right.split(':')[1]}` },
    'one with another secret': raw.subscription(name, undefined, { secret: 'guess' }),
    'one for another connection': other.subscription(name),
    'one for another channel': { channel: name, auth: raw.subscription(fresh('private-a')).auth },
    'one cut short': { channel: name, auth: right.slice(0, -1) },
  };
  for (const [what, data] of Object.entries(wrong)) {
    raw.send({ event: 'pusher:subscribe', data });
    const first = await raw.next('pusher:subscription_error');
    const second = await raw.next('pusher_internal:subscription_error');
    assert.equal(first.channel, name, what);
    assert.equal(second.channel, name, what);
    assert.equal(second.data, first.data, what);
    const { type, status, error } = JSON.parse(first.data);
    assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 }, what);
    assert.ok(!error.includes(right.split(':')[1]), `${what}: the answer gives the signature away`);
  }
  await raw.subscribe(name);
  assertDataRule(raw.frames);
});

test('presence answers with the whole roster and turns numeric ids into strings', async () => {
  const name = fresh('presence-list');
  const first = await Raw.open();
  await first.subscribe(name, member('anna', { age: 40 }));
  const second = await Raw.open();
  const success = await second.subscribe(name, { user_id: 10 });
  const { presence } = JSON.parse(success.data);
  assert.deepEqual({ ...presence, ids: [...presence.ids].sort() },
    { ids: ['10', 'anna'], hash: { anna: { age: 40 }, 10: null }, count: 2 });

  const added = await first.next('pusher_internal:member_added');
  assert.equal(added.channel, name);
  assert.equal(JSON.parse(added.data).user_id, '10');
  second.socket.terminate();
  const removed = await first.next('pusher_internal:member_removed');
  assert.deepEqual([removed.channel, JSON.parse(removed.data)], [name, { user_id: '10' }]);
  assertDataRule([...first.frames, ...second.frames]);
});

test('a presence channel needs a member', async () => {
  const raw = await Raw.open();
  const name = fresh('presence-nobody');
  const { auth } = raw.subscription(name);
  raw.send({ event: 'pusher:subscribe', data: { channel: name, auth } });
  const refused = await raw.next('pusher:subscription_error');
  assert.equal(refused.channel, name);
  assert.equal(raw.frames.some(({ event }) => event.includes('succeeded')), false);
});

test('client events are relayed with string data and nothing the sender slipped in', async () => {
  const name = fresh('presence-talk');
  const speaker = await Raw.open();
  const listener = await Raw.open();
  await speaker.subscribe(name, member('speaker'));
  await listener.subscribe(name, member('listener'));

  speaker.send({ event: 'client-a', channel: name, data: { x: 1 }, user_id: 'boss', extra: true });
  assert.deepEqual(await listener.next('client-a'),
    { event: 'client-a', channel: name, data: '{"x":1}', user_id: 'speaker' });
  speaker.send({ event: 'client-b', channel: name, data: 'as it is "quoted"' });
  assert.deepEqual(await listener.next('client-b'),
    { event: 'client-b', channel: name, data: 'as it is "quoted"', user_id: 'speaker' });
  assertDataRule([...speaker.frames, ...listener.frames]);
});

test('only subscribers may send client events, and nobody may forge the server\'s own', async () => {
  const name = fresh('private-talk');
  const outsider = await Raw.open();
  const listener = await Raw.open();
  await listener.subscribe(name);

  const forged = ['client-a', 'pusher_internal:member_added', 'pusher_internal:client-a', 'news',
    'pusher:error'];
  for (const event of forged) {
    outsider.send({ event, channel: name, data: {} });
    assert.equal((await outsider.next('pusher:error')).data.code, null, event);
  }
  await outsider.subscribe(name);
  for (const event of forged.slice(1)) {
    outsider.send({ event, channel: name, data: {} });
    assert.equal((await outsider.next('pusher:error')).data.code, null, event);
  }
  outsider.send({ event: 'client-last', channel: name, data: {} });
  await listener.next('client-last');
  assert.deepEqual(listener.frames.slice(2).map(({ event }) => event), ['client-last']);
});

test('more than ten client events in a second are refused with 4301 and the connection stays', async () => {
  const name = fresh('private-flood');
  const speaker = await Raw.open();
  const listener = await Raw.open();
  await speaker.subscribe(name);
  await listener.subscribe(name);
  const sent = 60;
  for (let n = 0; n < sent; n += 1) {
    speaker.send({ event: 'client-n', channel: name, data: String(n) });
  }
  await speaker.ping();
  const refused = speaker.frames.filter(({ event }) => event === 'pusher:error');
  assert.ok(refused.length >= 20, `only ${refused.length} of ${sent} were refused`);
  for (const { data } of refused) assert.equal(data.code, 4301);
  const relayed = () => listener.frames.filter(({ event }) => event === 'client-n');
  await until('the rest arrives', () => relayed().length === sent - refused.length,
    { shown: () => [relayed().length, refused.length] });
  assert.ok(relayed().length >= 10, 'the first ten are within the limit');
});

test('no event of a channel comes before its subscription succeeded', async () => {
  const name = fresh('busy');
  let publishing = true;
  const sdk = publisher();
  const feed = (async () => {
    for (let n = 0; publishing; n += 1) await sdk.trigger(name, 'n', String(n));
  })();
  try {
    for (let round = 0; round < 30; round += 1) {
      const raw = await Raw.open();
      raw.send({ event: 'pusher:subscribe', data: { channel: name } });
      await raw.next('n');
      const order = raw.frames.filter((frame) => frame.channel === name).map(({ event }) => event);
      assert.equal(order[0], 'pusher_internal:subscription_succeeded', `round ${round}`);
      const numbers = raw.frames.filter(({ event }) => event === 'n').map(({ data }) => Number(data));
      numbers.forEach((n, i) => assert.equal(n, numbers[0] + i, 'no gap after success'));
      raw.socket.terminate();
    }
  } finally {
    publishing = false;
    await feed;
  }
});
