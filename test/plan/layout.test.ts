// The structs that cross into Zig: their offsets by C's rules computed another way, and the library's own word for it.

import { describe, expect, test } from "bun:test";
import { openLibrary } from "../../src/engine/library.ts";
import * as layout from "../../src/plan/layout.ts";

const widths: Readonly<Record<layout.FieldType, number>> = { u8: 1, u16: 2, u32: 4, i32: 4, f32: 4, u64: 8 };
const structs = [
  layout.Header,
  layout.Tensor,
  layout.Op,
  layout.KvLayer,
  layout.KvGroup,
  layout.Config,
  layout.Settings,
  layout.Usage,
  layout.Request,
  layout.Record,
  layout.Event,
];

describe("a struct", () => {
  for (const struct of structs) {
    test(`${struct.name} has each field at the first place after the one before it that its alignment allows`, () => {
      const fields = [...struct.fields.values()];
      let end = 0;
      for (const { name, type, count, offset } of fields) {
        let expected = end;
        while (expected % widths[type] !== 0) expected += 1;
        expect(`${name} ${offset}`).toBe(`${name} ${expected}`);
        end = expected + count * widths[type];
      }
      const alignment = Math.max(...fields.map(({ type }) => widths[type]));
      while (end % alignment !== 0) end += 1;
      expect(struct.size).toBe(end);
    });
  }

  test("is written at its fields' places and nowhere else", () => {
    const bytes = new Uint8Array(3 * layout.Event.size).fill(0xaa);
    layout.Event.write(new DataView(bytes.buffer), layout.Event.size, {
      start: 0x1122334455667788n,
      end: 1,
      step: 2,
      rows: 3,
      op: 0x0506,
      kind: 7,
      thread: 8,
      aux: 0xffffffff,
    });
    expect([...bytes.subarray(0, layout.Event.size)]).toEqual(new Array(layout.Event.size).fill(0xaa));
    expect([...bytes.subarray(2 * layout.Event.size)]).toEqual(new Array(layout.Event.size).fill(0xaa));
    // biome-ignore format: one field a line
    expect([...bytes.subarray(layout.Event.size, 2 * layout.Event.size)]).toEqual([
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
      1, 0, 0, 0, 0, 0, 0, 0,
      2, 0, 0, 0,
      3, 0, 0, 0,
      6, 5,
      7,
      8,
      255, 255, 255, 255,
    ]);
  });

  test("refuses more values than a field holds", () => {
    const view = new DataView(new ArrayBuffer(layout.Op.size));
    expect(() => layout.Op.write(view, 0, { f: [1, 2, 3, 4, 5] })).toThrow("Op.f holds 4 values, not 5");
  });
});

test("the library was built from the same structs", async () => {
  const { symbols } = await openLibrary();
  expect(layout.layoutHash()).toBe(BigInt(symbols.tinyai_layout_hash()));
});

test("the events are what the profiler reads", async () => {
  const { EVENT_BYTES, EventWord } = await import("../../profiler/index.ts");
  expect(layout.Event.size).toBe(EVENT_BYTES);
  expect(layout.Event.offset("step") / 4).toBe(EventWord.step);
  expect(layout.Event.offset("rows") / 4).toBe(EventWord.rows);
  expect(layout.Event.offset("op") / 4).toBe(EventWord.place);
  expect(layout.Event.offset("aux") / 4).toBe(EventWord.aux);
});
