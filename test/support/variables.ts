// Environment variables that tests change.

import { afterAll } from "bun:test";

/** Lets tests change these variables: once the file's tests are done, or those of the `describe` it is called in, they are as now. */
export function keepVariables(...names: readonly string[]): void {
  const before = names.map((name) => [name, process.env[name]] as const);
  afterAll(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
}
