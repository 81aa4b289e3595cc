// The `pusher` server SDK for Node.

import Pusher from 'pusher';
import { publisher, refusal, server } from '../support.mjs';
import { masterKey } from './backend.mjs';

export const title = 'pusher 5.3.4, Node';
export const lacks = {};

const json = async (response) => (await response).json();

export function open() {
  const sdk = publisher();
  const read = (path, params) => json(sdk.get({ path, params }));
  return {
    trigger: (channels, event, data, params) => json(sdk.trigger(channels, event, data, params)),
    batch: (events) => json(sdk.triggerBatch(events)),
    channels: (prefix) => read('/channels', { filter_by_prefix: prefix, info: 'user_count' }),
    channel: (name) => read(`/channels/${name}`, { info: 'user_count' }),
    users: (name) => read(`/channels/${name}/users`),
    toUser: (id, event, data) => json(sdk.sendToUser(id, event, data)),
    terminate: (id) => json(sdk.terminateUserConnections(id)),
    statusOf: async (...event) => (await refusal(sdk.trigger(...event))).status,
    statusWithSecret: async (secret) =>
      (await refusal(publisher({ secret }).trigger('any', 'news', {}))).status,
    encrypted: (...event) =>
      json(publisher({ encryptionMasterKeyBase64: masterKey }).trigger(...event)),
    authorize: (...asked) => sdk.authorizeChannel(...asked),
    authenticate: (...asked) => sdk.authenticateUser(...asked),
    webhook({ headers, body }) {
      const hook = new Pusher(server).webhook({ headers, rawBody: body });
      return hook.isValid() ? hook.getEvents() : null;
    },
    close() {},
  };
}
