// One pusher-js client as the scorecard drives it. Imports nothing, so that it runs in Node and, as
// it is, in a page. `Pusher` is the library, `addOn` what is to be called with the client, if anything;
// `sign` stands for the customer's backend.

export function drive(Pusher, key, options, sign, signIn, addOn) {
  const events = new Map();
  const seen = { pongs: 0, codes: [], user: [], watch: [] };
  const pusher = new Pusher(key, {
    ...options,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => {
        sign('channel', socketId, channelName).then((auth) => done(null, auth), done);
      },
    },
    userAuthentication: {
      customHandler: ({ socketId }, done) => {
        sign('user', socketId, signIn).then((auth) => done(null, auth), done);
      },
    },
  });
  addOn?.(pusher);
  pusher.connection.bind('pong', () => { seen.pongs += 1; });
  pusher.connection.bind('message', ({ event }) => { seen.pongs += event === 'pusher:pong' ? 1 : 0; });
  pusher.connection.bind('error', (error) => seen.codes.push(error?.data?.code ?? error?.error?.data?.code));
  if (signIn) {
    pusher.signin();
    pusher.user.bind_global((event, data) => seen.user.push([event, data]));
    for (const name of ['online', 'offline']) {
      pusher.user.watchlist.bind(name, ({ user_ids: ids }) => seen.watch.push([name, ids]));
    }
  }
  return {
    join(name) {
      const heard = [];
      events.set(name, heard);
      const channel = pusher.subscribe(name);
      channel.bind_global((event, data, meta) => {
        // `members` is a live object of the library; the scorecard asks for it below.
        if (event !== 'pusher:subscription_succeeded') heard.push([event, data, meta?.user_id]);
      });
      return new Promise((answer) => {
        channel.bind('pusher:subscription_succeeded', () =>
          answer({ ok: true, members: channel.members?.members, me: channel.members?.me?.id }));
        channel.bind('pusher:subscription_error', (error) => answer({ ok: false, ...error }));
      });
    },
    heard: (name) => events.get(name) ?? [],
    say: (name, event, data) => pusher.channel(name).trigger(event, data),
    leave: (name) => pusher.unsubscribe(name),
    state: () => ({
      connected: pusher.connection.state === 'connected',
      stopped: pusher.connection.state === 'disconnected',
      socketId: pusher.connection.socket_id,
      signedIn: Boolean(pusher.user?.user_data),
      transport: pusher.connection.connection?.transport?.name,
      ...seen,
    }),
    close: () => pusher.disconnect(),
  };
}
