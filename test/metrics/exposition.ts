// Reads Prometheus' text formats as their specifications say, for tests: format 0.0.4 and, of OpenMetrics 2.0, what histograms
// need. It knows nothing of who wrote the text, and refuses what it does not know.

export interface ReadSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  /** A value of several fields. */
  readonly fields?: Readonly<Record<string, string>>;
}

export interface ReadFamily {
  readonly type: string;
  readonly help: string;
  readonly unit: string;
  readonly samples: readonly ReadSample[];
}

/** Families by their names, in the text's order; samples of a family stand together. */
export function readExposition(text: string, openMetrics: boolean): Map<string, ReadFamily> {
  const families = new Map<string, { type: string; help: string; unit: string; samples: ReadSample[] }>();
  if (!text.endsWith("\n") || text.includes("\r")) throw new Error("lines must end in line feeds");
  const lines = text.slice(0, -1).split("\n");
  if (openMetrics && lines.pop() !== "# EOF") throw new Error("the end is missing");
  let current = "";
  for (const line of lines) {
    const described = /^# (HELP|TYPE|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line);
    if (described) {
      const [, what = "", name = "", rest = ""] = described;
      if (name !== current) {
        if (families.has(name)) throw new Error(`${name} stands in two places`);
        families.set(name, { type: "", help: "", unit: "", samples: [] });
        current = name;
      }
      const family = families.get(name);
      if (!family || family.samples.length > 0) throw new Error(`${line} comes too late`);
      if (what === "HELP") family.help = unescaped(rest);
      if (what === "TYPE") family.type = rest;
      if (what === "UNIT") family.unit = rest;
      continue;
    }
    if (line.startsWith("#")) throw new Error(`a comment: ${line}`);
    const sample = readSample(line);
    const family = families.get(current);
    const suffix = sample.name.slice(current.length);
    const allowed = !openMetrics && family?.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    if (!family || !sample.name.startsWith(current) || !allowed.includes(suffix)) {
      throw new Error(`${line} does not belong to ${current}`);
    }
    const key = ({ name, labels }: ReadSample) => JSON.stringify([name, Object.entries(labels).sort()]);
    if (family.samples.some((other) => key(other) === key(sample))) throw new Error(`${line} is there twice`);
    family.samples.push(sample);
  }
  return families;
}

function readSample(line: string): ReadSample {
  const name = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line)?.[0] ?? "";
  let at = name.length;
  const labels: Record<string, string> = {};
  if (line[at] === "{") {
    at++;
    while (line[at] !== "}") {
      const label = /^,?([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/.exec(line.slice(at));
      if (!label) throw new Error(`labels: ${line}`);
      labels[label[1] ?? ""] = unescaped(label[2] ?? "");
      at += label[0].length;
    }
    at++;
  }
  const rest = line.slice(at);
  const number = /^ ([-+0-9.eE]+|\+Inf|NaN)$/.exec(rest)?.[1];
  if (number !== undefined) return { name, labels, value: Number(number) };
  const composite = /^ \{([^ {}]*)\}$/.exec(rest)?.[1];
  if (composite === undefined) throw new Error(`value: ${line}`);
  const fields = Object.fromEntries(
    [...composite.matchAll(/([a-z_]+):(\[[^\]]*\]|[^,[]+)(?:,|$)/g)].map(([, key, value]) => [key ?? "", value ?? ""]),
  );
  const rewritten = Object.entries(fields).map(([key, value]) => `${key}:${value}`);
  if (rewritten.join(",") !== composite) throw new Error(`fields: ${line}`);
  return { name, labels, value: Number.NaN, fields };
}

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, (_, character: string) => (character === "n" ? "\n" : character));
}

/** The pairs of a field such as `[0.1:3,+Inf:4]`. */
export function pairsOf(field: string | undefined): (readonly [number, number])[] {
  const inner = /^\[(.*)\]$/.exec(field ?? "[]")?.[1] ?? "";
  if (inner === "") return [];
  return inner.split(",").map((pair) => {
    const [first = "", second = ""] = pair.split(":");
    return [first === "+Inf" ? Number.POSITIVE_INFINITY : Number(first), Number(second)] as const;
  });
}

/** Counts by the upper bounds of native buckets, ascending, the one around zero first; only those that are not empty. */
export function decodeNative(fields: Readonly<Record<string, string>>): (readonly [bound: number, count: number])[] {
  const perDoubling = 2 ** Number(fields["schema"]);
  const inner = (fields["positive_buckets"] ?? "[]").slice(1, -1);
  const counts = inner === "" ? [] : inner.split(",").map(Number);
  const decoded: (readonly [number, number])[] = [[Number(fields["zero_threshold"]), Number(fields["zero_count"])]];
  let index = 0;
  for (const [span, [offset, length]] of pairsOf(fields["positive_spans"]).entries()) {
    if (!Number.isInteger(offset) || !(length > 0) || (span > 0 && offset < 0)) throw new Error("a span that is none");
    index += offset;
    for (let taken = 0; taken < length; taken++) decoded.push([2 ** (index++ / perDoubling), counts.shift() ?? -1]);
  }
  if (counts.length > 0) throw new Error("more buckets than spans");
  return decoded.filter(([, count]) => count !== 0);
}
