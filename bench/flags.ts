// What benchmarks take from the command line.

/**
 * The whole number that a flag gives; another text ends the program with status 2.
 * @param usage is told as well then.
 */
export function whole(name: string, text: string, minimum: number, maximum: number, usage = ""): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
  const expected = `${minimum} to ${maximum.toLocaleString("en-US")}`;
  console.error(`--${name} is ${text}; a whole number from ${expected} is expected${usage && `\n${usage}`}`);
  process.exit(2);
}
