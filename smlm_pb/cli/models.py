"""``smlm-pb models``: which models there are, what each was made for, how good it is."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from smlm_pb.cli.faults import EXIT_OK

if TYPE_CHECKING:
    from smlm_pb.localization.model_card import ModelCard

_DESCRIPTION = """\
List the shipped models with the range of data that each was trained for, or tell everything about one.
A movie outside a model's range is localized with a warning.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the options of the verb."""
    parser = subparsers.add_parser("models", description=_DESCRIPTION)
    parser.add_argument(
        "model", nargs="?", metavar="NAME|DIR", help="tell everything about this model: a shipped one, or a folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the cards of the models."""
    from smlm_pb.localization.model import find_model, list_models
    from smlm_pb.localization.model_card import ModelCard

    if args.model is not None:
        card = ModelCard.load(find_model(args.model))
        print(json.dumps(asdict(card), indent=2, ensure_ascii=False) if args.json else _everything(card))
        return EXIT_OK
    cards = list_models()
    if args.json:
        print(json.dumps([asdict(card) for card in cards], indent=2, ensure_ascii=False))
    else:
        print(
            "\n\n".join(_summary(card) + _headline(card) for card in cards) + "\n\nEverything: smlm-pb models NAME"
            if cards
            else "No model is shipped with this installation."
        )
    return EXIT_OK


def _summary(card: ModelCard) -> str:
    ranges = (
        ("PSF sigma", card.psf_sigma_px, "px"),
        ("photons", card.photons, "e⁻ per molecule and frame"),
        ("background", card.background_e, "e⁻ per pixel"),
        ("read noise", card.read_noise_e, "e⁻ (more counts as background)"),
        ("density", card.density_per_px2, "molecules per pixel and frame"),
    )
    lines = [card.name, *textwrap.wrap(card.description, 88, initial_indent="  ", subsequent_indent="  ")]
    lines += [f"  {name:<11}{low:g} to {high:g} {unit}" for name, (low, high), unit in ranges]
    return "\n".join(lines)


#: What tells most of a model, first what tells more: test, words, and for which figures of the card.
_HEADLINES = (
    ("density_sweep", "Jaccard index at 100 nm", "jaccard_100nm_at_{}_per_um2", ("0.25", "1", "4"), "per µm²"),
    ("microtubules", "Jaccard index on crowded microtubules", "jaccard_{}nm", ("25", "50"), "nm"),
)


def _headline(card: ModelCard) -> str:
    """What the model reaches, in a line."""
    text = ""
    for test, words, key, places, unit in reversed(_HEADLINES):
        figures = card.accuracy.get(test) or card.accuracy.get(f"{test}_{card.name}") or {}
        known = [f"{figures[key.format(at)]:.3g} at {at} {unit}" for at in places if key.format(at) in figures]
        text = f"{words}: {', '.join(known)}" if known else text
    validation = card.accuracy.get("validation") or {}
    if not text and "jaccard" in validation:
        text = f"validation: jaccard {validation['jaccard']:.3g}"
    wrapped = textwrap.wrap(text, 88, initial_indent="  accuracy   ", subsequent_indent=" " * 13)
    return "".join(f"\n{line}" for line in wrapped)


def _everything(card: ModelCard) -> str:
    sections = (("network", card.network), ("training", card.training), ("accuracy", card.accuracy))
    parts = [_summary(card)]
    parts += [f"{title}\n{_indented(content)}" for title, content in sections if content]
    parts.append(f"weights\n  sha256     {card.weights_sha256}")
    return "\n".join(parts)


def _indented(content: dict[str, Any], depth: int = 1) -> str:
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines.append(f"{'  ' * depth}{key}\n{_indented(value, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{key}: {value}")
    return "\n".join(lines)
