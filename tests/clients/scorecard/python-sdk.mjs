// The `pusher` server SDK for Python, in a process of its own.

import { server } from '../support.mjs';
import { masterKey } from './backend.mjs';
import { python } from './child.mjs';

export const title = 'pusher 3.3.4, Python';
export const lacks = { info: 'The Python SDK cannot ask for it' };

const calls = ['trigger', 'batch', 'channels', 'channel', 'users', 'toUser', 'terminate', 'statusOf',
  'statusWithSecret', 'encrypted', 'authorize', 'authenticate'];

export function open() {
  const { host, port, key, secret, appId } = server;
  const sdk = python('python_sdk_driver.py', {
    host, port, key, secret, app_id: appId, master_key: masterKey,
  });
  return {
    ...Object.fromEntries(calls.map((call) => [call, (...given) => sdk.ask(call, ...given)])),
    webhook: ({ headers, body }) => sdk.ask('webhook', headers, body),
    close: sdk.close,
  };
}
