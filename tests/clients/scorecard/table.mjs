// Runs rows against columns, one test for each cell, and keeps what came of it for the page.

import { test } from 'node:test';
import { server, until } from '../support.mjs';

/** `cells[row id][column index]`: 'yes', 'no' or why the library has no such thing. */
export function score(name, rows, columns, cellOf) {
  const cells = Object.fromEntries(rows.map(({ id }) => [id, []]));
  for (const [index, column] of columns.entries()) {
    for (const row of rows) {
      const lack = column.lacks[row.id];
      if (lack) {
        cells[row.id][index] = lack;
        continue;
      }
      test(`${name}: ${column.title}: ${row.title}`, async () => {
        cells[row.id][index] = 'no';
        await cellOf(row, column);
        cells[row.id][index] = 'yes';
      });
    }
  }
  return cells;
}

/** Runs one row of the client table with clients of one library. */
export async function withClients(row, column) {
  const opened = [];
  const open = async ({ unconnected, ...options } = {}) => {
    const client = await column.open({ key: server.key, ...options });
    opened.push(client);
    if (!unconnected) {
      await until(`${column.title} is connected`, async () => (await client.state()).connected,
        { shown: () => client.state() });
    }
    return client;
  };
  try {
    await row.run(open, column);
  } finally {
    for (const client of opened) await client.close();
  }
}

const marks = { yes: '✓', no: '✗' };

/** The table as Markdown, with the reasons for what a library does not have below it. */
export function markdown(first, rows, columns, cells) {
  const notes = [];
  const mark = (cell) => {
    if (marks[cell]) return marks[cell];
    if (!notes.includes(cell)) notes.push(cell);
    return `– ${notes.indexOf(cell) + 1}`;
  };
  const lines = [
    `| ${first} | ${columns.map(({ title }) => title).join(' | ')} |`,
    `|---|${columns.map(() => ':-:').join('|')}|`,
    ...rows.map(({ id, title }) => `| ${title} | ${columns
      .map((_, index) => mark(cells[id][index])).join(' | ')} |`),
  ];
  const foot = notes.map((note, index) => `${index + 1}. ${note}.`);
  return [...lines, '', ...foot].join('\n');
}
