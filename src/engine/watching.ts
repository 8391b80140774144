// Who watches an engine at work: several at once, each as if it were alone. Events and what is known of requests go to all of them.

import { EVENT_BYTES, EVENT_WORDS, EventWord, eventWords } from "../../profiler/events.ts";
import type { RequestEnding, RequestSubmission } from "../../profiler/requests.ts";
import type { EngineRequest } from "./engine.ts";

/** Hears of requests as JavaScript sees them. */
export interface RequestObserver {
  submitted(id: number, submission: RequestSubmission, request: EngineRequest): void;
  /** However it ended; also of requests that were submitted before it listened. */
  ended(id: number, ending: RequestEnding): void;
}

export interface EngineWatcher {
  /**
   * Gets events as they are drained, a thread's own in their order. The bytes are only lent. The engine writes none while nobody wants
   * them.
   */
  readonly events?: (events: Uint8Array, thread: number) => void;
  /** Whether events may wait for its end where there is room for them: to hand them over takes CPU time that the engine could use. */
  readonly patient?: boolean;
  /**
   * Of one step in how many it wants what this thread did; of the others the step itself and whose it was are enough. Asked at each
   * hand-over; default 1. Others who watch may need more, which it then gets, too.
   */
  readonly detail?: (thread: number) => number;
  readonly requests?: RequestObserver;
}

/** All who watch one engine. */
export class Watching {
  readonly #watchers = new Map<EngineWatcher, Joining | undefined>();
  /** The last step that a thread has written of. */
  #lastStep: number | undefined;
  #wantsEvents = false;
  #patient = true;
  /** Who alone wants events. */
  #only: EngineWatcher | undefined;

  /** Tells all of them. */
  readonly requests: RequestObserver = {
    submitted: (...told) => {
      for (const { requests } of this.#watchers.keys()) requests?.submitted(...told);
    },
    ended: (...told) => {
      for (const { requests } of this.#watchers.keys()) requests?.ended(...told);
    },
  };

  get count(): number {
    return this.#watchers.size;
  }

  /** Whether somebody wants events. */
  get wantsEvents(): boolean {
    return this.#wantsEvents;
  }

  /** Whether all who want events can wait for them. */
  get patient(): boolean {
    return this.#patient;
  }

  /** Of one step in how many all of a thread's events are wanted. */
  detail(thread: number): number {
    return this.#only?.detail?.(thread) ?? 1;
  }

  /** It is told of the steps that begin from now on: all events so far have been drained. */
  add(watcher: EngineWatcher): void {
    // For who alone wants them, events are switched on between steps.
    if (!this.wantsEvents) this.#lastStep = undefined;
    this.#watchers.set(watcher, this.#lastStep === undefined ? undefined : new Joining(this.#lastStep));
    this.#summarise();
  }

  remove(watcher: EngineWatcher): void {
    this.#watchers.delete(watcher);
    this.#summarise();
  }

  /** What the engine asks at every token is known beforehand: a model's weights sweep all else from the caches. */
  #summarise(): void {
    const wanting = [...this.#watchers.keys()].filter(({ events }) => events !== undefined);
    this.#wantsEvents = wanting.length > 0;
    this.#patient = wanting.every(({ patient }) => patient === true);
    this.#only = wanting.length === 1 ? wanting[0] : undefined;
  }

  events(events: Uint8Array, thread: number): void {
    for (const [watcher, joining] of this.#watchers) {
      if (!watcher.events) continue;
      const told = joining ? joining.after(events, thread) : events;
      if (told.length > 0) watcher.events(told, thread);
    }
    const step = eventWords(events).at(EventWord.step - EVENT_WORDS) ?? 0;
    if (this.#lastStep === undefined || isAfter(step, this.#lastStep)) this.#lastStep = step;
  }
}

/**
 * Leaves out a step that was under way when somebody began to watch beside others, for whom it had been written from its
 * beginning: a part of a step would look like one whose events were lost.
 */
class Joining {
  readonly #leftOut: number;
  /** By thread: whether it has come to a later step. */
  readonly #joined: boolean[] = [];

  constructor(leftOut: number) {
    this.#leftOut = leftOut;
  }

  after(events: Uint8Array, thread: number): Uint8Array {
    if (this.#joined[thread]) return events;
    const words = eventWords(events);
    for (let at = 0; at < words.length; at += EVENT_WORDS) {
      if (!isAfter(words[at + EventWord.step] ?? 0, this.#leftOut)) continue;
      this.#joined[thread] = true;
      return events.subarray((at / EVENT_WORDS) * EVENT_BYTES);
    }
    return events.subarray(events.length);
  }
}

/** Whether step number `a` is later than `b`. Numbers are 32 bits and wrap. */
function isAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}
