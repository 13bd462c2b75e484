"""The model card of a release: the variant's own part, the part common to all, and the scores of the weights in it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from tumour.errors import InputError
from tumour.runs.trained import settings_of

from tools.bundles import COMMON, folder_of
from tools.release.metadata import interface
from tools.results import results

WEIGHTS = {
    "shipped": "Trained weights are in `models/model.pt`.",
    "linked": "Download the trained weights first, from this folder: `python -m monai.bundle download_large_files`.",
    "none": "No trained weights are included; train first.",
}


def card(bundle: str, config: Mapping[str, Any], checkpoint: Path | None = None, url: str = "") -> str:
    """The model card; each section contains the variant's own text, then the common text.

    Args:
        bundle: a folder of bundles/.
        config: of the release's inference workflow.
        checkpoint: the weights of the release, if it has any.
        url: where they can be downloaded, if they are not in the zip.
    """
    own = sections((folder_of(bundle) / "docs" / "README.md").read_text(encoding="utf-8"))
    common = sections(common_part(bundle, config, checkpoint, url))
    unknown = [heading for heading in own if heading not in common]
    if unknown:
        raise InputError(
            f"bundles/{bundle}/docs/README.md: '{unknown[0]}' is not a heading of bundles/common/card.md, which has "
            f"{', '.join(common)}; move the text below one of these."
        )
    texts = {heading: [text for text in (own.get(heading, ""), common[heading]) if text] for heading in common}
    return "\n\n".join("\n\n".join([heading, *text]) for heading, text in texts.items() if text) + "\n"


def common_part(bundle: str, config: Mapping[str, Any], checkpoint: Path | None, url: str) -> str:
    """bundles/common/card.md with the facts of this release filled in."""
    template = jinja2.Template((COMMON / "card.md").read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined)
    state = "none" if checkpoint is None else "linked" if url else "shipped"
    members = settings_of(str(checkpoint.parent)).get("members", []) if checkpoint else []
    ensemble = f" The network averages the probabilities of {len(members)} networks." if members else ""
    return template.render(
        bundle=bundle,
        cohort=config["defaults"]["cohort"],
        interface=interface(config),
        weights=WEIGHTS[state] + ensemble,
        published=checkpoint is not None and checkpoint.parent.resolve() == folder_of(bundle) / "weights",
        performance=results({bundle: checkpoint}) if checkpoint else WEIGHTS["none"],
    )


def sections(text: str) -> dict[str, str]:
    """The text below each heading of a Markdown page, by heading."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)[1:]
    return {heading: body.strip() for heading, body in zip(parts[::2], parts[1::2], strict=True)}
