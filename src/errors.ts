// Every error that TinyAI raises on purpose. A message says what was wrong, where, and what to do; the class says whose
// doing it is, and the `code` is stable for programs. Nothing here formats for a terminal: the command line does.

/** The root of TinyAI's errors. `code` is stable; `message` is for people. */
export class TinyAIError extends Error {
  /** The class's name, written out: bundlers that minify rename classes. */
  override readonly name: string = "TinyAIError";
  /** A stable, machine-readable name of the error, such as `model_file`. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A model file that cannot be read, is damaged, or asks for something TinyAI does not have. */
export class ModelFileError extends TinyAIError {
  override readonly name: string = "ModelFileError";
  /** The file's path as the user gave it. */
  readonly path: string;
  /** The field at fault: a metadata key, `tensor blk.0.attn_q.weight`, `header.version`. */
  readonly field: string;

  constructor(path: string, field: string, problem: string, options?: ErrorOptions) {
    super("model_file", `${path}: ${field}: ${problem}`, options);
    this.path = path;
    this.field = field;
  }
}

/** An option, argument or prompt outside its bounds. `option` is its path, such as `threads.count`. */
export class OptionError extends TinyAIError {
  override readonly name: string = "OptionError";
  readonly option: string;

  constructor(option: string, problem: string, options?: ErrorOptions) {
    super("option", `${option}: ${problem}`, options);
    this.option = option;
  }
}

/** The native library is missing, cannot be opened, or does not match this TypeScript. */
export class LibraryError extends TinyAIError {
  override readonly name: string = "LibraryError";

  constructor(message: string, options?: ErrorOptions) {
    super("library", message, options);
  }
}

/** The engine could not do what was asked: memory refused, a model file changed underneath, the model is closed. */
export class EngineError extends TinyAIError {
  override readonly name: string = "EngineError";

  constructor(message: string, options?: ErrorOptions) {
    super("engine", message, options);
  }
}

/**
 * Something would take more memory than the limit leaves (`limits.memoryPercent`, `setMemoryLimit`). It was refused before it took any:
 * the model can be used on.
 */
export class MemoryLimitError extends TinyAIError {
  override readonly name: string = "MemoryLimitError";
  /** What it would take, in bytes. */
  readonly neededBytes: number;
  /** What the limit leaves for it, in bytes; 0 where the process takes more than the limit already. */
  readonly availableBytes: number;

  constructor(what: string, neededBytes: number, availableBytes: number, remedy: string) {
    const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
    super(
      "memory_limit",
      `${what} would take ${megabytes(neededBytes)}, but the memory limit leaves ${megabytes(availableBytes)}; ${remedy}`,
    );
    this.neededBytes = neededBytes;
    this.availableBytes = availableBytes;
  }
}

/** A session's file that cannot be read or written, is damaged, or belongs to another model or another way to run it. */
export class SessionFileError extends TinyAIError {
  override readonly name: string = "SessionFileError";
  /** The file's path as the user gave it. */
  readonly path: string;

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super("session_file", `${path}: ${problem}`, options);
    this.path = path;
  }
}

/** A file of an index of vectors that cannot be read or written, is damaged, or is none. */
export class IndexFileError extends TinyAIError {
  override readonly name: string = "IndexFileError";
  /** The file's path as the user gave it. */
  readonly path: string;

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super("index_file", `${path}: ${problem}`, options);
    this.path = path;
  }
}

/** A file with what a test's matchers measured or counted before, that cannot be read or written, or is damaged. */
export class BaselineFileError extends TinyAIError {
  override readonly name: string = "BaselineFileError";
  readonly path: string;

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super("baseline_file", `${path}: ${problem}`, options);
    this.path = path;
  }
}

/**
 * A file of benchmark results or of a benchmark's configuration that cannot be read, is damaged, is newer than this version, or is
 * something else; or files of results that cannot be compared.
 */
export class BenchmarkFileError extends TinyAIError {
  override readonly name: string = "BenchmarkFileError";
  /** The file's path as the user gave it. */
  readonly path: string;

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super("benchmark_file", `${path}: ${problem}`, options);
    this.path = path;
  }
}

/** A download that failed, was cut short, or does not have the expected checksum. */
export class DownloadError extends TinyAIError {
  override readonly name: string = "DownloadError";

  constructor(message: string, options?: ErrorOptions) {
    super("download", message, options);
  }
}
