// How files are replaced: what is at a path stays what it is (a link, a FIFO, a device, a mode), files are whole or not there,
// and nobody's temporary file is another's.

import { afterAll, describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isSystemError, replaceFile, replaceFileNow } from "../src/files.ts";

const root = mkdtempSync(join(tmpdir(), "tinyai-files-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const source = JSON.stringify(join(import.meta.dir, "../src/files.ts"));
const writers = [
  ["replaceFile", (path: string, text: string) => replaceFile(path, (append) => append(Buffer.from(text)))],
  ["replaceFileNow", async (path: string, text: string) => replaceFileNow(path, text)],
] as const;

let folders = 0;
/** A folder of a test's own. */
function freshFolder(): string {
  const folder = join(root, String(++folders));
  mkdirSync(folder);
  return folder;
}

function reason(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe.each(writers)("%s", (name, replace) => {
  test("makes a file, replaces it, and leaves nothing else", async () => {
    const folder = freshFolder();
    const path = join(folder, "a.txt");
    for (const text of ["first", "second and longer", "", "é"]) {
      await replace(path, text);
      expect(readFileSync(path, "utf8")).toBe(text);
    }
    expect(readdirSync(folder)).toEqual(["a.txt"]);
  });

  test("replaces another file, so that who has the old one open reads it to its end", async () => {
    const path = join(freshFolder(), "a.txt");
    writeFileSync(path, "old");
    const before = statSync(path).ino;
    await replace(path, "new");
    expect(statSync(path).ino).not.toBe(before);
  });

  test("keeps the mode of a file that is there", async () => {
    const path = join(freshFolder(), "a.txt");
    writeFileSync(path, "old");
    for (const mode of [0o600, 0o640, 0o666, 0o444, 0o755]) {
      chmodSync(path, mode);
      await replace(path, `of mode ${mode}`);
      expect(statSync(path).mode & 0o777).toBe(mode);
      expect(readFileSync(path, "utf8")).toBe(`of mode ${mode}`);
    }
  });

  test("replaces the file behind links, relative to where each link is, and keeps the links and the mode", async () => {
    const folder = freshFolder();
    mkdirSync(join(folder, "deep"));
    mkdirSync(join(folder, "deep/real"));
    writeFileSync(join(folder, "deep/file"), "old", { mode: 0o600 });
    symlinkSync("../file", join(folder, "deep/real/second"));
    symlinkSync("deep/real", join(folder, "way"));
    symlinkSync("way/second", join(folder, "first"));
    await replace(join(folder, "first"), "new");
    for (const link of ["first", "deep/real/second"]) {
      expect(lstatSync(join(folder, link)).isSymbolicLink()).toBe(true);
    }
    expect(lstatSync(join(folder, "deep/file")).isFile()).toBe(true);
    expect(statSync(join(folder, "deep/file")).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(folder, "deep/file"), "utf8")).toBe("new");
    expect(readdirSync(folder).sort()).toEqual(["deep", "first", "way"]);
    expect(readdirSync(join(folder, "deep")).sort()).toEqual(["file", "real"]);
  });

  test("makes the file to which a dangling link leads", async () => {
    const folder = freshFolder();
    mkdirSync(join(folder, "there"));
    symlinkSync("there/file", join(folder, "relative"));
    symlinkSync(join(folder, "there/other"), join(folder, "absolute"));
    await replace(join(folder, "relative"), "one");
    await replace(join(folder, "absolute"), "two");
    expect(readFileSync(join(folder, "there/file"), "utf8")).toBe("one");
    expect(readFileSync(join(folder, "there/other"), "utf8")).toBe("two");
    expect(lstatSync(join(folder, "relative")).isSymbolicLink()).toBe(true);
    expect(lstatSync(join(folder, "absolute")).isSymbolicLink()).toBe(true);
    symlinkSync("missing/file", join(folder, "nowhere"));
    expect(await reason(replace(join(folder, "nowhere"), "three"))).toMatchObject({ code: "ENOENT" });
    symlinkSync("circle", join(folder, "circle"));
    expect(await reason(replace(join(folder, "circle"), "four"))).toMatchObject({ code: "ELOOP" });
  });

  test("writes into a FIFO, also through a link", async () => {
    const folder = freshFolder();
    const fifo = join(folder, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    symlinkSync("fifo", join(folder, "link"));
    const text = "line\n".repeat(50_000); // More than a FIFO holds.
    for (const path of [fifo, join(folder, "link")]) {
      const reader = Bun.spawn(["cat", fifo], { stdout: "pipe" });
      const [read] = await Promise.all([reader.stdout.text(), writeInChild(name, path, text)]);
      expect(read === text).toBe(true);
    }
    expect(lstatSync(fifo).isFIFO()).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(["fifo", "link"]);
  });

  test("writes into a device", async () => {
    const link = join(freshFolder(), "null");
    symlinkSync("/dev/null", link);
    await replace(link, "gone");
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(statSync(link).isCharacterDevice()).toBe(true);
  });

  test.each(["stdout", "stderr"] as const)(
    "writes into this process's %s, be it a socket, a pipe or a file",
    async (stream) => {
      const folder = freshFolder();
      const link = join(folder, "link"); // Should it be replaced after all, the system's own link is safe.
      symlinkSync(`/dev/${stream}`, link);
      const script = `
      import { ${name} } from ${source};
      const text = "between\\n".repeat(50_000);
      process.${stream}.write("before\\n");
      await ${call(name, link, "text", true)};
      process.${stream}.write("after\\n");`;
      const expected = `before\n${"between\n".repeat(50_000)}after\n`;
      const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
      expect((await child[stream].text()) === expected).toBe(true);
      const output = join(folder, "output");
      const piped = `"$0" -e "$1" ${stream === "stdout" ? "" : "2>&1"} | cat`;
      const shown = Bun.spawn(["sh", "-c", piped, process.execPath, script], { stdout: "pipe" });
      expect((await shown.stdout.text()) === expected).toBe(true);
      const shell = `"$0" -e "$1" ${stream === "stdout" ? ">" : "2>"} "$2"`;
      expect(await Bun.spawn(["sh", "-c", shell, process.execPath, script, output]).exited).toBe(0);
      expect(readFileSync(output, "utf8") === expected).toBe(true);
      expect(lstatSync(link).isSymbolicLink()).toBe(true);
      expect(readdirSync(folder).sort()).toEqual(["link", "output"]);
    },
  );

  test("refuses a folder, a missing folder and no name with the system's error, and leaves nothing", async () => {
    const folder = freshFolder();
    const file = join(folder, "file");
    mkdirSync(join(folder, "sub"));
    writeFileSync(file, "old");
    for (const path of [join(folder, "sub"), `${folder}/sub/`, join(folder, "no/a"), `${folder}/new/`, `${file}/`]) {
      const error = await reason(replace(path, "text"));
      expect(isSystemError(error)).toBe(true);
    }
    expect(readdirSync(folder).sort()).toEqual(["file", "sub"]);
    expect(readdirSync(join(folder, "sub"))).toEqual([]);
    expect(readFileSync(file, "utf8")).toBe("old");
  });

  test("takes the longest name that a file may have", async () => {
    const folder = freshFolder();
    const longest = "n".repeat(255);
    await replace(join(folder, longest), "text");
    expect(readdirSync(folder)).toEqual([longest]);
    expect(await reason(replace(join(folder, `${longest}n`), "text"))).toMatchObject({ code: "ENAMETOOLONG" });
    expect(readdirSync(folder)).toEqual([longest]);
  });

  test("tries another name when a temporary file is there, and touches no other's", async () => {
    const folder = freshFolder();
    const [taken, free] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"] as const;
    const random = spyOn(crypto, "randomUUID").mockReturnValue(taken);
    try {
      const left = join(folder, "tinyai-000000000001.tmp");
      writeFileSync(left, "another's");
      expect(await reason(replace(join(folder, "a"), "text"))).toMatchObject({ code: "EEXIST" });
      expect(readFileSync(left, "utf8")).toBe("another's");
      random.mockReturnValue(free).mockReturnValueOnce(taken).mockReturnValueOnce(taken);
      await replace(join(folder, "a"), "text");
      expect(readFileSync(join(folder, "a"), "utf8")).toBe("text");
      expect(readFileSync(left, "utf8")).toBe("another's");
      expect(readdirSync(folder).sort()).toEqual(["a", "tinyai-000000000001.tmp"]);
    } finally {
      random.mockRestore();
    }
  });

  test("lets two Workers write one path at once, of which one wins each time", async () => {
    const folder = freshFolder();
    const path = join(folder, "common");
    const worker = join(folder, "worker.ts");
    writeFileSync(
      worker,
      `import { ${name} } from ${source};
      self.onmessage = async ({ data }) => {
        try {
          for (let round = 0; round < 50; round++) await ${call(name, path, "data", true)};
          postMessage("done");
        } catch (error) {
          postMessage(String(error));
        }
      };`,
    );
    const texts = ["a".repeat(10_000), "b".repeat(20_000)];
    const answers = await Promise.all(texts.map((text) => answer(worker, text)));
    expect(answers).toEqual(["done", "done"]);
    expect(texts.includes(readFileSync(path, "utf8"))).toBe(true);
    expect(readdirSync(folder).sort()).toEqual(["common", "worker.ts"]);
  });
});

describe("replaceFile", () => {
  test("leaves nothing of files that are not whole when the process ends, and the old ones as they were", async () => {
    const folder = freshFolder();
    const [path, whole] = [join(folder, "a.txt"), join(folder, "whole.txt")];
    writeFileSync(path, "old");
    const script = `
      import { replaceFile } from ${source};
      const other = replaceFile(${JSON.stringify(join(folder, "b.txt"))}, () => new Promise(() => {}));
      await replaceFile(${JSON.stringify(whole)}, (append) => append(Buffer.from("whole")));
      await replaceFile(${JSON.stringify(path)}, async (append) => {
        await append(Buffer.from("new"));
        process.exit(7);
      });`;
    expect(await Bun.spawn([process.execPath, "-e", script]).exited).toBe(7);
    expect(readdirSync(folder).sort()).toEqual(["a.txt", "whole.txt"]);
    expect([path, whole].map((each) => readFileSync(each, "utf8"))).toEqual(["old", "whole"]);
  });

  test("throws what its callback throws, and the file that was there stays", async () => {
    const folder = freshFolder();
    const path = join(folder, "a");
    writeFileSync(path, "old");
    const stopped = new Error("stopped");
    const half = async (append: (bytes: Uint8Array) => Promise<void>) => {
      await append(Buffer.from("half"));
      throw stopped;
    };
    expect(await reason(replaceFile(path, half))).toBe(stopped);
    expect(await reason(replaceFile(join(folder, "new"), half))).toBe(stopped);
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder)).toEqual(["a"]);
  });

  test("has the first error thrown when cleaning up fails too", async () => {
    const folder = freshFolder();
    const stopped = new Error("stopped");
    const error = await reason(
      replaceFile(join(folder, "a"), async () => {
        rmSync(folder, { recursive: true });
        writeFileSync(folder, "no folder any more");
        throw stopped;
      }),
    );
    expect(error).toBe(stopped);
  });

  test("shows nothing under the path until all is written", async () => {
    const path = join(freshFolder(), "a");
    await replaceFile(path, async (append) => {
      await append(Buffer.from("one "));
      expect(existsSync(path)).toBe(false);
      await append(Buffer.from("two"));
      expect(existsSync(path)).toBe(false);
    });
    expect(readFileSync(path, "utf8")).toBe("one two");
  });

  test("gives a new file the mode that is asked for", async () => {
    const path = join(freshFolder(), "a");
    await replaceFile(path, (append) => append(Buffer.from("secret")), 0o600);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("does not hold the event loop while it waits for a FIFO's reader", async () => {
    const fifo = join(freshFolder(), "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    const written = replaceFile(fifo, (append) => append(Buffer.from("text")));
    // The reader is started by this thread: it would never come.
    const reader = Bun.spawn(["cat", fifo], { stdout: "pipe" });
    expect(await reader.stdout.text()).toBe("text");
    await written;
  });
});

/** The source of a call of a writer; `text` is the text itself or, if it is a variable, its name. */
function call(name: string, path: string, text: string, isVariable = false): string {
  const argument = isVariable ? text : JSON.stringify(text);
  const place = JSON.stringify(path);
  return name === "replaceFile"
    ? `replaceFile(${place}, (append) => append(Buffer.from(${argument})))`
    : `replaceFileNow(${place}, ${argument})`;
}

/** Writes in a process of its own, since opening a FIFO may hold the thread. */
async function writeInChild(name: string, path: string, text: string): Promise<void> {
  const script = `import { ${name} } from ${source}; const text = await Bun.stdin.text(); await ${call(name, path, "text", true)};`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdin: Buffer.from(text), stdout: "ignore" });
  expect(await child.exited).toBe(0);
}

/** What a Worker answers when it is given `text`. */
function answer(script: string, text: string): Promise<unknown> {
  const worker = new Worker(script);
  return new Promise((resolve) => {
    worker.onmessage = ({ data }: MessageEvent) => resolve(data);
    worker.onerror = ({ message }) => resolve(message);
    worker.postMessage(text);
  }).finally(() => worker.terminate());
}
