// @parse/node-apn on one connection: PORT DIR COUNT STREAMS KEY_ID TEAM_ID TOPIC, see ../peers.rs.

import { readFileSync } from 'node:fs';
import apn from '@parse/node-apn';

const [port, folder, count, streams, keyId, teamId, topic] = process.argv.slice(2)
  .map((word, at) => ([0, 2, 3].includes(at) ? Number(word) : word));
const provider = new apn.Provider({
  token: { key: `${folder}/key.p8`, keyId, teamId },
  address: 'localhost', port, ca: readFileSync(`${folder}/ca.pem`),
  manageChannelsAddress: 'localhost', manageChannelsPort: port, production: false,
});
const warm = streams * 2;

async function send(nth) {
  const note = new apn.Notification();
  note.alert = { title: `Order ${nth}`, body: 'Your order is ready to be collected at the counter.' };
  Object.assign(note, { topic, pushType: 'alert', priority: 10 });
  const { failed } = await provider.send(note, nth.toString(16).padStart(64, '0'));
  if (failed.length > 0) throw new Error(JSON.stringify(failed));
}

async function run(from, to) {
  let next = from;
  const work = async () => { while (next < to) { next += 1; await send(next - 1); } };
  await Promise.all(Array.from({ length: streams }, work));
}

await send(0);
await run(1, warm);
const [before, began] = [process.cpuUsage(), process.hrtime.bigint()];
await run(warm, count);
const used = process.cpuUsage(before);
const took = Number(process.hrtime.bigint() - began);
const cpu = (used.user + used.system) * 1000;
console.log(JSON.stringify({ sent: count - warm, warm, cpu, took }));
await provider.shutdown();
