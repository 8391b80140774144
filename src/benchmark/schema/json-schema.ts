// JSON Schemas of what zod checks, as they are published.

import { z } from "zod";

/** A JSON Schema (2020-12) of what `schema` takes, behind `head`. Formats are left out: patterns say the same to every validator. */
export function publishedSchema(schema: z.ZodType, head: { $id: string; title: string; description: string }): object {
  const { $schema, ...rest } = z.toJSONSchema(schema, {
    io: "input",
    override({ jsonSchema }) {
      delete jsonSchema.format;
    },
  });
  return { $schema, ...head, ...rest };
}
