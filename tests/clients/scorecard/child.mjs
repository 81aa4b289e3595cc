// A Python program beside a table's column: commands and answers are lines of JSON.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Starts the program; `ask` sends one command and waits for its answer. */
export function python(program, options) {
  const child = spawn(path('../.venv/bin/python'), [path(program), JSON.stringify(options)],
    { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = [];
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift().answer(JSON.parse(line)));
  child.on('exit', (code) => waiting.forEach(({ fail }) => fail(new Error(`${program} ended with ${code}`))));
  return {
    ask: (...command) => new Promise((answer, fail) => {
      waiting.push({ answer, fail });
      child.stdin.write(`${JSON.stringify(command)}\n`);
    }),
    close: () => child.kill(),
  };
}
