// A real browser for tests of pages: Chromium without a window, driven over the DevTools protocol. A page of it tells everything
// that went wrong on it and everything that it asked for.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const found = process.platform === "win32" ? null : (Bun.which("chromium") ?? Bun.which("chromium-browser"));

/** Why there is no browser; undefined: there is one. */
export const browserMissing: string | undefined =
  found === null ? "Chromium is not installed (Debian: apt-get install chromium)" : undefined;

const START_MS = 30_000;
const ANSWER_MS = 30_000;

interface Message {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  // biome-ignore lint/suspicious/noExplicitAny: the protocol has hundreds of shapes; what is read of them is checked by use.
  readonly params?: any;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly result?: any;
  readonly error?: { readonly message: string };
}

/** A running browser. `close` ends it, whatever state it is in. */
export class Browser implements AsyncDisposable {
  readonly #process: Bun.Subprocess<"ignore", "ignore", "pipe">;
  readonly #profile: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #listeners = new Map<string, (message: Message) => void>();
  #lastId = 0;

  private constructor(child: Bun.Subprocess<"ignore", "ignore", "pipe">, profile: string, socket: WebSocket) {
    this.#process = child;
    this.#profile = profile;
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const message = JSON.parse(String(data)) as Message;
      if (message.id !== undefined) this.#waiting.get(message.id)?.(message);
      else this.#listeners.get(message.sessionId ?? "")?.(message);
    });
  }

  static async start(): Promise<Browser> {
    if (found === null) throw new Error(`${browserMissing}`);
    const profile = mkdtempSync(join(tmpdir(), "tinyai-browser-"));
    const flags = ["--headless=new", "--remote-debugging-port=0", `--user-data-dir=${profile}`, "--no-first-run"];
    // Without its sandbox it also runs as root; it opens nothing but the tests' own pages.
    flags.push("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking");
    flags.push("--disable-component-update", "--disable-sync", "--disable-default-apps", "--mute-audio");
    const child = Bun.spawn([found, ...flags, "about:blank"], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, DBUS_SESSION_BUS_ADDRESS: "disabled:" },
    });
    try {
      const address = await within(addressOf(child.stderr), START_MS, "the browser's address");
      const socket = new WebSocket(address);
      const opened = new Promise((resolve, reject) => {
        socket.addEventListener("open", resolve);
        socket.addEventListener("error", reject);
      });
      await within(opened, START_MS, "the browser's answer");
      return new Browser(child, profile, socket);
    } catch (error) {
      await end(child, profile);
      throw error;
    }
  }

  /** Opens an address in a tab of its own and waits until it is loaded. */
  async open(url: string, looks: Looks = {}): Promise<BrowserPage> {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new BrowserPage(this, sessionId, targetId);
    await page.load(url, looks);
    return page;
  }

  /** @internal */
  // biome-ignore lint/suspicious/noExplicitAny: as in `Message`.
  async send(method: string, params: object = {}, sessionId?: string): Promise<any> {
    const id = ++this.#lastId;
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    const { result, error } = await within(answer, ANSWER_MS, method).finally(() => this.#waiting.delete(id));
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  /** @internal */
  listen(sessionId: string, listener: (message: Message) => void): void {
    this.#listeners.set(sessionId, listener);
  }

  async close(): Promise<void> {
    this.#socket.close();
    await end(this.#process, this.#profile);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** How a page is seen. */
export interface Looks {
  /** CSS pixels; by default 1,280 × 900. */
  readonly width?: number;
  readonly height?: number;
  /** By default light. */
  readonly scheme?: "light" | "dark";
}

/** A tab. Positions are CSS pixels of the viewport. */
export class BrowserPage {
  /** Exceptions that nobody caught, errors on the console, and what a policy forbade. */
  readonly errors: string[] = [];
  /** Addresses that were asked for. */
  readonly requests: string[] = [];
  readonly #browser: Browser;
  readonly #session: string;
  readonly #target: string;
  #loaded: () => void = () => {};

  /** @internal */
  constructor(browser: Browser, session: string, target: string) {
    this.#browser = browser;
    this.#session = session;
    this.#target = target;
    browser.listen(session, ({ method, params }) => {
      if (method === "Page.loadEventFired") this.#loaded();
      if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
      if (method === "Runtime.exceptionThrown") {
        this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      }
      if (method === "Runtime.consoleAPICalled" && ["error", "warning", "assert"].includes(params.type)) {
        this.errors.push(params.args.map((each: { value?: unknown }) => String(each.value)).join(" "));
      }
      if (method === "Log.entryAdded" && params.entry.level === "error") this.errors.push(params.entry.text);
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: as in `Message`.
  send(method: string, params: object = {}): Promise<any> {
    return this.#browser.send(method, params, this.#session);
  }

  /** @internal */
  async load(url: string, looks: Looks): Promise<void> {
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await this.send(`${domain}.enable`);
    await this.look(looks);
    const loaded = new Promise<void>((resolve) => {
      this.#loaded = resolve;
    });
    await this.send("Page.navigate", { url });
    await within(loaded, ANSWER_MS, `loading ${url}`);
  }

  async look({ width = 1280, height = 900, scheme = "light" }: Looks): Promise<void> {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  /** The value of an expression on the page; a promise's when it is one. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value as T;
  }

  /** Waits until an expression is true on the page. */
  async until(expression: string): Promise<void> {
    const deadline = performance.now() + ANSWER_MS;
    while (!(await this.evaluate<unknown>(expression))) {
      if (performance.now() > deadline) throw new Error(`never true on the page: ${expression}`);
      await Bun.sleep(20);
    }
  }

  /** The middle of the first element that a selector finds, scrolled to where it is seen. */
  async middleOf(selector: string): Promise<{ readonly x: number; readonly y: number }> {
    const found = await this.evaluate<{ x: number; y: number } | null>(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      if (!element) return null;
      element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
      const { left, top, width, height } = element.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    if (found === null) throw new Error(`there is no ${selector} on the page`);
    return found;
  }

  async pointAt(x: number, y: number): Promise<void> {
    // From a step beside it, for what only notices movement.
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", x: x - 2, y });
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
  }

  async hover(selector: string): Promise<void> {
    const { x, y } = await this.middleOf(selector);
    await this.pointAt(x, y);
  }

  async click(selector: string): Promise<void> {
    const { x, y } = await this.middleOf(selector);
    await this.pointAt(x, y);
    const button = { x, y, button: "left", clickCount: 1 };
    await this.send("Input.dispatchMouseEvent", { type: "mousePressed", ...button });
    await this.send("Input.dispatchMouseEvent", { type: "mouseReleased", ...button });
  }

  /** Presses a key by its name, such as `ArrowDown`. */
  async press(key: string): Promise<void> {
    const codes: Readonly<Record<string, number>> = { Enter: 13, Escape: 27, Tab: 9 };
    const arrows = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"];
    const windowsVirtualKeyCode = codes[key] ?? 37 + arrows.indexOf(key);
    const text = key === "Enter" ? { text: "\r" } : {};
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, code: key, windowsVirtualKeyCode, ...text });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code: key, windowsVirtualKeyCode });
  }

  async type(text: string): Promise<void> {
    await this.send("Input.insertText", { text });
  }

  /** A picture as PNG: of the viewport, or of the whole page. */
  async screenshot(options: { readonly whole?: boolean } = {}): Promise<Uint8Array> {
    const { data } = await this.send("Page.captureScreenshot", { captureBeyondViewport: options.whole ?? false });
    return Uint8Array.fromBase64(data);
  }

  async close(): Promise<void> {
    await this.#browser.send("Target.closeTarget", { targetId: this.#target });
  }
}

/** What the browser says on standard error where it listens. The rest is read as well, or the pipe would fill. */
async function addressOf(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let found: ((address: string) => void) | undefined;
  let failed: ((error: Error) => void) | undefined;
  const address = new Promise<string>((resolve, reject) => {
    found = resolve;
    failed = reject;
  });
  const read = async (): Promise<void> => {
    let text = "";
    const decoder = new TextDecoder();
    for await (const bytes of stderr) {
      if (text.length > 1 << 16) continue;
      text += decoder.decode(bytes, { stream: true });
      const listening = /DevTools listening on (ws:\S+)/.exec(text)?.[1];
      if (listening !== undefined) found?.(listening);
    }
    failed?.(new Error(`the browser ended: ${text}`));
  };
  void read();
  return address;
}

async function end(child: Bun.Subprocess<"ignore", "ignore", "pipe">, profile: string): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
  // Its helpers may write into it for a moment longer.
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

async function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing came in ${ms / 1000} s`)), ms);
  });
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
