// Laravel Echo over pusher-js.

import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import { addOn, options, sign } from './backend.mjs';

const throughPusher = 'Echo has no call for it; the pusher-js object in it has';

export const title = 'Laravel Echo 2.5.0';
export const lacks = {
  sign_in: throughPusher,
  user_event: throughPusher,
  watchlist: throughPusher,
  terminate: throughPusher,
  counts: throughPusher,
  cache_miss: throughPusher,
};

/** Echo adds the prefixes itself. */
function split(name) {
  const known = [['private-encrypted-', 'encryptedPrivate'], ['private-', 'private'], ['presence-', 'join']];
  const found = known.find(([prefix]) => name.startsWith(prefix));
  return found ? [found[1], name.slice(found[0].length)] : ['channel', name];
}

export async function open({ key, user, secret, recover, ...rest }) {
  const events = new Map();
  const echo = new Echo({
    broadcaster: 'pusher',
    Pusher,
    key,
    ...options(rest),
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => {
        sign({ user, secret }, 'channel', socketId, channelName).then((auth) => done(null, auth), done);
      },
    },
  });
  const { pusher } = echo.connector;
  if (recover) addOn(pusher);
  const seen = { pongs: 0, codes: [] };
  pusher.connection.bind('message', ({ event }) => { seen.pongs += event === 'pusher:pong' ? 1 : 0; });
  pusher.connection.bind('error', (error) => seen.codes.push(error?.data?.code ?? error?.error?.data?.code));
  return {
    join(name) {
      const heard = [];
      events.set(name, heard);
      const [method, bare] = split(name);
      const channel = echo[method](bare);
      // Echo writes `.name` where it has not put a namespace in front, and tells whispers as events.
      channel.listenToAll((event, data) => heard.push([event.replace(/^\./, ''), data]));
      return new Promise((answer) => {
        channel.error((error) => answer({ ok: false, ...error }));
        if (method === 'join') {
          channel.here((users) => answer({
            ok: true, members: Object.fromEntries(users.map((one) => [one.id, one])), me: user.user_id,
          }));
          channel.joining((one) => heard.push(['pusher:member_added', { id: one.id, info: one }]));
          channel.leaving((one) => heard.push(['pusher:member_removed', { id: one.id, info: one }]));
        } else {
          channel.subscribed(() => answer({ ok: true }));
        }
      });
    },
    heard: (name) => events.get(name) ?? [],
    say: (name, event, data) => {
      const [method, bare] = split(name);
      return echo[method](bare).whisper(event.replace(/^client-/, ''), data);
    },
    leave: (name) => echo.leaveChannel(name),
    state: () => ({
      connected: echo.connectionStatus() === 'connected',
      stopped: echo.connectionStatus() === 'disconnected',
      socketId: echo.socketId(),
      transport: pusher.connection.connection?.transport?.name,
      ...seen,
    }),
    close: () => echo.disconnect(),
  };
}
