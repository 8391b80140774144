// Runs before every test file (bunfig.toml). It sets what bunfig.toml has no key for.

import { setDefaultTimeout } from "bun:test";

// Tests that start processes or feed ten thousand damaged files take longer than the 5 s default on a loaded machine.
setDefaultTimeout(120_000);
