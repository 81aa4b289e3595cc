// What the mock said of itself when it was ready, for the programs here.

const ready = JSON.parse(process.env.MOCK ?? '{}');

export const mock = { ...ready, url: new URL(ready.urls[0]) };
