// Microsoft's SDKs, unmodified, against `lineman mock azure`: hubs by their connection string, and Key
// Vault with tokens of Entra ID. The vault's name is not one of vault.azure.net, which the client is
// told not to mind; the libraries are told not to ask Microsoft whether there is such a cloud.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientSecretCredential, ManagedIdentityCredential } from '@azure/identity';
import { SecretClient } from '@azure/keyvault-secrets';
import * as hubs from '@azure/notification-hubs';
import { mock } from './mock.mjs';

const hub = new hubs.NotificationHubsClient(mock.connection_string, mock.hub, {
  retryOptions: { maxRetries: 1, retryDelayInMs: 10 },
});
const apple = () => hubs.createAppleNotification({
  body: JSON.stringify({ aps: { alert: 'hello' } }),
  headers: { 'apns-priority': '10', 'apns-push-type': 'alert' },
});
const options = { enableTestSend: false };
const status = (promise) => promise.then(() => 'sent', (error) => error.statusCode);

test('a notification is taken, for one device, for many, and for a tag', async () => {
  const one = await hub.sendNotification(apple(), { ...options, deviceHandle: 'aa' });
  assert.ok(one.trackingId && one.correlationId && one.location);
  const many = await hub.sendBroadcastNotification(apple(), options);
  assert.equal(many.state, 'Enqueued');
  await hub.sendNotification(apple(), { ...options, deviceHandle: ['aa', 'bb', 'cc'] });
  await hub.sendNotification(apple(), { ...options, tagExpression: 'a && b' });
});

test('refusals come with their status', async () => {
  const at = (deviceHandle) => status(hub.sendNotification(apple(), { ...options, deviceHandle }));
  assert.equal(await at('full'), 403);
  const other = mock.connection_string.replace(/SharedAccessKey=.*/, 'SharedAccessKey=YWJjZA==');
  const stranger = new hubs.NotificationHubsClient(other, mock.hub);
  assert.equal(await status(stranger.sendNotification(apple(), { ...options, deviceHandle: 'aa' })), 401);
});

test('an installation is kept', async () => {
  const installation = hubs.createAppleInstallation({ installationId: 'i1', pushChannel: 'aa' });
  await hub.createOrUpdateInstallation(installation);
  assert.equal((await hub.getInstallation('i1')).pushChannel, 'aa');
  await hub.deleteInstallation('i1');
});

const credential = new ClientSecretCredential(mock.tenant, 'client', 'secret', {
  authorityHost: mock.url.origin, disableInstanceDiscovery: true,
});
const vault = (credential) =>
  new SecretClient(mock.url.origin, credential, { disableChallengeResourceVerification: true });

test('a secret is read with a token of Entra ID', async () => {
  const secret = await vault(credential).getSecret('push-token-key');
  assert.equal(Buffer.from(secret.value, 'base64').length, 32);
  assert.match(secret.properties.version, /^[0-9a-f]{32}$/);
  const missing = vault(credential).getSecret('none');
  await assert.rejects(missing, { code: 'SecretNotFound', statusCode: 404 });
});

test('and with one of the instance metadata service', async () => {
  process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST = mock.url.origin;
  const secret = await vault(new ManagedIdentityCredential()).getSecret('push-token-key');
  assert.ok(secret.value);
});
