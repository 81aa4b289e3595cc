// Pysher, the client library for Python, in a process of its own.

import { server, until } from '../support.mjs';
import { parse } from './backend.mjs';
import { python } from './child.mjs';

export const title = 'Pysher 1.0.8';
export const lacks = {
  encrypted: 'Pysher cannot decrypt',
  counts: 'Pysher has no call for it',
  sign_in: 'Pysher has no sign-in',
  user_event: 'Pysher has no sign-in',
  watchlist: 'Pysher has no sign-in',
  terminate: 'Pysher has no sign-in',
  streaming: 'The SDK knows WebSocket only',
  polling: 'The SDK knows WebSocket only',
  recovery: 'The add-on is for pusher-js',
  unknown_app: 'Pysher reads no close codes',
};

/** It sends one when it connects, and its scheduler sleeps for half a minute before the next. */
export const heartbeats = 1;

/** As the others tell it: parsed, and without the wire's prefix. */
function told([event, data]) {
  const parsed = parse(data);
  if (!event.startsWith('pusher_internal:member')) return [event, parsed];
  return [event.replace('pusher_internal', 'pusher'), { id: parsed.user_id, info: parsed.user_info }];
}

export async function open({ key, user, secret = server.secret, port = server.port, activityTimeout }) {
  const { ask, close } = python('pysher_driver.py', {
    key, host: server.host, port, secret, user: user ?? null, ping_seconds: (activityTimeout ?? 120_000) / 1000,
  });
  const all = async (name) => (await ask('heard', name)).map(told);
  return {
    async join(name) {
      await until('Pysher is connected', async () => (await ask('state')).connected);
      await ask('join', name);
      const answer = await until(`an answer to joining ${name}`, async () => (await all(name))
        .find(([event]) => event.includes('subscription_')));
      if (answer[0] === 'pusher:subscription_error') return { ok: false, ...answer[1] };
      return { ok: true, members: answer[1].presence?.hash, me: user?.user_id };
    },
    heard: async (name) => (await all(name)).filter(([event]) => !event.includes('subscription_')),
    say: (name, event, data) => ask('say', name, event, data),
    leave: (name) => ask('leave', name),
    state: () => ask('state'),
    close,
  };
}
