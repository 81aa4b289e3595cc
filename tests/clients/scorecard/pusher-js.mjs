// pusher-js in Node.

import Pusher from 'pusher-js';
import { addOn, options, sign } from './backend.mjs';
import { drive } from './pusher-js-driver.mjs';

export const title = 'pusher-js 8.6.0, Node';
export const lacks = {};

export async function open({ key, signIn, user, secret, recover, ...rest }) {
  const signer = (...asked) => sign({ user, secret }, ...asked);
  return drive(Pusher, key, options(rest), signer, signIn, recover && addOn);
}
